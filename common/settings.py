"""The settings that recipes share, by section: what plan, memory and report need to know.

A recipe states those it uses, with its own defaults; only stated ones can be overridden. What only the
framework understands stands in the recipe's configs/ instead.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from common.schema import Strict


class Model(Strict):
    path: str | None = None
    """`tiny` (made from a seed), a folder of weights, or a hub id. Given by --model."""
    tokenizer: str | None = None
    """A tokenizer.model, a tokenizer.json or a folder with one, in place of the model's own."""
    kind: Literal["base", "instruct"] | None = None
    """What the weights are; a base model's chat tokens are untrained. Found from the weights where not stated."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    from_scratch: bool | None = None
    """Whether only the model's shape is taken, and its weights are new."""
    layers: int | None = Field(default=None, ge=1)
    """Decoder layers of a model from scratch, in place of those of its config.json."""
    quantized: bool | None = None
    """Whether the frozen base is held in 4 bits (NF4)."""


class Data(Strict):
    source: str | None = None
    """The layout of the data (`auto` recognises it); see python -m common.data prepare --help."""
    columns: list[str] | None = None
    """What the file calls a column of the layout: [instruction=question, output=answer]."""
    train: str | None = None
    """A file, a glob, a folder or a hub id. Given by --data."""
    eval: str | None = None
    """Held-out data; where there is none, `eval_fraction` of the training data is held out."""
    eval_fraction: float | None = Field(default=None, gt=0, lt=1)
    template: str | None = None
    loss_on: Literal["answers", "all"] | None = None
    max_length: int | None = Field(default=None, ge=2)
    """Tokens of a row."""
    on_error: Literal["stop", "skip"] | None = None
    """What happens at a malformed record; skipped ones are counted and listed in rejects.jsonl."""
    on_long: Literal["drop", "cut", "stop"] | None = None
    """What happens to a conversation longer than max_length."""
    packing: Literal["none", "bfd", "concat"] | None = None
    system: str | None = None
    """A system message for conversations without one."""
    max_per_type: int | None = Field(default=None, ge=1)
    """Rows of one type of problem at most, so that no type outweighs the others."""
    odd_turns: Literal["drop", "stop"] | None = None


class Train(Strict):
    learning_rate: float | None = Field(default=None, gt=0)
    lr_scheduler: str | None = None
    warmup_ratio: float | None = Field(default=None, ge=0, lt=1)
    warmup_steps: int | None = Field(default=None, ge=0)
    """In place of warmup_ratio where it is set."""
    num_train_epochs: float | None = Field(default=None, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps; in place of num_train_epochs where it is set."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Rows of one forward pass on one data-parallel rank."""
    gradient_accumulation_steps: int | None = Field(default=None, ge=1)
    max_grad_norm: float | None = Field(default=None, gt=0)
    weight_decay: float | None = Field(default=None, ge=0)
    gradient_checkpointing: bool | None = None
    """Whether decoder layers keep only their input and are computed again in the backward pass."""
    recomputed_layers: list[int] | None = None
    """How many decoder layers of each pipeline stage are computed again; all where only gradient_checkpointing is."""
    save_steps: int | None = Field(default=None, ge=1)
    save_total_limit: int | None = Field(default=None, ge=2)
    """Checkpoints that are kept. At least two: the newest may be half-written when a run is killed."""
    seed: int | None = Field(default=None, ge=0)


class Lora(Strict):
    rank: int | None = Field(default=None, ge=1)
    alpha: float | None = Field(default=None, gt=0)
    dropout: float | None = Field(default=None, ge=0, lt=1)
    targets: str | list[str] | None = None
    learning_rate_ratio: float | None = Field(default=None, gt=0)
    """Learning rate of B over that of A (LoRA+); 1 is LoRA."""
    train_chat_tokens: bool | None = None
    """Also train the rows of the chat template's tokens in the embeddings and the head."""


class Parallel(Strict):
    processes: int | None = Field(default=None, ge=1)
    """Processes (devices) on each node. Given by --nproc-per-node."""
    cpu_offload: bool | None = None
    """Whether sharded parameters, gradients and optimizer state live in the host's memory."""
    reshard_after_forward: bool | None = None
    tensor_parallel: int | None = Field(default=None, ge=1)
    """Ranks that share each layer's matrices."""
    pipeline_parallel: int | None = Field(default=None, ge=1)
    """Stages that the layers are cut into."""
    sequence_parallel: int | None = Field(default=None, ge=1)
    """Ranks that share each row's tokens, where these are not the tensor-parallel ones."""
    zero_stage: int | None = Field(default=None, ge=0, le=3)
    """What data-parallel ranks share: 0 nothing, 1 optimizer state, 2 gradients too, 3 parameters too."""
    plugin: str | None = None
    """The framework's way of parallelising, by its own name."""

    @property
    def model_parallel(self) -> int:
        """Ranks that hold one copy of the model together."""
        return (self.tensor_parallel or 1) * (self.pipeline_parallel or 1) * (self.sequence_parallel or 1)


class Evaluate(Strict):
    prompts: int | None = Field(default=None, ge=0)
    """Held-out conversations whose answers are generated before and after."""
    reading: str | None = None
    """Passages with questions, in SQuAD's layout: whether the model can still answer them."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    micro_batch_size: int | None = Field(default=None, ge=1)
    retention: float | None = Field(default=None, ge=0, le=1)
    """The share of the base model's score on its old task that must be left; else the run ends with status 1."""
    tolerance: float | None = Field(default=None, ge=0)
    """Within which the answer to a math problem is right; see docs/evaluation.md."""


class Export(Strict):
    merge: bool | None = None
    """Whether model/ is written beside adapter/; optional where the merged model does not fit."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    shard_size: str | None = None


class Settings(Strict):
    """Every section. In recipe.yaml these are top-level keys; in a preset they override them."""

    model: Model = Model()
    data: Data = Data()
    train: Train = Train()
    lora: Lora = Lora()
    parallel: Parallel = Parallel()
    evaluate: Evaluate = Evaluate()
    export: Export = Export()


SECTIONS = tuple(Settings.model_fields)


def stated(holder: Settings) -> dict[str, dict[str, Any]]:
    """What a recipe or a preset states of the settings' sections; a stated null is kept."""
    sections = [name for name in Settings.model_fields if name in holder.model_fields_set]
    return {name: getattr(holder, name).model_dump(exclude_unset=True) for name in sections}
