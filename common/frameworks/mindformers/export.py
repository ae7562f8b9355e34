"""From a checkpoint to a model folder in Hugging Face layout."""

from __future__ import annotations

import json
from pathlib import Path

from common.errors import RunError
from common.files import write_json, write_text
from common.frameworks.mindformers.checkpoints import Checkpoint
from common.frameworks.mindformers.configuration import Run
from common.weights import convert as converting
from common.weights import mindspore_ckpt
from common.weights.convert import Options, convert


def whole(checkpoint: Checkpoint, base: Path, strategy: Path, folder: Path) -> Path:
    """One file with every parameter: the first rank's, or the ranks' parts put together under `folder`.

    A file is whole when it holds every tensor of the base model in its shape. `strategy` is the folder of the
    files in which MindSpore says how it has cut them. Raises RunError where there are none.
    """
    if is_whole(checkpoint.files[0], base):
        return checkpoint.files[0]
    import mindspore as ms

    if not any(strategy.glob("*.ckpt")):
        raise RunError("nothing says how the checkpoint was cut", file=strategy, expected="strategy files")
    parts = folder / "parts"
    for rank, file in enumerate(checkpoint.files):
        (parts / f"rank_{rank}").mkdir(parents=True)
        (parts / f"rank_{rank}" / f"part{rank}.ckpt").symlink_to(file)
    ms.merge_pipeline_strategys(str(strategy), str(folder / "strategy.ckpt"))
    ms.transform_checkpoints(str(parts), str(folder / "whole"), "whole_", str(folder / "strategy.ckpt"), None)
    return next((folder / "whole").rglob("*.ckpt"))


def is_whole(file: Path, base: Path) -> bool:
    """Whether `file` holds every tensor of the checkpoint `base` in its shape."""
    held = mindspore_ckpt.read(file)
    return all(name in held and held[name].shape == raw.shape for name, raw in mindspore_ckpt.read(base).items())


def to_hugging_face(checkpoint: Path, run: Run, folder: Path) -> None:
    """Write `checkpoint`, whole, to `folder` with the base model's config and tokenizer."""
    options = run.export or {}
    size = converting.parse_size(options.get("shard_size", "5GB"))
    convert(
        checkpoint,
        folder,
        Options("hf", options.get("dtype"), size),
        config=run.weights / "config.json",
        tokenizer=run.weights,
    )
    file = folder / "generation_config.json"
    generation = json.loads(file.read_text(encoding="utf-8"))
    stated = generation["eos_token_id"]
    ends = stated if isinstance(stated, list) else [stated]
    if (end := run.meta["end_of_answer_id"]) not in ends:
        generation["eos_token_id"] = [end, *ends]  # generation stops where the template ends an answer
        write_json(file, generation)


def write_card(folder: Path, run: Run, made: str, recipe: str, kind: str = "full") -> None:
    """README.md of the model: what it is and how it was made. `made` is a sentence."""
    lines = [
        "---",
        "library_name: transformers",
        f"tags: [llama-3, {kind}, sft]",
        "---",
        "",
        "# Llama 3 fine-tuned",
        "",
        f"- {made}",
        f"- Prompt template: `{run.meta['template']}`. The same template must be used to ask it.",
        f"- Made by Llama 3 recipes, {recipe}; report.md has losses, versions and the machine.",
        "- The licence of the base model applies.",
    ]
    write_text(folder / "README.md", "\n".join(lines) + "\n")
