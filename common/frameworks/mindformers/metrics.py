"""metrics.jsonl and TensorBoard events from MindFormers' training loop, beside its own loss lines."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt
from tensorboardX import SummaryWriter

from common.errors import RunError
from common.metrics import MetricsWriter

IGNORE = -100


class StepMetrics(ms.train.Callback):
    """Writes a row a step, of sums over all ranks, on rank 0.

    With data parallel each rank has its own rows and its own loss: the row's loss is their mean, weighted by
    trained tokens. In the other parallel modes every rank is given the global batch, and the last one (of
    the last pipeline stage) knows its loss.
    """

    def __init__(self, metrics: Path, tensorboard: Path, *, rank: int, ranks: int, pad_id: int, resume_step: int):
        super().__init__()
        self.step = resume_step
        self.pad_id = pad_id
        self.ranks = ranks
        self.writer = MetricsWriter(metrics, resume_step) if rank == 0 else None
        self.events = SummaryWriter(str(tensorboard), purge_step=resume_step + 1) if rank == 0 else None
        self.started = time.perf_counter()

    def on_train_step_begin(self, run_context: Any) -> None:
        self.started = time.perf_counter()

    def on_train_step_end(self, run_context: Any) -> None:
        given = run_context.original_args()
        loss, overflow, _, learning_rate, grad_norm = (number(each) for each in given.net_outputs[:5])
        self.step += 1
        if overflow or not np.isfinite(loss):
            raise RunError(f"the loss of step {self.step} is not a finite number", found=loss)
        ids, labels = (each.asnumpy() for each in given.train_dataset_element[:2])
        counts = count(ids, labels, self.pad_id)
        # Gathered as int32, which is exact: the loss's 64 bits, and counts
        mine = np.concatenate([np.array([loss]).view(np.int32), np.array([*counts, memory_kib()], np.int32)])
        rows = gather(mine) if self.ranks > 1 else mine[None]
        losses = np.ascontiguousarray(rows[:, :2]).view(np.float64)[:, 0]
        if ms.get_auto_parallel_context("parallel_mode") == "data_parallel":
            trained, tokens, padded = rows[:, 2:5].sum(axis=0, dtype=np.int64)
            loss = float((losses * rows[:, 2]).sum() / max(trained, 1))
        else:
            _, tokens, padded = counts
            loss = float(losses[-1])
        if self.writer is None or self.events is None:
            return
        row = {
            "step": self.step,
            "loss": loss,
            "learning_rate": learning_rate,
            "grad_norm": grad_norm,
            "tokens": int(tokens),
            "padded_tokens": int(padded),
            "seconds": time.perf_counter() - self.started,
            "memory_bytes": int(rows[:, 5].max()) * 1024,
        }
        self.writer.write(row)
        for name in ("loss", "learning_rate", "grad_norm"):
            self.events.add_scalar(f"train/{name}", row[name], self.step)

    def on_train_end(self, run_context: Any) -> None:
        if self.writer is not None and self.events is not None:
            self.writer.close()
            self.events.close()


class StopAfter(ms.train.Callback):
    """Ends training after `steps` optimizer steps; MindFormers 1.8.0 reads runner_config.stop_step and ignores it."""

    def __init__(self, steps: int, resume_step: int) -> None:
        super().__init__()
        self.left = steps - resume_step

    def on_train_step_end(self, run_context: Any) -> None:
        self.left -= 1
        if self.left <= 0:
            run_context.request_stop()


def number(value: Any) -> float:
    """A loss, learning rate, norm or flag as MindFormers gives it: a tensor of one value, or None."""
    if value is None:
        return 0.0
    array = value.asnumpy() if isinstance(value, ms.Tensor) else np.asarray(value)
    return float(array.reshape(-1)[0])


def count(ids: npt.NDArray[Any], labels: npt.NDArray[Any], pad_id: int) -> tuple[int, int, int]:
    """Trained tokens, tokens, and tokens with padding of rows of seq + 1 ids and labels (int32 [rows, seq + 1]).

    Trained as the model has it: the label of the next position, where the position itself is no padding.
    """
    trained = (labels[:, 1:] != IGNORE) & (ids[:, :-1] != pad_id)
    return int(trained.sum()), int((ids != pad_id).sum()), ids.shape[0] * (ids.shape[1] - 1)


def gather(values: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """`values` (int32 [n]) of every rank (int32 [ranks, n]); every rank takes part."""
    gathered = ms.ops.AllGather()(ms.Tensor(values[None]))
    return np.asarray(gathered.asnumpy(), np.int32)


def memory_kib() -> int:
    """Peak memory of this rank: of the device's allocator where it counts, else of the process."""
    try:
        used = int(ms.runtime.max_memory_allocated())
    except (RuntimeError, ValueError):
        used = 0
    return used // 1024 or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
