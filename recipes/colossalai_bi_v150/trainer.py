"""The training loop: the same steps under every plugin, through a pipeline or not."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import checkpoints
import torch
import torch.distributed as dist
from data import Batches, StepBatch
from loss import Noise, token_loss_sum
from setup import Place, learning_rate
from torch.utils.tensorboard import SummaryWriter

from common.metrics import MetricsWriter


class Trainer:
    """Trains what `setup.boost` has made."""

    def __init__(
        self,
        config: dict[str, Any],
        place: Place,
        plugin: Any,
        boosted: tuple[Any, Any, Any],
        batches: Batches,
    ) -> None:
        self.config = config
        self.section = config["train"]
        self.output = Path(config["checkpoints"])
        self.place = place
        self.plugin = plugin
        self.booster, self.model, self.optimizer = boosted
        self.batches = batches
        self.noise = Noise(config["model"]["neftune_noise_alpha"], self.section["seed"], place.data_rank)
        self.noise.attach(self.model.unwrap())
        head = getattr(self.model.unwrap(), "lm_head", None)
        self.vocabulary = head.out_features if head is not None else 0
        self.norms = record_norms(self.optimizer)
        self.metrics_path = Path(config["metrics"])
        self.tensorboard = config["tensorboard"]

    def train(self, start: int, steps: int) -> None:
        """Steps `start` + 1 to `steps`."""
        from colossalai.accelerator import get_accelerator

        accelerator = get_accelerator()
        reports = dist.get_rank() == 0
        metrics = MetricsWriter(self.metrics_path, start) if reports else None
        events = SummaryWriter(self.tensorboard, purge_step=start + 1) if reports else None
        self.model.train()
        for step in range(start, steps):
            began = time.perf_counter()
            batch = self.batches.step(step)
            rate = learning_rate(self.config, step, steps)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.noise.begin(step)
            loss = self.forward_backward(batch)
            norm = self.update()
            loss, peak = over_all_ranks(loss, accelerator.max_memory_allocated(), accelerator.get_current_device())
            accelerator.synchronize()
            if metrics is not None and events is not None:
                row = {
                    "step": step + 1,
                    "loss": loss / batch.trained,
                    "learning_rate": rate,
                    "grad_norm": norm,
                    "tokens": batch.tokens,
                    "padded_tokens": batch.padded_tokens,
                    "seconds": time.perf_counter() - began,
                    "memory_bytes": peak,
                }
                metrics.write(row)
                for name in ("loss", "learning_rate", "grad_norm"):
                    events.add_scalar(f"train/{name}", row[name], step + 1)
            if (step + 1) % self.section["save_steps"] == 0 or step + 1 == steps:
                self.save(step + 1)
        if metrics is not None and events is not None:
            metrics.close()
            events.close()

    def forward_backward(self, batch: StepBatch) -> float:
        """Gradients of the mean loss over all trained tokens of the step; this rank's share of the loss's sum.

        Plugins average gradients over data-parallel ranks, pipelines over micro-batches. Both are undone here, so that
        each token of the step weighs the same, wherever it is.
        """
        scale = self.place.data_size / max(batch.trained, 1)
        if self.place.stages > 1:
            return self.through_pipeline(batch, scale)
        total = 0.0
        for number, micro_batch in enumerate(self.to_device(each) for each in batch.micro_batches):
            last = number == len(batch.micro_batches) - 1
            with contextlib.nullcontext() if last else self.without_sync():
                logits = self.model(input_ids=micro_batch["input_ids"], use_cache=False).logits
                loss = token_loss_sum(logits, micro_batch["labels"], self.place, self.vocabulary)
                self.booster.backward(loss * scale, self.optimizer)
            total += loss.item()
        return total if self.place.counts else 0.0

    def through_pipeline(self, batch: StepBatch, scale: float) -> float:
        whole = {key: torch.cat([each[key] for each in batch.micro_batches]) for key in ("input_ids", "labels")}
        # The model must not see the labels: it would compute its own loss
        labels = iter(whole["labels"].split(self.section["micro_batch_size"]))
        losses: list[float] = []

        def criterion(outputs: Any, _: Any) -> torch.Tensor:
            mine = next(labels).to(outputs.logits.device)
            loss = token_loss_sum(outputs.logits, mine, self.place, self.vocabulary)
            losses.append(loss.item())
            return loss * scale * len(batch.micro_batches)

        data = iter([{"input_ids": whole["input_ids"]}])
        self.booster.execute_pipeline(data, self.model, criterion, self.optimizer, return_loss=False)
        return sum(losses) if self.place.counts else 0.0

    def without_sync(self) -> contextlib.AbstractContextManager[Any]:
        """Gradients of all but the last micro-batch stay on their rank, where the plugin can do that."""
        partitioned = getattr(self.plugin, "zero_stage", getattr(self.plugin, "stage", 0)) == 2
        if partitioned or not self.plugin.support_no_sync():
            return contextlib.nullcontext()
        return self.booster.no_sync(self.model, self.optimizer)

    def update(self) -> float:
        """One optimizer step with clipped gradients; the L2 norm of the gradient before clipping."""
        if self.norms is None:  # the plugin leaves clipping to the caller
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.section["max_grad_norm"])
            self.optimizer.step()
            self.optimizer.zero_grad()
            return float(norm)
        self.norms.clear()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(sum(norm**2 for norm in self.norms)) ** 0.5

    def to_device(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        from colossalai.accelerator import get_accelerator

        device = get_accelerator().get_current_device()
        return {key: value.to(device) for key, value in batch.items()}

    def save(self, step: int) -> None:
        folder = self.output / f"step-{step}"
        checkpoints.save(folder, self.booster, self.model, self.optimizer, self.batches.position(step))
        if dist.get_rank() == 0:
            checkpoints.prune(self.output, self.section["save_total_limit"])
        dist.barrier()


def record_norms(optimizer: Any) -> list[float] | None:
    """The list into which `optimizer` puts each gradient norm that it clips by; None where it computes none itself."""
    name = next((each for each in ("_compute_grad_norm", "_calc_global_norm") if hasattr(optimizer, each)), None)
    if name is None:
        return None
    compute = getattr(optimizer, name)
    norms: list[float] = []

    def recorded(*args: Any, **kwargs: Any) -> Any:
        norm = compute(*args, **kwargs)
        norms.append(float(norm))
        return norm

    setattr(optimizer, name, recorded)
    return norms


def over_all_ranks(loss: float, peak: int, device: Any) -> tuple[float, int]:
    """The sum of the losses and the largest peak memory, bytes."""
    total = torch.tensor(loss, dtype=torch.float32, device=device)
    largest = torch.tensor(peak, dtype=torch.int64, device=device)
    dist.all_reduce(total)
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return total.item(), int(largest.item())
