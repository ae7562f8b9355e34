"""The estimate against torch's own FSDP2 memory tracker, which runs the recipe's model on fake tensors."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from typing import Any

from common import environment, plan
from common.environment import ROOT
from common.errors import RunError, UserError
from common.memory.estimate import STEP_MOMENTS, estimate
from common.memory.job import Job
from tools.planning.answer import gib
from tools.planning.question import Question

TRACKER = "tools.planning.fsdp_tracker"
SECONDS = 900
DTYPES = {2: "bfloat16", 4: "float32"}


def compare(question: Question) -> dict[str, Any]:
    """The tracker's peak of a training step and this estimate's, in GiB, without what the tracker does not see.

    That is the scales of quantized weights, which no parameter holds, and what the optimizer takes for a
    moment. Raises UserError for a recipe that the tracker cannot follow.
    """
    job = question.job
    _check(question)
    python = environment.ensure(plan.environment_spec(question.request.recipe, question.plan.recipe, "cpu"))
    tracked = track(spec(job), str(python))
    ours = comparable(job)
    return {
        "tracker": gib(tracked["total"]),
        "tracker_parts": {part: gib(size) for part, size in tracked["bytes"].items()},
        "estimate": gib(ours),
        "difference": ours / tracked["total"] - 1,
        "seconds": tracked["seconds"],
    }


def comparable(job: Job) -> int:
    """Bytes at the peak of a step, without what the tracker does not see."""
    # The tracker's AdamW: one micro-batch a step, moments in the dtype of the weights, no other copy of them
    adamw = {"optimizer_bytes": 2 * job.trained_bytes, "master_weights": False}
    job = dataclasses.replace(job, gradient_accumulation_steps=1, framework=job.framework.model_copy(update=adamw))
    moments = [moment for name, moment in estimate(job).moments.items() if name in STEP_MOMENTS and name != "update"]
    scales = estimate(job).load.parts["quantization"]
    return max(moment.total for moment in moments) - scales


def _check(question: Question) -> None:
    job, recipe = question.job, question.plan.recipe
    if recipe.framework != "torch" or recipe.memory_model is None or recipe.memory_model.sharding != "fsdp":
        raise UserError(
            "--verify follows PyTorch's FSDP2, and this recipe shards otherwise",
            found=f"framework {recipe.framework}, sharding {job.framework.sharding}",
        )
    if job.tensor_parallel * job.pipeline_parallel * job.sequence_parallel > 1:
        raise UserError("--verify follows FSDP2 alone", found="tensor, pipeline or sequence parallel")
    if job.cpu_offload:
        raise UserError(
            "torch's tracker does not tell the host's memory from the device's",
            hint="--set parallel.cpu_offload=false compares the rest",
        )
    if "cpu" not in recipe.platforms:
        raise UserError("the tracker runs in the recipe's environment for the cpu platform, which it does not declare")


def spec(job: Job) -> dict[str, Any]:
    """What the tracker needs to know of `job`."""
    model = job.model
    return {
        "model": {
            "hidden_size": model.hidden_size,
            "intermediate_size": model.intermediate_size,
            "num_hidden_layers": model.num_hidden_layers,
            "num_attention_heads": model.num_attention_heads,
            "num_key_value_heads": model.num_key_value_heads,
            "head_dim": model.head_dim,
            "vocab_size": model.vocab_size,
            "tie_word_embeddings": model.tie_word_embeddings,
        },
        "lora_rank": job.lora_rank,
        "lora_targets": list(job.lora_targets),
        "lora_dropout": job.lora_dropout,
        "quantized": job.quantized,
        "weights_dtype": DTYPES[job.weights_bytes],
        "trained_dtype": DTYPES[job.trained_bytes],
        "world_size": job.devices,
        "length": job.length,
        "micro_batch_size": job.micro_batch_size,
        "checkpointing": job.checkpointing,
        "loss_chunk": job.framework.loss_chunk,
        "reshard_after_forward": job.reshard_after_forward,
    }


def track(wanted: dict[str, Any], python: str) -> dict[str, Any]:
    """Run the tracker in the environment of `python`. Raises RunError when it fails."""
    command = [python, "-m", TRACKER]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    try:
        ran = subprocess.run(
            command, input=json.dumps(wanted), capture_output=True, text=True, timeout=SECONDS, env=variables
        )
    except subprocess.TimeoutExpired:
        raise RunError("the tracker took too long", expected=f"{SECONDS} s", hint="try a smaller model") from None
    if ran.returncode:
        last = ran.stderr.strip().splitlines()[-1:] or ["nothing"]
        raise RunError("torch's memory tracker failed", found=last[0])
    result: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return result
