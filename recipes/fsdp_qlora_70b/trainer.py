"""trl's SFTTrainer on a model that is sharded already, with adapters in every checkpoint and metrics.jsonl."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from checkpoints import mark_complete
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from trl import SFTTrainer

from common.errors import RunError
from common.metrics import MetricsWriter


class SftTrainer(SFTTrainer):
    """SFTTrainer on a model that is sharded already, writing adapters, marks and metrics."""

    def __init__(self, *, metrics_path: Path, resume_step: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.metrics = MetricsWriter(metrics_path, resume_step) if self.is_world_process_zero() else None
        self.counts = torch.zeros(2, dtype=torch.int64)  # tokens, padded tokens of this rank since the last row
        self.step_started: float | None = None

    def training_step(self, model: Any, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.step_started is None:
            self.step_started = time.perf_counter()
        ids = inputs["input_ids"]
        self.counts += torch.tensor([(ids != self.processing_class.pad_token_id).sum().item(), ids.numel()])
        return super().training_step(model, inputs, *args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        super().log(logs, *args, **kwargs)
        if "grad_norm" in logs:
            self.write_metrics(logs)

    def write_metrics(self, logs: dict[str, float]) -> None:
        # On the host, through gloo: the device is not stopped for a count
        dist.all_reduce(self.counts)
        peak = torch.tensor(peak_memory(self.args.device))
        dist.all_reduce(peak, op=dist.ReduceOp.MAX)
        seconds = time.perf_counter() - (self.step_started or 0.0)
        if self.metrics is not None:
            self.metrics.write(
                {
                    "step": self.state.global_step,
                    "loss": logs["loss"],
                    "learning_rate": logs["learning_rate"],
                    "grad_norm": logs["grad_norm"],
                    "tokens": int(self.counts[0]),
                    "padded_tokens": int(self.counts[1]),
                    "seconds": seconds,
                    "memory_bytes": int(peak),
                }
            )
        self.counts.zero_()
        self.step_started = None

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the adapter. Gathers the LoRA weights only, never the base; every rank takes part."""
        state = get_model_state_dict(
            self.model,
            options=StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True),
        )
        if self.is_world_process_zero():
            if not state:
                raise RunError("the adapter would be empty: no trainable tensor was found")
            self.model.save_pretrained(output_dir or self.args.output_dir, state_dict=state)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """No card in checkpoints: export writes the model's."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        dist.barrier()  # every rank has written its part
        if self.is_world_process_zero():
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            mark_complete(folder, self.state.global_step)


def peak_memory(device: torch.device) -> int:
    """Peak bytes of this rank: of the accelerator's allocator, or of the process on a CPU."""
    if device.type == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return torch.accelerator.max_memory_allocated(device)
