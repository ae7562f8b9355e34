"""What a step did, summed over the ranks: metrics.jsonl, and the token counts that nnScaler divides by."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from nnscaler.cli.trainer_args import AggregatedOutputs

from common.metrics import MetricsWriter

IGNORE = -100


class Recorder:
    """Counts what each step trains, and writes its row.

    Its hooks are functions, not methods: nnScaler copies its arguments deeply.
    """

    def __init__(self, metrics: Path, resume_step: int, pad_id: int) -> None:
        self.pad_id = pad_id
        writer = MetricsWriter(metrics, resume_step) if dist.get_rank() == 0 else None
        counts = torch.zeros(3, dtype=torch.int64)  # of this rank's micro-batches: trained, not padding, all
        state = {"started": 0.0, "peak": 0}

        def begin(trainer: Any, batches: list[dict[str, torch.Tensor]]) -> None:
            state["started"] = time.perf_counter()
            counts.zero_()
            for batch in batches:
                ids = batch["input_ids"]
                trained = int((batch["labels"] != IGNORE).sum())
                counts.add_(torch.tensor([trained, int((ids != pad_id).sum()), ids.numel()]))

        def aggregate(losses: list[Any], group: dist.ProcessGroup) -> AggregatedOutputs:
            """Sums over the micro-batches and the ranks that have other data."""
            device = torch.cuda.current_device()
            mine = sum(each.item() for each in losses)
            total = torch.tensor([mine], dtype=torch.float64, device=device)
            numbers = torch.tensor([*counts.tolist(), len(losses)], device=device)
            dist.all_reduce(total, group=group)
            dist.all_reduce(numbers, group=group)
            trained, real, padded, batches = numbers.tolist()
            return AggregatedOutputs(
                loss_sum=total.item(), num_batches=batches, num_tokens=trained, aggregated_outputs=(real, padded)
            )

        def after_optimizer_step(trainer: Any) -> None:
            state["peak"] = max(state["peak"], peak_memory())  # nnScaler resets the allocator's peak with each step

        def write(trainer: Any, values: dict[str, float], outputs: AggregatedOutputs) -> None:
            peak = torch.tensor([state["peak"]], device=torch.cuda.current_device())
            dist.all_reduce(peak, op=dist.ReduceOp.MAX)
            real, padded = outputs.aggregated_outputs
            if writer is not None:
                writer.write(
                    {
                        "step": trainer.train_status.finished_train_steps,
                        "loss": values["train_loss"],
                        "learning_rate": values["lr"],
                        "grad_norm": values["gnorm"],
                        "tokens": real,
                        "padded_tokens": padded,
                        "seconds": time.perf_counter() - state["started"],
                        "memory_bytes": int(peak),
                    }
                )

        self.aggregate = aggregate
        self.hooks: dict[str, Callable[..., None]] = {
            "on_train_step_start": begin,
            "after_optimizer_step": after_optimizer_step,
            "before_log_train_metrics": write,
        }


def peak_memory() -> int:
    """Peak bytes of this rank: of the CUDA allocator, or of the process on a CPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
