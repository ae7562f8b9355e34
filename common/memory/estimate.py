"""The memory of one device: each part, at each moment when it may be at its highest.

Moments: `load` (weights come in), `gather` (the step begins and the first weights are brought together),
`loss` (all activations and the logits exist), `backward first` and `backward last` (the first and the last
layer to be differentiated: activations go, gradients come), `reduce` (gradients of the embeddings and the
head are summed), `update` (the optimizer) and `save`. Sizes follow Rajbhandari et al. 2020, ZeRO, arXiv
1910.02054, and Korthikanti et al. 2022, arXiv 2205.05198; what FSDP2 gathers and sums follows its code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from common.memory import activations
from common.memory.job import FP32, Counts, Job, count, shapes

GIB = 1 << 30
# NF4: half a byte a weight, one byte for each 64 weights, four for each 256 of these (double quantization)
NF4_BYTES = 1 / 2
NF4_SCALES = 1 / 64 + FP32 / (64 * 256)

PARTS = ("weights", "gradients", "optimizer", "activations", "loss", "communication", "quantization")
STEP_MOMENTS = ("gather", "loss", "backward first", "backward last", "reduce", "update")


@dataclass(frozen=True)
class Moment:
    """Bytes of each part at one moment, on the pipeline stage that holds most then."""

    name: str
    parts: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.parts.values())


@dataclass(frozen=True)
class Estimate:
    """One device of a job."""

    moments: dict[str, Moment] = field(default_factory=dict)

    @property
    def load(self) -> Moment:
        return self.moments["load"]

    @property
    def save(self) -> Moment:
        return self.moments["save"]

    @property
    def step(self) -> Moment:
        """The highest moment of a training step."""
        return max((self.moments[name] for name in STEP_MOMENTS), key=lambda moment: moment.total)

    @property
    def peak(self) -> Moment:
        return max(self.moments.values(), key=lambda moment: moment.total)


def estimate(job: Job) -> Estimate:
    """The fullest device of `job`, moment by moment. Bytes."""
    stages = [_stage(job, stage) for stage in range(job.pipeline_parallel)]
    names = stages[0]
    return Estimate({name: max((each[name] for each in stages), key=lambda moment: moment.total) for name in names})


@dataclass(frozen=True)
class Held:
    """What one device of a pipeline stage holds, in bytes. `gathered` and `reduced`: for a moment, whole."""

    weights: int
    gradients: int
    optimizer: int
    scales: int
    layer_gathered: int
    root_gathered: int
    layer_gradients: int
    root_gradients: int
    layer_reduced: int
    root_reduced: int


def hold(job: Job, counts: Counts) -> Held:
    """What a device holds of `counts`, sharded as the job says."""
    frozen_matrix = NF4_BYTES if job.quantized else job.weights_bytes
    frozen = counts.layers * (counts.matrices * frozen_matrix + counts.norms * job.weights_bytes)
    frozen += counts.root * job.weights_bytes
    trained = counts.adapters if job.lora else counts.base
    weights = trained * job.trained_bytes + (frozen if job.lora else 0)
    trained_layer = counts.adapter if job.lora else counts.layer
    trained_root = 0 if job.lora else counts.root
    layer = counts.matrices * (frozen_matrix if job.lora else job.weights_bytes) + counts.norms * job.weights_bytes
    gathers, fsdp = job.gathers_weights, job.framework.sharding == "fsdp"
    return Held(
        weights=round(weights / job.shares("weights")),
        gradients=round(trained * job.gradient_bytes / job.shares("gradients")),
        optimizer=round(trained * job.optimizer_bytes / job.shares("optimizer")),
        scales=round(counts.layers * counts.matrices * NF4_SCALES) if job.quantized else 0,
        layer_gathered=round(layer + counts.adapter * job.weights_bytes) if gathers else 0,
        root_gathered=counts.root * job.weights_bytes if gathers else 0,
        # Until they are summed, gradients are whole, in the dtype of the computation
        layer_gradients=trained_layer * job.weights_bytes if gathers else 0,
        root_gradients=trained_root * job.weights_bytes if gathers else 0,
        layer_reduced=trained_layer * (FP32 if fsdp else job.gradient_bytes),
        root_reduced=trained_root * FP32 if fsdp else 0,
    )


def _stage(job: Job, stage: int) -> dict[str, Moment]:
    counts = count(job, stage)
    held = hold(job, counts)
    kept = activations.kept(job, stage, counts.layers)
    first_kept = kept // max(1, counts.layers)  # what is left when only one layer's backward pass is to come
    again = job.recomputed(stage, counts.layers) > 0
    working = (activations.layer(job) if again else 0) + activations.layer_gradients(job)
    passed_on = 2 * activations.checkpoint(job) if job.pipeline_parallel > 1 else 0
    last = stage == job.pipeline_parallel - 1
    loss = activations.loss(job) if last else 0
    widest = max(math.prod(shape) for shape in shapes(job.model).values()) // job.tensor_parallel
    dequantized = widest * job.weights_bytes if job.quantized else 0

    fsdp = job.framework.sharding == "fsdp"
    stays = held.root_gathered if fsdp else 0  # the embeddings and the head, from the first layer to the last
    if not job.reshard_after_forward and job.gathers_weights:
        stays += counts.layers * held.layer_gathered
    # Before the first of several micro-batches, or with what is sharded, there are no gradients yet
    early = held.gradients if job.gradient_accumulation_steps > 1 or job.shares("gradients") == 1 else 0
    one_layer = held.gradients // max(1, counts.layers)
    whole_trained = held.layer_gradients + held.layer_reduced
    # The head's gradient waits for that of the embeddings, with which it is summed
    head = counts.head * job.weights_bytes if held.root_gradients else 0
    # A loss in pieces: the head's gradient of this piece, that of the pieces before, and their sum
    pieces = 3 * head if job.framework.loss_chunk else 0

    def moment(name: str, activation: int, loss: int, communication: int, gradients: int, extra: int = 0) -> Moment:
        offload = job.cpu_offload
        parts = {
            "weights": 0 if offload else held.weights,
            "gradients": 0 if offload else gradients,
            "optimizer": 0 if offload else held.optimizer + extra,
            "activations": activation,
            "loss": loss,
            "communication": communication,
            "quantization": held.scales,
        }
        return Moment(name, parts)

    largest = largest_trained(job) * job.trained_bytes if job.shares("optimizer") > 1 else 0
    step_copies = job.framework.step_bytes + (FP32 if job.has_masters else 0)
    update = round((counts.adapters if job.lora else counts.base) * step_copies / job.shares("optimizer"))
    moments = {
        "gather": moment("gather", 0, 0, 2 * (stays + held.layer_gathered), early),
        "loss": moment(
            "loss", kept + (0 if last else working), loss, stays + held.layer_gathered + passed_on + pieces, early
        ),
        "backward first": moment(
            "backward first",
            kept + working,
            0,
            stays + 2 * held.layer_gathered + whole_trained + head + passed_on,
            max(early, one_layer),
        ),
        "backward last": moment(
            "backward last",
            first_kept + working,
            0,
            stays + held.layer_gathered + whole_trained + head,
            held.gradients,
        ),
        "reduce": moment("reduce", 0, 0, held.root_gradients + held.root_reduced, held.gradients),
        "update": moment("update", 0, 0, 0, held.gradients, extra=update),
        "save": moment("save", 0, 0, largest, 0),
    }
    for name in ("backward first", "backward last"):
        moments[name].parts["quantization"] += dequantized
    moments["load"] = Moment("load", {**dict.fromkeys(PARTS, 0), **_load(job, held, counts)})
    return moments


def _load(job: Job, held: Held, counts: Counts) -> dict[str, int]:
    """While loading layer by layer, the last to come (the embeddings and the head) are whole for a moment."""
    weights = 0 if job.cpu_offload else held.weights
    if job.framework.loading == "layer":
        weights += max(counts.root, counts.layer) * job.weights_bytes
    return {"weights": weights, "quantization": held.scales}


def largest_trained(job: Job) -> int:
    """Weights of the largest trained tensor: brought together, one at a time, when a checkpoint is written."""
    matrices = shapes(job.model)
    if job.lora:
        return max(job.lora_rank * max(matrices[name]) for name in job.lora_targets)
    return max(job.model.vocab_size * job.model.hidden_size, *(math.prod(shape) for shape in matrices.values()))
