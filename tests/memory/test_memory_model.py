"""What each setting does to the estimate: by how much, not only in which direction."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobs import FSDP, MASTERS, SMALL, make, training

from common.errors import UserError
from common.memory import activations, duration, fit, host
from common.memory.estimate import GIB, PARTS, estimate
from common.memory.job import Job

BILLION_8 = 8_030_261_248


def parts(job: Job, moment: str = "backward last") -> dict[str, int]:
    return estimate(job).moments[moment].parts


@pytest.mark.parametrize(
    ("stage", "weights", "gradients", "states"), [(0, 1, 1, 1), (1, 1, 1, 8), (2, 1, 8, 8), (3, 8, 8, 8)]
)
def test_each_zero_stage_shares_one_thing_more(stage: int, weights: int, gradients: int, states: int) -> None:
    job = make("8B", MASTERS, training(1024, parallel={"zero_stage": stage}), devices=8)
    held = parts(job)
    assert held["weights"] == pytest.approx(2 * BILLION_8 / weights, rel=1e-6)
    assert held["gradients"] == pytest.approx(2 * BILLION_8 / gradients, rel=1e-6)
    assert held["optimizer"] == pytest.approx(12 * BILLION_8 / states, rel=1e-6)


def test_gradients_and_states_are_of_what_is_trained() -> None:
    job = make("8B", FSDP, training(1024, lora=16), devices=2)
    held = parts(job)
    assert held["weights"] == pytest.approx((2 * BILLION_8 + 4 * 41_943_040) / 2, rel=1e-6)
    assert held["gradients"] == 4 * 41_943_040 / 2
    assert held["optimizer"] == 8 * 41_943_040 / 2


def test_four_bits_leave_embeddings_head_and_norms_as_they_are() -> None:
    job = make("8B", FSDP, training(1024, lora=16, quantized=True), devices=1)
    matrices = BILLION_8 - 2 * 128256 * 4096 - 65 * 4096
    plain = 2 * (BILLION_8 - matrices)
    held = parts(job)
    assert held["weights"] == pytest.approx(matrices / 2 + plain + 4 * 41_943_040, rel=1e-6)
    scales = matrices / 64 + 4 * matrices / (64 * 256)
    assert estimate(job).load.parts["quantization"] == pytest.approx(scales, rel=1e-6)


def test_offload_moves_weights_gradients_and_states_to_the_host() -> None:
    here = make("70B", FSDP, training(3072, lora=16, quantized=True), devices=4)
    there = dataclasses.replace(here, cpu_offload=True)
    for moment in estimate(there).moments.values():
        assert moment.parts["gradients"] == moment.parts["optimizer"] == 0
    assert estimate(there).step.parts["weights"] == 0
    moved = parts(here)["weights"] + parts(here)["gradients"] + parts(here)["optimizer"]
    assert estimate(here).moments["backward last"].total - estimate(there).moments["backward last"].total == moved
    more = host.host(there).step - host.host(here).step
    assert 4 * moved <= more < 4 * moved * 1.5  # pinned memory is given out in powers of two


def test_recomputation_keeps_one_input_a_layer() -> None:
    again = make("8B", MASTERS, training(2048), devices=1)
    kept = dataclasses.replace(again, checkpointing=False)
    some = dataclasses.replace(again, recomputed_layers=(20,))
    kept_bytes = [estimate(job).moments["loss"].parts["activations"] for job in (again, some, kept)]
    assert kept_bytes[0] == 32 * 2048 * 4096 * 2
    assert kept_bytes[1] - kept_bytes[0] == pytest.approx((kept_bytes[2] - kept_bytes[0]) * 12 / 32)


def test_the_first_pipeline_stage_holds_most_micro_batches() -> None:
    """1F1B: stage 0 of 4 keeps 4 micro-batches, if there are as many."""
    stated = training(2048, parallel={"pipeline_parallel": 4}, train={"gradient_accumulation_steps": 8})
    job = make("8B", MASTERS, stated, devices=4)
    assert [job.in_flight(stage) for stage in range(4)] == [4, 3, 2, 1]
    assert dataclasses.replace(job, gradient_accumulation_steps=2).in_flight(0) == 2


def test_each_moment_is_that_of_the_fullest_stage() -> None:
    """The last stage has the logits; the first has the micro-batches in flight while layers are differentiated."""
    stated = training(8192, parallel={"pipeline_parallel": 4}, train={"gradient_accumulation_steps": 8})
    moments = estimate(make("8B", {**MASTERS, "loss_chunk": 4096}, stated, devices=4)).moments
    assert moments["loss"].parts["loss"] > 4096 * 128256 * 12
    assert moments["backward first"].parts["activations"] > 4 * 8 * 8192 * 4096 * 2


def test_logits_are_of_the_chunk_that_exists() -> None:
    whole = make("8B", FSDP, training(4096, lora=16), devices=1)
    chunked = dataclasses.replace(whole, framework=whole.framework.model_copy(update={"loss_chunk": 256}))
    spared = estimate(whole).moments["loss"].parts["loss"] - estimate(chunked).moments["loss"].parts["loss"]
    assert spared == (4096 - 256) * 128256 * 12


def test_devices_that_share_sequences_hold_fewer_tokens() -> None:
    whole = make("8B", MASTERS, training(8192), devices=2)
    shared = make("8B", MASTERS, training(8192, parallel={"sequence_parallel": 2}), devices=2)
    assert estimate(shared).step.parts["activations"] * 2 == pytest.approx(estimate(whole).step.parts["activations"])
    assert (whole.data_parallel, shared.data_parallel) == (2, 1)


def test_tensor_parallel_ranks_share_all_but_the_norms() -> None:
    """Of a layer's activations: norms, their results and the sum between attention and MLP are on every rank."""
    one = make("8B", MASTERS, training(2048, train={"gradient_checkpointing": False}), devices=1)
    eight = dataclasses.replace(one, processes=8, tensor_parallel=8)
    whole = 2048 * (2 * 4 + 5 * 2) * 4096  # bytes: both norms' fp32 copies, and five tensors in bf16
    shared = activations.layer(one) - whole
    assert activations.layer(eight) == whole + shared // 8
    assert activations.loss(one) > 6 * activations.loss(eight)


def test_fused_norms_keep_neither_an_fp32_copy_nor_the_unscaled() -> None:
    plain = make("8B", MASTERS, training(2048), devices=1)
    fused = make("8B", {**MASTERS, "fused_norms": True}, training(2048), devices=1)
    assert activations.layer(plain) - activations.layer(fused) == 2048 * 4096 * (2 * 4 + 2 * 2)


def test_layer_by_layer_loading_needs_no_whole_model() -> None:
    """36 GiB of 4-bit weights do not fit a 24 GiB device; a quarter of them and one part of the model do."""
    job = make("70B", FSDP, training(3072, lora=16, quantized=True), devices=4)
    assert 10 * GIB < estimate(job).load.total < 20 * GIB
    assert host.host(job).load < 16 * GIB
    whole = dataclasses.replace(job, framework=job.framework.model_copy(update={"loading": "model"}))
    assert host.host(whole).load > 4 * 130 * GIB


jobs = st.builds(
    lambda devices, length, batch, lora, quantized, again, sharding, stage: make(
        SMALL,
        {"sharding": sharding, "zero_stage": stage, "trained_dtype": "float32"},
        training(
            length,
            lora=16 if lora else None,
            quantized=lora and quantized,
            train={"micro_batch_size": batch, "gradient_checkpointing": again},
        ),
        devices=devices,
    ),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([128, 512, 2048]),
    st.integers(1, 4),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["fsdp", "zero"]),
    st.integers(0, 3),
)


@settings(deadline=None)
@given(jobs)
def test_no_part_is_negative_and_more_never_takes_less(job: Job) -> None:
    peak = estimate(job).peak.total
    for moment in estimate(job).moments.values():
        assert set(moment.parts) == set(PARTS)
        assert all(size >= 0 for size in moment.parts.values())
    for more in (
        dataclasses.replace(job, length=job.length * 2),
        dataclasses.replace(job, micro_batch_size=job.micro_batch_size + 1),
    ):
        assert estimate(more).peak.total >= peak
    assert estimate(dataclasses.replace(job, processes=job.processes * 2)).peak.total <= peak


def test_settings_that_contradict_the_model_are_refused() -> None:
    with pytest.raises(UserError, match="more pipeline stages than decoder layers"):
        make(SMALL, MASTERS, {"parallel": {"pipeline_parallel": 5}}, devices=5)
    with pytest.raises(UserError, match="key-value heads"):
        make(SMALL, MASTERS, {"parallel": {"tensor_parallel": 3}}, devices=3)
    with pytest.raises(UserError, match=r"recomputed_layers names another number"):
        make(SMALL, MASTERS, {"train": {"recomputed_layers": [1, 1]}}, devices=1)
    with pytest.raises(UserError, match=r"lora.targets names no matrix"):
        make(SMALL, MASTERS, {"lora": {"rank": 4, "targets": ["query"]}}, devices=1)


def test_what_is_suggested_fits_and_says_what_it_changes() -> None:
    job = make("70B", FSDP, training(8192, lora=16, quantized=True, train={"micro_batch_size": 2}), devices=2)
    found = fit.nearest(job, 24, lambda key: True, most=10)
    assert found
    for change in found:
        assert fit.fits(change.job, 24)
        assert change.job != job
        same_batch = change.job.micro_batch_size * change.job.gradient_accumulation_steps
        assert not change.same_result or (same_batch, change.job.length) == (2, 8192)


def test_nothing_is_suggested_that_the_recipe_cannot_be_told() -> None:
    job = make("70B", FSDP, training(3072, lora=16), devices=2)
    assert fit.nearest(job, 80, lambda key: False)
    for change in fit.nearest(job, 80, lambda key: False):
        assert all(option.startswith(("--devices", "--nnodes")) for option in change.options)


def test_frozen_weights_have_no_gradient_to_compute() -> None:
    """Two passes of three: 4N in place of 6N, and what attention takes stays."""
    everything = duration.duration(make("8B", FSDP, training(2048), devices=1), 100).flops
    adapter = duration.duration(make("8B", FSDP, training(2048, lora=16), devices=1), 100).flops
    multiplied = BILLION_8 - 128256 * 4096
    assert everything - adapter == pytest.approx(2048 * (2 * multiplied - 6 * 41_943_040))


def test_a_step_takes_the_published_time() -> None:
    """Two published runs at the utilization that each of them reached."""
    vendor = make(
        "8B",
        MASTERS,
        training(8192, parallel={"pipeline_parallel": 4}, train={"gradient_accumulation_steps": 8}),
        devices=16,
    )
    assert duration.duration(vendor, 96, 0.47).computing == pytest.approx(20.9, rel=0.03)
    ascend = make("8B", {"sharding": "zero", "zero_stage": 1}, training(8192), devices=8)
    assert 8192 / duration.duration(ascend, 313, 0.48).computing == pytest.approx(2581, rel=0.03)
