"""What is wrong in the public original stays corrected (recipe.yaml, reproduces.corrected)."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import regex
import yaml
from conftest import ROOT

from common import tokenizer as tokenizers
from common.errors import UserError
from common.frameworks.mindformers import configuration, session
from common.tokenizer.vocabulary import SPLIT_PATTERN
from common.weights import get, verify
from common.weights.convert import Options
from common.weights.source import open_source


def test_a_weights_folder_with_and_without_a_slash(run: Path, tmp_path: Path) -> None:
    """The original's converter took the parent of a folder without a slash at its end."""
    sources = [f"{run / 'model'}", f"{run / 'model'}/"]
    for number, source in enumerate(sources):
        get.get(source, tmp_path / str(number), Options("mindspore"))
        converted = open_source(tmp_path / str(number))
        assert not verify.verify(open_source(run / "model"), converted, lambda _: None).problems


def test_digits_are_split_as_llama_3_does() -> None:
    """The original took digits one by one; Llama 3 takes up to three together."""
    assert regex.findall(SPLIT_PATTERN, "12345 is 7") == ["123", "45", " is", " ", "7"]
    tokens = tokenizers.load(tokenizers.TINY)
    assert tokens.decode(tokens.encode("12345")) == "12345"


@pytest.mark.parametrize("key", ["bos_token_id", "eos_token_id", "pad_token_id", "vocab_size"])
def test_ids_that_contradict_the_weights_are_refused(run: Path, tmp_path: Path, key: str) -> None:
    content = yaml.safe_load((run / "train" / "config.yaml").read_text())
    content["model"]["model_config"][key] = 7
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=f"{key} contradicts the weights"):
        configuration.read(file)
    own = configuration.read(run / "train" / "config.yaml")[1]["model"]["model_config"]
    tokens = tokenizers.load(run / "weights")
    assert own["bos_token_id"] == tokens.special["<|begin_of_text|>"]
    assert own["eos_token_id"] == tokens.special["<|end_of_text|>"]
    assert own["pad_token_id"] == tokens.special["<|finetune_right_pad_id|>"]


@pytest.mark.parametrize(
    ("key", "typo"),
    [
        ("optimizer", "optimzer"),
        ("load_ckpt_format", "load_ckpt_formt"),
        ("model.model_config.use_flash_attention", "use_flash_atention"),
    ],
)
def test_a_typing_mistake_in_a_key_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, typo: str
) -> None:
    """MindFormers would pass over it, and take its own default for what was meant."""
    monkeypatch.chdir(tmp_path)  # where MindFormers leaves its log
    config = configuration.read(run / "train" / "config.yaml")[1]
    session.check_keys({**config, "grouped_lr_schedule": {}})  # read, though MindFormers' template does not name it
    holder = config
    *parents, last = key.split(".")
    for parent in parents:
        holder = holder[parent]
    holder[typo] = holder.pop(last)
    with pytest.raises(UserError, match=rf"{typo}: MindFormers has no such key[\s\S]*did you mean '{last}'"):
        session.check_keys(config)


def test_weights_that_the_checkpoint_lacks_are_an_error(run: Path, tmp_path: Path) -> None:
    """MindFormers would train them from random numbers, with one warning among hundreds of lines."""
    from mindspore import load_checkpoint, save_checkpoint

    output = tmp_path / "run"
    for name in ("weights", "data", "train"):
        shutil.copytree(run / name, output / name)
    shutil.copyfile(run / "plan.yaml", output / "plan.yaml")
    file = output / "weights" / "llama3.ckpt"
    held = load_checkpoint(str(file))
    missing = "model.layers.2.feed_forward.w1.weight"
    file.unlink()
    save_checkpoint([{"name": name, "data": data} for name, data in held.items() if name != missing], str(file))
    config = output / "train" / "config.yaml"
    text = yaml.safe_dump(yaml.safe_load(config.read_text()), width=10**6, allow_unicode=True)  # no path over two lines
    config.write_text(text.replace(str(run), str(output)))
    command = [sys.executable, str(ROOT / "recipes" / "mindformers_ascend" / "train.py"), "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 1, done.stdout[-2000:]
    assert f"error: {file}: weights of the model are not in the checkpoint" in done.stderr and missing in done.stderr
    assert "Traceback" not in done.stderr.split("error: ")[-1]
    assert not list((output / "mindformers" / "checkpoint").rglob("*.ckpt"))
