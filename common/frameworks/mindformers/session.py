"""Begins a process: patches, the working directory, MindFormers' context, the other processes of the launch."""

from __future__ import annotations

import difflib
import inspect
import os
from pathlib import Path
from typing import Any

import patches
from common.errors import UserError

WORKERS_VARIABLE = "MS_WORKER_NUM"  # set by msrun

READ_TOO = ("profiler_level",)  # by its Trainer, though no template names it, and one letter from another key
ONE_LETTER = 0.88  # how like another a word is that has about one letter wrong


def begin(config: dict[str, Any], patch_names: list[str], *, processes: int | None = None) -> Any:
    """MindFormers' configuration object for `config`, with its context built.

    `use_parallel` and `data_parallel` follow from the number of processes of the launch; `processes` fixes
    it, as 1 for evaluation. MindSpore's compilers leave folders (kernel_meta, rank_0) where they run: they
    run in OUTPUT_DIR/work. Raises UserError where the processes are no multiple of the model's parts.
    """
    count = processes or int(os.environ.get(WORKERS_VARIABLE, "1"))
    work = Path(config["output_dir"]) / "work"
    work.mkdir(parents=True, exist_ok=True)
    os.chdir(work)
    for name in patch_names:
        patches.apply(name)
    set_parallel(config, count)

    from mindformers.core.context import build_context
    from mindformers.tools.register import MindFormerConfig
    from mindformers.tools.register.template import ConfigTemplate
    from mindformers.utils.file_utils import set_output_path

    check_keys(config)
    try:
        ConfigTemplate.apply_template(config)  # MindFormers' defaults, as when it reads the file itself
    except (KeyError, ValueError) as error:
        raise UserError(f"the configuration is not MindFormers': {error.args[0]}") from None
    made = MindFormerConfig(**config)
    set_output_path(made.output_dir)
    build_context(made)
    return made


def check_keys(config: dict[str, Any]) -> None:
    """Raise UserError for a section, or an option of the model, that is one of MindFormers' with a typing mistake.

    It would pass over it, and take its own default for what was meant. It reads more keys than its template names,
    so one that is like none of them, or like one that is stated as well, is left to it.
    """
    from mindformers.models.llama import LlamaConfig
    from mindformers.tools.register.template import CONFIG_NAME_TO_CLASS, GeneralConfig

    for name, stated, known in (
        ("config", config, {*CONFIG_NAME_TO_CLASS, *GeneralConfig.keys(), *READ_TOO}),
        ("config.model.model_config", config["model"]["model_config"], inspect.signature(LlamaConfig).parameters),
    ):
        left_out = [key for key in known if key not in stated]
        for key in stated:
            near = [] if key in known else difflib.get_close_matches(key, left_out, n=1, cutoff=ONE_LETTER)
            if near:
                raise UserError(f"{name}.{key}: MindFormers has no such key", hint=f"did you mean {near[0]!r}?")


def set_parallel(config: dict[str, Any], processes: int) -> None:
    """Put what follows from the number of processes into `config`."""
    parallel = config["parallel_config"]
    parts = parallel["model_parallel"] * parallel["pipeline_stage"] * parallel.get("context_parallel", 1)
    if processes % parts:
        raise UserError(
            "the processes are no multiple of model_parallel x pipeline_stage", found=processes, expected=f"n x {parts}"
        )
    if parallel["micro_batch_num"] > 1 and parallel["pipeline_stage"] == 1:
        raise UserError(
            "MindFormers accumulates over micro-batches in a pipeline only",
            found=f"micro_batch_num {parallel['micro_batch_num']}, pipeline_stage 1",
            hint="set train.gradient_accumulation_steps to 1, or parallel.pipeline_parallel above 1",
        )
    config["use_parallel"] = processes > 1
    parallel["data_parallel"] = processes // parts


def rank() -> int:
    """This process's number among all of the launch, from 0."""
    from mindformers.tools.utils import get_real_rank

    return int(get_real_rank())


def world_size(config: Any) -> int:
    """Processes of the launch."""
    return int(os.environ.get(WORKERS_VARIABLE, "1")) if config.use_parallel else 1


def barrier(config: Any) -> None:
    """Wait for all processes."""
    if config.use_parallel:
        from mindspore.communication import comm_func

        comm_func.barrier()
