"""The closed-form estimate against what is published: rows that ran fit, rows that cannot run do not."""

from __future__ import annotations

from typing import Any

import pytest
from jobs import FSDP, MASTERS, make, training

from common.memory import host
from common.memory.estimate import GIB, estimate
from common.memory.fit import fits, reserve
from common.memory.job import Job, count, trained_parameters

Row = tuple[str, Job, float]


def row(name: str, memory: float, model: str, framework: dict[str, Any], devices: int, **settings: Any) -> Any:
    length = settings.pop("length", 3072)
    nodes, each = (devices // 8, 8) if devices > 8 else (1, devices)
    job = make(model, framework, training(length, **settings), devices=each, nodes=nodes)
    return pytest.param(job, memory, id=name)


# The upstream's table for 70B: full 16×80 GB, LoRA 8×80, Q-LoRA 2×40, Q-LoRA with offload 4×24; 3072 tokens, batch 1
RAN = [
    row("70B full 16x80", 80, "70B", {"sharding": "fsdp"}, 16),
    row("70B LoRA 8x80", 80, "70B", FSDP, 8, lora=16),
    row("70B Q-LoRA 2x40", 40, "70B", FSDP, 2, lora=16, quantized=True),
    row("70B Q-LoRA offload 4x24", 24, "70B", FSDP, 4, lora=16, quantized=True, offload=True),
    # ColossalAI: 16 ranks, 4 pipeline stages, ZeRO 1, 8192 tokens, 7/6/5/6 layers recomputed, a loss over bf16 logits
    row(
        "8B full 16xBI-V150",
        32,
        "8B",
        {**MASTERS, "fused_norms": True, "logit_bytes": 8},
        16,
        length=8192,
        train={"gradient_accumulation_steps": 8, "recomputed_layers": [7, 6, 5, 6]},
        parallel={"pipeline_parallel": 4, "zero_stage": 1},
    ),
    # MindFormers: 8 NPUs, optimizer parallel, 8192 tokens, every layer recomputed
    row("8B full 8x800T A2", 64, "8B", {"sharding": "zero", "zero_stage": 1}, 8, length=8192),
    # nnScaler's demo: AdamW with fp32 copies, ZeRO
    row("8B full 8x80", 80, "8B", MASTERS, 8, length=8192, parallel={"zero_stage": 1}),
    # The contest's baseline: LoRA on 4 NPUs of 32 GB, tensor parallel, 256 tokens, batch 64
    row(
        "8B LoRA 4xAscend 32 GB",
        32,
        "8B",
        {"sharding": "zero", "trained_dtype": "float32"},
        4,
        length=256,
        lora=8,
        train={"micro_batch_size": 64},
        parallel={"tensor_parallel": 4},
    ),
]

IMPOSSIBLE = [
    row("8B full AdamW fp32 1x80", 80, "8B", {"sharding": "fsdp"}, 1, length=2048, dtype="float32"),
    row("70B LoRA bf16 2x80", 80, "70B", FSDP, 2, lora=16),
    row("70B LoRA bf16 2x80, 512 tokens", 80, "70B", {**FSDP, "loss_chunk": 256}, 2, lora=16, length=512),
    row("70B Q-LoRA 8192 2x24", 24, "70B", FSDP, 2, lora=16, quantized=True, length=8192),
    row("8B full 1x80 with masters", 80, "8B", MASTERS, 1, length=512),
    row("405B full 16x80", 80, "405B", {"sharding": "fsdp"}, 16),
]


@pytest.mark.parametrize(("job", "memory"), RAN)
def test_a_published_row_fits(job: Job, memory: float) -> None:
    assert fits(job, memory), f"{estimate(job).peak.total / GIB:.1f} GiB"


@pytest.mark.parametrize(("job", "memory"), IMPOSSIBLE)
def test_a_row_that_cannot_run_does_not_fit(job: Job, memory: float) -> None:
    assert not fits(job, memory), f"{estimate(job).peak.total / GIB:.1f} GiB"


def test_the_reserve_is_kept_free() -> None:
    """Just enough memory without the reserve is not enough."""
    job = make("8B", FSDP, training(2048, lora=16), devices=1)
    peak = estimate(job).peak.total / GIB
    assert not fits(job, peak + 0.5)
    assert fits(job, peak + 0.5 + reserve(peak) / GIB)


# torch's FSDP2 memory tracker on fake tensors, GiB a rank, at full size; 2048 tokens where not said
TRACKED = [
    ("70B", {"sharding": "fsdp"}, 16, {}, 46.72),
    ("70B", FSDP, 8, {"lora": 16}, 27.93),
    ("70B", {**FSDP, "loss_chunk": 256}, 4, {"lora": 16, "quantized": True, "dropout": 0.05, "length": 3072}, 20.27),
    ("8B", {"sharding": "fsdp"}, 8, {}, 13.11),
    ("8B", {**FSDP, "trained_dtype": "float32"}, 8, {}, 20.34),
    ("8B", FSDP, 4, {"lora": 16, "train": {"gradient_checkpointing": False}}, 21.43),
]


@pytest.mark.parametrize(("model", "framework", "devices", "settings", "tracked"), TRACKED)
def test_within_a_tenth_of_what_the_tracker_found(
    model: str, framework: dict[str, Any], devices: int, settings: dict[str, Any], tracked: float
) -> None:
    settings = dict(settings)
    states = {"optimizer_bytes": 4 if "trained_dtype" not in framework else 8}
    job = make(model, {**framework, **states}, training(settings.pop("length", 2048), **settings), devices=devices)
    found = (estimate(job).step.total - estimate(job).load.parts["quantization"]) / GIB
    assert found == pytest.approx(tracked, rel=0.1)


def test_trained_parameters_are_those_that_are_published() -> None:
    """LoRA rank 16 on every matrix of 8B and 70B; the contest's baseline, rank 8 on wq and wv."""
    lora = {"rank": 16, "targets": "all-linear"}
    for model, trained in (("8B", 41_943_040), ("70B", 207_093_760)):
        assert trained_parameters(make(model, FSDP, {"lora": lora}, devices=1)) == trained
    for targets, trained in (
        (".*wq|.*wv", 3_407_872),
        (".*wq|.*wk|.*wv", 4_718_592),
        (["q_proj", "v_proj"], 3_407_872),
    ):
        settings = {"lora": {"rank": 8, "targets": targets}}
        assert trained_parameters(make("8B", FSDP, settings, devices=1)) == trained
    assert trained_parameters(make("8B", FSDP, {}, devices=1)) == 8_030_261_248


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("1B", 1_235_814_400),
        ("3B", 3_212_749_824),
        ("8B", 8_030_261_248),
        ("70B", 70_553_706_496),
        ("405B", 405_853_388_800),
    ],
)
def test_sizes_of_the_published_models(model: str, parameters: int) -> None:
    assert host.base_parameters(make(model, FSDP, {}, devices=1)) == parameters


@pytest.mark.parametrize("stages", [1, 2, 3, 5])
@pytest.mark.parametrize("tensor", [1, 2, 8])
def test_every_weight_is_on_some_rank(stages: int, tensor: int) -> None:
    """Pipeline stages and tensor-parallel ranks hold the whole model together; norms are on every rank."""
    parallel = {"pipeline_parallel": stages, "tensor_parallel": tensor}
    job = make("8B", MASTERS, {"parallel": parallel}, devices=stages * tensor)
    assert job.data_parallel == 1
    norms = (2 * 32 + 1) * 4096
    held = tensor * sum(count(job, stage).base for stage in range(stages))
    assert held == host.base_parameters(job) + (tensor - 1) * norms
