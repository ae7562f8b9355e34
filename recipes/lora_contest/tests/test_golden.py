"""On the golden batches, in fp32, MindFormers' LoRA lands on the reference curve."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path

from conftest import run_sh
from test_run import tensors

from common import golden
from common.data import mindrecord
from common.weights import layouts

LORA = ".*wq|.*wk|.*wv|.*wo|.*w1|.*w2|.*w3"


def with_adapter(checkpoint: Path, adapter: Path) -> None:
    """Put an adapter's A and B into a MindSpore checkpoint, under MindFormers' names."""
    import mindspore as ms

    held = ms.load_checkpoint(str(checkpoint))
    for name, value in tensors(adapter / "adapter_model.safetensors").items():
        module, part = name.removeprefix("base_model.model.").removesuffix(".weight").rsplit(".lora_", 1)
        theirs = layouts.name_in(layouts.MINDSPORE, f"{module}.weight").removesuffix(".weight")
        own = f"{theirs}.mindpet_delta_lora_{part.lower()}"
        held[own] = ms.Parameter(ms.Tensor(value), name=own)
    checkpoint.unlink()  # a link, or a file that may not be written
    ms.save_checkpoint([{"name": name, "data": value} for name, value in held.items()], str(checkpoint))


def test_the_same_loss_as_everywhere(tmp_path: Path) -> None:
    prepared, run = tmp_path / "golden", tmp_path / "run"
    golden.prepare(prepared)
    settings = golden.read().settings["lora"]
    values = {
        "train.learning_rate": settings["learning_rate"],
        "train.warmup_ratio": 0,
        "train.max_grad_norm": settings["max_grad_norm"],
        "train.weight_decay": settings["weight_decay"],
        "train.max_steps": golden.STEPS,
        "train.save_steps": golden.STEPS,
        "train.micro_batch_size": golden.ROWS,
        "lora.rank": settings["rank"],
        "lora.alpha": settings["alpha"],
        "lora.targets": LORA,
        "config.lr_schedule.type": "ConstantWarmUpLR",
        "config.optimizer.betas": json.dumps(settings["betas"]),
        "config.optimizer.eps": settings["eps"],
        "config.train_dataset.data_loader.shuffle": "false",
        "config.model.model_config.seq_length": golden.LENGTH,
    }
    options: list[object] = ["--output", run, "--model", prepared / "model"]
    for key, value in values.items():
        options += ["--set", f"{key}={value}"]
    for stage in ("weights", "data"):
        done = run_sh(*options, "--only", stage)
        assert done.returncode == 0, done.stdout + done.stderr
    with_adapter(run / "weights" / "llama3.ckpt", prepared / "adapter")
    shutil.rmtree(run / "data" / "train")
    shutil.copytree(prepared / "data" / "train", run / "data" / "train")
    for file in (run / "data").glob("train.mindrecord*"):
        file.unlink()
    pad = json.loads((run / "data" / "meta.json").read_text())["pad_id"]
    mindrecord.write(run / "data" / "train", run / "data" / "train.mindrecord", length=golden.LENGTH + 1, pad=pad)
    done = run_sh(*options, "--only", "train")
    assert done.returncode == 0, done.stdout + done.stderr

    found = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    compared = golden.compare("lora", found)
    golden.record(run, compared, {name: version(name) for name in ("mindspore", "mindformers")})
    assert not compared.problems, compared.problems
