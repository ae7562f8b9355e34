"""nnScaler's Trainer, with checkpoints that count when every rank has written its part."""

from __future__ import annotations

from pathlib import Path

import torch.distributed as dist
from checkpoints import mark_complete
from nnscaler.cli.trainer import Trainer


class ShardedTrainer(Trainer):
    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        # In a merged checkpoint all parameters of one bucket share one step counter: each would advance it for all
        for state in self.optimizer.state.values():
            state["step"] = state["step"].clone()

    def _save_checkpoint(self, loss: float) -> None:
        super()._save_checkpoint(loss)  # ends in a barrier: every rank has written its part
        if self.rank == 0:
            step = self.train_status.finished_train_steps
            (folder,) = Path(self.train_args.checkpoint.save_dir).glob(f"*-{step:04d}")
            mark_complete(folder, step, dist.get_world_size())
