"""`python -m common.evaluation generate`: what it finds, what it refuses, what it prints."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from asked_run import SYSTEM, Ask

from common.errors import UserError
from common.evaluation import generate, subject
from common.weights import convert


def refused(ask: Ask, *arguments: object) -> str:
    """The message of a call that is wrong: status 2, nothing on standard output, no traceback."""
    done = ask(*arguments)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    return done.stderr


def test_no_such_folder(ask: Ask, tmp_path: Path) -> None:
    assert "no such folder" in refused(ask, "--model", tmp_path / "none", "--prompt", "a")


def test_a_folder_without_config_names_the_one_beside(ask: Ask, finished_run: Path, tmp_path: Path) -> None:
    assert "config.json" in refused(ask, "--model", tmp_path, "--prompt", "a")
    assert f"did you mean {finished_run / 'model'}?" in refused(ask, "--model", finished_run, "--prompt", "a")


def test_an_adapter_without_its_base(ask: Ask, finished_run: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(finished_run / "adapter", adapter)
    config = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
    config["base_model_name_or_path"] = "meta-llama/Meta-Llama-3-8B"
    (adapter / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    message = refused(ask, "--model", adapter, "--prompt", "a")
    assert "meta-llama/Meta-Llama-3-8B" in message and "--adapter" in message


def test_a_folder_that_is_no_adapter(ask: Ask, finished_run: Path) -> None:
    message = refused(ask, "--model", finished_run / "weights", "--adapter", finished_run / "model", "--prompt", "a")
    assert "adapter_config.json" in message


@pytest.mark.parametrize(
    "arguments", [["--prompt", ""], ["--prompt", "a", "--prompt", "  \n"], [], ["--raw", "--prompt", ""]]
)
def test_no_prompt_or_an_empty_one(ask: Ask, finished_run: Path, arguments: list[str]) -> None:
    assert "prompt" in refused(ask, "--model", finished_run / "model", *arguments)


def test_a_prompt_longer_than_the_context(ask: Ask, finished_run: Path) -> None:
    message = refused(ask, "--model", finished_run / "model", "--prompt", "word " * 9000)
    assert "8192 tokens in all" in message and "shorten the prompt" in message
    message = refused(ask, "--model", finished_run / "model", "--prompt", "a", "--max-new-tokens", 8190)
    assert "--max-new-tokens 81" in message  # what is left beside the prompt


@pytest.mark.parametrize(
    ("option", "value"),
    [("--max-new-tokens", 0), ("--batch-size", 0), ("--temperature", -1), ("--top-p", 0), ("--top-p", 1.5)],
)
def test_options_out_of_range(ask: Ask, finished_run: Path, option: str, value: float) -> None:
    assert f"{option} is out of range" in refused(
        ask, "--model", finished_run / "model", "--prompt", "a", option, value
    )


def test_a_model_of_unknown_template_asks_for_it(ask: Ask, finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run / "model", tmp_path / "model")
    message = refused(ask, "--model", tmp_path / "model", "--prompt", "a")
    assert "--template" in message and "--raw" in message
    (tmp_path / "model" / "README.md").write_text("- Prompt template: `vicuna`. Use it.\n", encoding="utf-8")
    assert subject.find(tmp_path / "model").template == "vicuna"


def test_another_tokenizer_than_the_training_data_had(finished_run: Path) -> None:
    found = subject.find(finished_run / "model")
    generate.tokenizer(found)
    found.meta["tokenizer"] = "sha256:another"
    with pytest.raises(UserError, match="not the tokenizer"):
        generate.tokenizer(found)


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="this environment has torch")
def test_without_torch_the_way_to_get_it_is_named(ask: Ask, finished_run: Path) -> None:
    message = refused(ask, "--model", finished_run / "model", "--prompt", "a")
    assert "no torch" in message and "bash recipes/fsdp_qlora_70b/run.sh" in message


def test_an_adapter_takes_the_run_s_base_and_how_it_was_trained(finished_run: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(finished_run, moved)
    plan = (moved / "plan.yaml").read_text("utf-8").replace("quantized: false", "quantized: true")
    plan = plan.replace("config:\n", "config:\n  bitsandbytes:\n    load_in_4bit: true\n")
    (moved / "plan.yaml").write_text(plan, encoding="utf-8")
    found = subject.find(moved / "adapter")
    assert (found.model, found.adapter) == (moved / "weights", moved / "adapter")
    assert (found.dtype, found.quantization) == ("float32", {"load_in_4bit": True})
    merged = subject.find(moved / "model")
    assert (merged.dtype, merged.quantization) == ("auto", None)
    assert subject.find(finished_run / "weights", moved / "adapter").quantization == {"load_in_4bit": True}


@pytest.mark.parametrize(
    ("script", "said"),
    [("echo some reason >&2; exit 3", "exit status 3"), ("kill -9 $$", "memory ran out")],
)
def test_a_worker_that_fails_is_an_error_while_running(
    ask: Ask, finished_run: Path, tmp_path: Path, script: str, said: str
) -> None:
    broken = tmp_path / "python"
    broken.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    broken.chmod(0o755)
    done = ask("--model", finished_run / "model", "--prompt", "a", "--python", broken)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr and ("some reason" in done.stderr) == ("reason" in script)


def test_broken_weights_end_in_one_message(ask: Ask, finished_run: Path, tmp_path: Path, torch_python: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(finished_run / "model", model)
    shard = next(model.glob("*.safetensors"))
    shard.write_bytes(b"not safetensors")
    done = ask("--model", model, "--raw", "--prompt", "a", "--python", torch_python)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the model could not be asked" in done.stderr and "Traceback" not in done.stderr


def objects(output: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.splitlines()]


def test_answers_do_not_depend_on_the_batch(ask: Ask, finished_run: Path, torch_python: Path) -> None:
    call = ["--model", finished_run / "model", "--prompts", finished_run / "data" / "prompts.jsonl", "--json"]
    call += ["--max-new-tokens", 12, "--python", torch_python]
    together, alone = ask(*call, "--batch-size", 3), ask(*call, "--batch-size", 1)
    assert together.returncode == alone.returncode == 0, together.stderr + alone.stderr
    found = objects(together.stdout)
    assert found == objects(alone.stdout) and len(found) == 3
    assert found[0].keys() == {"prompt", "answer", "tokens", "ended"}
    assert found[0]["answer"] and found[0]["tokens"] == 12 and found[0]["ended"] is False


def test_an_adapter_answers_as_the_merged_model_does(
    ask: Ask, finished_run: Path, tmp_path: Path, torch_python: Path
) -> None:
    merged = tmp_path / "merged"
    convert.convert(finished_run / "adapter", merged, convert.Options("hf"))
    call = ["--prompt", "How many hours are in a week?", "--template", "human_assistant", "--max-new-tokens", 12]
    call += ["--json", "--python", torch_python]
    adapter, whole = ask("--model", finished_run / "adapter", *call), ask("--model", merged, *call, "--system", SYSTEM)
    assert adapter.returncode == whole.returncode == 0, adapter.stderr + whole.stderr
    assert objects(adapter.stdout) == objects(whole.stdout)


def test_sampling_follows_its_seed(ask: Ask, finished_run: Path, torch_python: Path) -> None:
    call = ["--model", finished_run / "model", "--raw", "--prompt", "Once", "--prompt", "Once", "--batch-size", 1]
    call += ["--max-new-tokens", 12, "--python", torch_python, "--temperature", 1.5, "--seed", 1, "--json"]
    first, again = ask(*call), ask(*call)
    assert first.returncode == 0, first.stderr
    assert first.stdout == again.stdout
    one, other = objects(first.stdout)
    assert one["answer"] != other["answer"]
