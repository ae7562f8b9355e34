"""What the memory model needs to know of a training run: a model, what of it is trained, and how it is spread."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass

from common.errors import UserError
from common.recipe import MemoryModel
from common.report.flops import model_size
from common.settings import Settings
from common.weights.config import LlamaConfig

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
FP32 = 4

# A decoder layer's matrices by their Hugging Face names, with the names that Meta and MindFormers give them
MATRICES = {
    "q_proj": "wq",
    "k_proj": "wk",
    "v_proj": "wv",
    "o_proj": "wo",
    "gate_proj": "w1",
    "up_proj": "w3",
    "down_proj": "w2",
}


@dataclass(frozen=True)
class Job:
    """A training run, as far as memory goes. Sizes of dtypes are in bytes."""

    model: LlamaConfig
    framework: MemoryModel
    weights_bytes: int
    """Of a weight as it is computed with."""
    quantized: bool
    """Whether the decoder layers' frozen matrices are NF4."""
    lora_rank: int
    """0: every weight is trained."""
    lora_targets: tuple[str, ...]
    lora_dropout: float
    nodes: int
    processes: int
    """Devices on each node."""
    tensor_parallel: int
    pipeline_parallel: int
    sequence_parallel: int
    zero_stage: int
    micro_batch_size: int
    gradient_accumulation_steps: int
    length: int
    """Tokens of a row."""
    checkpointing: bool
    recomputed_layers: tuple[int, ...]
    """Of each pipeline stage; empty: all or none, as `checkpointing` says."""
    reshard_after_forward: bool
    cpu_offload: bool

    @property
    def devices(self) -> int:
        return self.nodes * self.processes

    @property
    def data_parallel(self) -> int:
        """Ranks that hold different rows."""
        return max(1, self.devices // (self.tensor_parallel * self.pipeline_parallel * self.sequence_parallel))

    @property
    def shards(self) -> int:
        """Ranks that share what is sharded: all that hold the same part of the model."""
        return self.data_parallel * self.sequence_parallel

    @property
    def lora(self) -> bool:
        return self.lora_rank > 0

    @property
    def trained_bytes(self) -> int:
        return BYTES[self.framework.trained_dtype] if self.framework.trained_dtype else self.weights_bytes

    @property
    def gradient_bytes(self) -> int:
        return BYTES[self.framework.gradient_dtype] if self.framework.gradient_dtype else self.trained_bytes

    @property
    def optimizer_bytes(self) -> int:
        """Of one trained parameter, with its fp32 copy where there is one."""
        return self.framework.optimizer_bytes + (FP32 if self.has_masters else 0)

    @property
    def has_masters(self) -> bool:
        """Whether there are fp32 copies of the trained weights, which fp32 weights do not need."""
        return self.framework.master_weights and self.trained_bytes < FP32

    def shares(self, what: str) -> int:
        """Over how many ranks `weights`, `gradients` or `optimizer` are spread, beside tensor and pipeline."""
        if self.framework.sharding == "fsdp":
            return self.shards
        least = {"optimizer": 1, "gradients": 2, "weights": 3}[what]
        return self.shards if self.zero_stage >= least else 1

    @property
    def gathers_weights(self) -> bool:
        """Whether a layer's weights are brought together each time the layer is used."""
        return self.framework.sharding == "fsdp" or self.zero_stage >= 3

    def recomputed(self, stage: int, layers: int) -> int:
        """How many of the `layers` of a pipeline stage are computed again in the backward pass."""
        if not self.checkpointing:
            return 0
        return min(self.recomputed_layers[stage], layers) if self.recomputed_layers else layers

    def in_flight(self, stage: int) -> int:
        """Micro-batches whose activations a pipeline stage holds at once, in the 1F1B schedule."""
        return min(self.pipeline_parallel - stage, self.gradient_accumulation_steps)


def make(model: LlamaConfig, settings: Settings, framework: MemoryModel, nodes: int, processes: int) -> Job:
    """The job that a recipe's `settings` describe. Raises UserError for settings that contradict the model."""
    parallel, train, lora = settings.parallel, settings.train, settings.lora
    if settings.model.layers is not None:
        model = dataclasses.replace(model, num_hidden_layers=settings.model.layers)
    stages, tensor = parallel.pipeline_parallel or 1, parallel.tensor_parallel or 1
    if stages > model.num_hidden_layers:
        raise UserError("more pipeline stages than decoder layers", found=stages, expected=model.num_hidden_layers)
    if model.num_key_value_heads % tensor and tensor % model.num_key_value_heads:
        raise UserError(
            "the model's key-value heads cannot be shared by that many tensor-parallel ranks",
            found=tensor,
            expected=f"a divisor of {model.num_key_value_heads}",
        )
    recomputed = tuple(train.recomputed_layers or ())
    if recomputed and len(recomputed) != stages:
        raise UserError(
            "train.recomputed_layers names another number of stages than parallel.pipeline_parallel",
            found=list(recomputed),
            expected=f"{stages} numbers",
        )
    rank = lora.rank or 0
    again = framework.recompute if train.gradient_checkpointing is None else train.gradient_checkpointing
    return Job(
        model=model,
        framework=framework,
        weights_bytes=BYTES[settings.model.dtype or "bfloat16"],
        quantized=bool(settings.model.quantized),
        lora_rank=rank,
        lora_targets=targets(lora.targets) if rank else (),
        lora_dropout=lora.dropout or 0.0,
        nodes=nodes,
        processes=processes,
        tensor_parallel=tensor,
        pipeline_parallel=stages,
        sequence_parallel=parallel.sequence_parallel or 1,
        zero_stage=framework.zero_stage if parallel.zero_stage is None else parallel.zero_stage,
        micro_batch_size=train.micro_batch_size or 1,
        gradient_accumulation_steps=train.gradient_accumulation_steps or 1,
        length=settings.data.max_length or model.max_position_embeddings,
        checkpointing=again or any(recomputed),
        recomputed_layers=recomputed,
        reshard_after_forward=parallel.reshard_after_forward is not False,
        cpu_offload=bool(parallel.cpu_offload),
    )


def targets(stated: str | list[str] | None) -> tuple[str, ...]:
    """The matrices that get LoRA: from `all-linear`, a list of names, or a regular expression of MindFormers' kind."""
    if stated is None or stated == "all-linear":
        return tuple(MATRICES)
    names = stated if isinstance(stated, list) else [stated]
    found = tuple(ours for ours, other in MATRICES.items() if any(_targets(name, ours, other) for name in names))
    if not found:
        raise UserError("lora.targets names no matrix of a Llama", found=stated, expected=", ".join(MATRICES))
    return found


def _targets(name: str, ours: str, other: str) -> bool:
    if name in (ours, other):
        return True
    try:
        return any(re.fullmatch(name, f"layers.0.{each}") for each in (ours, other))
    except re.error:
        raise UserError("lora.targets is no regular expression", found=name) from None


def shapes(model: LlamaConfig) -> dict[str, tuple[int, int]]:
    """The matrices of a decoder layer, (out, in)."""
    hidden, ffn = model.hidden_size, model.intermediate_size
    queries, keys = model.num_attention_heads * model.head_dim, model.num_key_value_heads * model.head_dim
    return {
        "q_proj": (queries, hidden),
        "k_proj": (keys, hidden),
        "v_proj": (keys, hidden),
        "o_proj": (hidden, queries),
        "gate_proj": (ffn, hidden),
        "up_proj": (ffn, hidden),
        "down_proj": (hidden, ffn),
    }


@dataclass(frozen=True)
class Counts:
    """Parameters of one pipeline stage on one tensor-parallel rank."""

    layers: int
    """Decoder layers."""
    matrices: int
    """Weights of one layer's matrices."""
    norms: int
    """Weights of one layer's norms."""
    adapter: int
    """LoRA weights of one layer."""
    embedding: int
    head: int
    """0 where the head is tied to the embedding and both are here."""
    last_norm: int

    @property
    def layer(self) -> int:
        return self.matrices + self.norms

    @property
    def root(self) -> int:
        """Weights outside the decoder layers."""
        return self.embedding + self.head + self.last_norm

    @property
    def base(self) -> int:
        return self.layers * self.layer + self.root

    @property
    def adapters(self) -> int:
        return self.layers * self.adapter


def count(job: Job, stage: int) -> Counts:
    """What the rank of pipeline stage `stage` holds of the model before anything is sharded."""
    model, tensor = job.model, job.tensor_parallel
    layers = layers_of(job, stage)
    first, last = stage == 0, stage == job.pipeline_parallel - 1
    table = model.vocab_size * model.hidden_size // tensor
    tied_here = model.tie_word_embeddings and first
    matrices = shapes(model)
    adapter = sum(job.lora_rank * (matrices[name][0] + matrices[name][1]) for name in job.lora_targets)
    return Counts(
        layers=layers,
        matrices=sum(math.prod(shape) for shape in matrices.values()) // tensor,
        norms=2 * model.hidden_size,
        adapter=adapter // tensor,
        embedding=table if first else 0,
        head=table if last and not tied_here else 0,
        last_norm=model.hidden_size if last else 0,
    )


def layers_of(job: Job, stage: int) -> int:
    """Decoder layers of a pipeline stage; the earlier stages take what cannot be shared evenly."""
    each, more = divmod(job.model.num_hidden_layers, job.pipeline_parallel)
    return each + (1 if stage < more else 0)


def trained_parameters(job: Job) -> int:
    """Trained weights of the whole model."""
    if not job.lora:
        return model_size(job.model).parameters
    return job.tensor_parallel * sum(count(job, stage).adapters for stage in range(job.pipeline_parallel))
