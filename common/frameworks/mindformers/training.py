"""Training with MindFormers' own Trainer: how many steps, from which checkpoint, with what callbacks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindspore as ms
from mindformers.trainer import Trainer

from common.errors import RunError, UserError
from common.frameworks.mindformers import checkpoints, session
from common.frameworks.mindformers.checkpoints import Checkpoint
from common.frameworks.mindformers.configuration import WEIGHTS, Run
from common.frameworks.mindformers.metrics import StepMetrics, StopAfter
from common.weights import mindspore_ckpt

OPTIMIZER_STATE = (
    "adam_",
    "exp_avg",
    "moment",
    "accu_grads",
    "optimizer.",
    "scale_sense",
    "global_step",
    "learning_rate",
    "current_default_lr",
    "current_grouped_lr",
)
LORA = "mindpet_delta_lora"


@dataclass(frozen=True)
class Schedule:
    """How long training takes."""

    steps_per_epoch: int
    total_steps: int

    @property
    def epochs(self) -> int:
        return math.ceil(self.total_steps / self.steps_per_epoch)


def schedule(config: Any, run: Run) -> Schedule:
    """Steps from the records, the global batch and `max_steps` or `num_train_epochs`.

    Raises UserError when there are fewer records than one step takes.
    """
    file = config.train_dataset.data_loader.dataset_dir
    records = int(ms.dataset.MindDataset(file, shuffle=False).get_dataset_size())
    batch = config.runner_config.batch_size * config.parallel_config.data_parallel
    batch *= config.parallel_config.micro_batch_num if config.parallel_config.pipeline_stage > 1 else 1
    if records < batch:
        hint = "give more data, or a smaller train.micro_batch_size"
        raise UserError("fewer records than one step takes", file=file, found=records, expected=batch, hint=hint)
    per_epoch = records // batch
    wanted = run.max_steps if run.max_steps > 0 else int(run.num_train_epochs * per_epoch)
    return Schedule(per_epoch, max(wanted, 1))


def train(config: Any, run: Run) -> None:
    """Train from the weights in `config.load_checkpoint`, or go on from the newest whole checkpoint.

    Labels in the records are not shifted; the model shifts them, once: records hold seq_length + 1 ids.
    """
    rank, ranks = session.rank(), session.world_size(config)
    folder = checkpoint_folder(config)
    plan = schedule(config, run)
    resume = checkpoints.last_whole(folder, ranks)
    session.barrier(config)  # nobody removes what another rank has still to look at
    if rank == 0:
        checkpoints.keep_only(folder, resume)
    session.barrier(config)
    if resume and resume.step >= plan.total_steps:
        print(f"training is done: {resume.step} steps", flush=True)
        return
    begin_from(config, resume)
    config.runner_config.epochs = plan.epochs
    config.lr_schedule.total_steps = plan.total_steps
    step = resume.step if resume else 0
    for callback in config.callbacks:
        if callback["type"] == "CheckpointMonitor":
            # Names start over when training is resumed: without this, one rank's new file could replace another's old
            callback["prefix"] = f"{callback['prefix']}-after-{step}"
    metrics = StepMetrics(
        run.metrics,
        run.tensorboard,
        rank=rank,
        ranks=ranks,
        pad_id=config.model.model_config.pad_token_id,
        resume_step=step,
    )
    trainer = Trainer(config, callbacks=[metrics, StopAfter(plan.total_steps, step), Loaded(config.load_checkpoint)])
    trainer.train()
    if metrics.step < plan.total_steps:
        # MindSpore takes an interrupt as a wish to end well: what is left must not count as done
        raise RunError(
            "training ended early", found=f"step {metrics.step}", expected=f"step {plan.total_steps}",
            hint="the same command goes on from the last checkpoint",
        )  # fmt: skip


def checkpoint_folder(config: Any) -> Path:
    """Where MindFormers' CheckpointMonitor writes: a folder a rank."""
    return Path(config.output_dir) / "checkpoint"


def begin_from(config: Any, resume: Checkpoint | None) -> None:
    """Put where training begins into `config`: the base weights, or a checkpoint."""
    if resume is None:
        return
    config.resume_training = True
    config.auto_trans_ckpt = False
    if len(resume.files) == 1 or not is_sliced():
        config.load_checkpoint = str(resume.files[0])  # every rank holds everything
        return
    # Each rank loads its own: MindFormers puts the rank's number into the name
    config.load_checkpoint = str(resume.files[0].parent.parent)
    config.resume_training = resume.files[0].name


def is_sliced() -> bool:
    """Whether each rank holds a part of the parameters or of the optimizer's state."""
    return ms.get_auto_parallel_context("parallel_mode") not in ("stand_alone", "data_parallel")


class Loaded(ms.train.Callback):
    """Stops when weights of the model were not in the checkpoint: MindFormers only warns, and trains random ones."""

    def __init__(self, checkpoint: str) -> None:
        super().__init__()
        self.checkpoint = Path(checkpoint)

    def on_train_begin(self, run_context: Any) -> None:
        file = self.checkpoint
        if file.is_dir():
            file = next(iter(sorted(file.glob("*.ckpt"))), file)
        if not file.is_file():
            return  # slices of several ranks: MindSpore checks their layout
        held = mindspore_ckpt.read(file)
        network = run_context.original_args().train_network
        names = [each.name for each in network.get_parameters() if not each.name.startswith(OPTIMIZER_STATE)]
        missing = [name for name in names if name not in held and LORA not in name]
        if missing:
            found = ", ".join(missing[:5])
            raise RunError("weights of the model are not in the checkpoint", file=file, found=found)


def base_weights(run: Run) -> Path:
    return run.weights / WEIGHTS
