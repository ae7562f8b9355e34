"""A finished run directory, written by the code that writes real ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from common import plan as plans
from common import recipe
from common.data.options import Options
from common.data.prepare import prepare
from common.evaluation import result
from common.evaluation.perplexity import LossSum, results
from common.metrics import MetricsWriter
from common.run import state
from common.weights import tiny

ATTACK = """<script>document.title = "owned"</script> & <img src="http://example.org/x.png"> ``` | end"""
MACHINE = {"cpu": "Example CPU", "cores": 2, "memory_gib": 8.0, "system": "Linux-test"}
STEPS = 20
ADAPTER_SHAPES = {"a.lora_A.weight": (4, 128), "a.lora_B.weight": (128, 4)}

Edit = Callable[[dict], None]


def with_adapter() -> Path:
    """The first recipe that publishes an adapter."""
    return next(
        folder
        for folder in recipe.folders()
        if any("adapter" in stage.publishes for stage in recipe.read(folder)[0].stages.values())
    )


def build(run: Path) -> None:
    planned = plans.make(plans.Request(recipe=with_adapter(), output=run))
    state.save_plan(planned, {"machine": MACHINE, "commit": "c0ffee", "versions": {"torch": "2.13.0"}})
    conversation = [{"role": "user", "content": ATTACK}, {"role": "assistant", "content": "No."}]
    lines = [json.dumps({"messages": conversation}), json.dumps({"messages": conversation[:1]})]
    (run / "input.jsonl").write_text("\n".join(lines), encoding="utf-8")
    tiny.make(run / "weights.partial")
    prepare(
        Options(
            input=str(run / "input.jsonl"),
            output=run / "data.partial",
            tokenizer="tiny",
            template="llama3",
            source="messages",
            odd_turns="drop",
        )
    )
    write_metrics(run / "metrics.jsonl", STEPS)
    (run / "export.partial" / "adapter").mkdir(parents=True)
    tensors = {name: np.ones(shape, np.float32) for name, shape in ADAPTER_SHAPES.items()}
    save_file(tensors, run / "export.partial" / "adapter" / "adapter_model.safetensors")
    tiny.make(run / "export.partial" / "model")
    sample = {"prompt": ATTACK, "reference": "No.", "before": "\x1c\x07", "after": ATTACK}
    answers = result.Result("sample answers", "ended by themselves", "eval", 1, 0.0, 1.0, True, [sample])
    (run / "evaluate.partial").mkdir()
    result.write(run / "evaluate.partial", [*results(LossSum(70.0, 10), LossSum(50.0, 10)), answers])
    for number, stage in enumerate(planned.stages, 1):
        (run / f"{stage.name}.partial").mkdir(exist_ok=True)
        state.finish(planned, stage, float(number), {})


def write_metrics(file: Path, steps: int, seconds: float = 0.5) -> None:
    """Rows of 90 tokens and 10 of padding; the first step takes a hundred times as long as the others."""
    file.unlink(missing_ok=True)
    writer = MetricsWriter(file, 0)
    for step in range(1, steps + 1):
        writer.write(
            {
                "step": step,
                "loss": 7.0 - step / 10,
                "learning_rate": 1e-4,
                "grad_norm": 1.0,
                "tokens": 90,
                "padded_tokens": 100,
                "seconds": seconds * (100 if step == 1 else 1),
                "memory_bytes": 2_000_000_000 + step,
            }
        )
    writer.close()
