"""What MindSpore does on this machine's devices: operators, collectives, rates, the golden curve, checkpoints.

    LAUNCHER mindspore_probe.py --probe dtype --device CPU --backend mccl --dtypes float32
                                --golden FOLDER --output FILE

As torch_probe.py, in MindSpore's words; what is written is what rank 0 found. The Llama of the golden
curve is written out here, in MindSpore's plain operators: nothing of MindFormers is in between.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import communication, ops
from safetensors.numpy import load_file

from common import cli, golden
from common.process import die_with_parent
from tools.onboarding import probing
from tools.onboarding.probing import DTYPES, SIZES, Line, line


def seconds(work: Callable[[], Any]) -> float:
    """Of one call, after two that warm up: the fastest of three. Reading one number waits for the work."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        work().flatten()[0].asnumpy()
        times.append(time.perf_counter() - started)
    return min(times[2:])


def relative(found: Any, expected: Any) -> float:
    return float(np.abs(np.asarray(found, np.float64) - expected).max() / np.abs(expected).max())


def dtypes(stated: list[str]) -> Iterator[Line]:
    """Products in each dtype that the platform states, against numpy's in fp64."""
    random = np.random.RandomState(0)
    a, b = (random.standard_normal((256, 256)).astype(np.float32) for _ in range(2))
    for name in stated:
        left, right = (ms.Tensor(each).astype(getattr(ms, name)) for each in (a, b))
        expected = np.matmul(*(each.astype(ms.float32).asnumpy().astype(np.float64) for each in (left, right)))
        error = relative(ops.matmul(left, right).astype(ms.float32).asnumpy(), expected)
        yield line("dtype", name, error <= DTYPES[name], error, "largest relative error of a product")


def operators() -> Iterator[Line]:
    """Parts of Llama in fp32, forward and gradient of the sum of squares, against numpy and differences in fp64."""
    random = np.random.RandomState(1)
    x, weight = random.standard_normal((3, 8)), random.standard_normal(8)

    def rms(x: Any) -> Any:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * weight

    def softmax(x: Any) -> Any:
        e = np.exp(x - x.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    scale = ms.Tensor(weight.astype(np.float32))
    made: list[tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = [
        ("rms_norm", lambda x: rms_norm(x, scale, 1e-5), rms),
        ("silu", ops.silu, lambda x: x / (1 + np.exp(-x))),
        ("softmax", lambda x: ops.softmax(x, -1), softmax),
        ("cumsum", lambda x: ops.cumsum(x, 1), lambda x: x.cumsum(1)),
    ]
    for name, ours, exact in made:
        value, gradient = ms.value_and_grad(lambda x, ours=ours: ops.square(ours(x)).sum())(
            ms.Tensor(x.astype(np.float32))
        )
        expected = np.zeros_like(x)
        for index in np.ndindex(*x.shape):
            step = np.zeros_like(x)
            step[index] = 1e-5
            expected[index] = ((exact(x + step) ** 2).sum() - (exact(x - step) ** 2).sum()) / 2e-5
        whole = (exact(x) ** 2).sum()
        error = max(relative(gradient.asnumpy(), expected), abs(float(value.asnumpy()) - whole) / whole)
        yield line("operator", name, error <= 1e-5, error, "fp32, forward and gradient, against fp64")


def collectives(rank: int, world: int) -> Iterator[Line]:
    """Each collective that the recipes use: what it must give, and its bandwidth at several sizes."""
    if world == 1:
        yield line("collective", "did not run", False, None, "one device: give the recipe two")
        return
    total = float(sum(range(1, world + 1)))
    works: dict[str, tuple[Any, Callable[[int], Any]]] = {
        "all_reduce": (ops.AllReduce(), lambda count: total),
        "all_gather": (ops.AllGather(), lambda count: np.arange(1.0, world + 1).repeat(count)),
        "reduce_scatter": (ops.ReduceScatter(), lambda count: total),
        "broadcast": (lambda mine: ops.Broadcast(0)((mine,))[0], lambda count: 1.0),
    }
    for name, (work, expected) in works.items():
        for size in SIZES:
            count = size // 4 // world * world
            mine = ms.Tensor(np.full(count, rank + 1.0, np.float32))
            try:
                ok = bool((work(mine).asnumpy() == expected(count)).all())
            except Exception as error:  # every kind that a backend without it raises
                yield line("collective", f"{name}, {size} bytes", False, None, probing.why(error))
                break
            rate = size / seconds(partial(work, mine)) / 1e9
            yield line("collective", f"{name}, {size} bytes", ok, rate, "GB/s a rank")


def rates(device: str, stated: list[str]) -> Iterator[Line]:
    """TFLOP/s of square products and GB/s of a copy, of one device while all work."""
    size = probing.MATMUL_ON_CPU if device == "CPU" else probing.MATMUL
    for name in stated:
        square = ms.Tensor(np.random.RandomState(2).standard_normal((size, size)).astype(np.float32))
        square = square.astype(getattr(ms, name))
        rate = 2 * size**3 / seconds(partial(ops.matmul, square, square)) / 1e12
        yield line("matmul", name, True, rate, f"TFLOP/s, {size} x {size}")
    block = ms.Tensor(np.zeros(2**24, np.float32))
    yield line("memory", "copy", True, 2 * 2**26 / seconds(block.copy) / 1e9, "GB/s, read and written")


def rms_norm(x: Any, weight: Any, eps: float) -> Any:
    return x * ops.rsqrt(ops.square(x).mean(-1, keep_dims=True) + eps) * weight


class Llama:
    """The golden model by its Hugging Face names. Called with ids and labels (rows, length): the loss."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.stored: dict[str, Any] = {}
        for file in sorted(folder.glob("*.safetensors")):
            self.stored |= load_file(file)
        self.weights = {name: ms.Parameter(ms.Tensor(self.stored[name]), name=name) for name in sorted(self.stored)}
        heads = self.config["num_attention_heads"]
        self.dimension = self.config["hidden_size"] // heads
        theta = self.config.get("rope_theta") or self.config["rope_parameters"]["rope_theta"]
        frequencies = theta ** (-np.arange(0, self.dimension, 2) / self.dimension)
        angles = np.outer(np.arange(golden.LENGTH), np.concatenate([frequencies, frequencies]))
        self.cos, self.sin = (ms.Tensor(f(angles).astype(np.float32)) for f in (np.cos, np.sin))
        future = np.triu(np.full((golden.LENGTH, golden.LENGTH), -1e9, np.float32), 1)
        self.future = ms.Tensor(future)

    def __call__(self, ids: Any, labels: Any) -> Any:
        weights, eps = self.weights, self.config["rms_norm_eps"]
        x = ops.gather(weights["model.embed_tokens.weight"], ids, 0)
        for index in range(self.config["num_hidden_layers"]):
            name = f"model.layers.{index}."
            x = x + self.attention(rms_norm(x, weights[name + "input_layernorm.weight"], eps), name + "self_attn.")
            h = rms_norm(x, weights[name + "post_attention_layernorm.weight"], eps)
            gate, up = (self.linear(h, f"{name}mlp.{each}_proj") for each in ("gate", "up"))
            x = x + self.linear(ops.silu(gate) * up, name + "mlp.down_proj")
        logits = self.linear(rms_norm(x, weights["model.norm.weight"], eps), "lm_head")[:, :-1]
        scores = ops.log_softmax(logits.reshape(-1, logits.shape[-1]), -1)
        targets = labels[:, 1:].reshape(-1)
        kept = (targets >= 0).astype(ms.float32)
        chosen = ops.gather_elements(scores, 1, ops.maximum(targets, 0).expand_dims(1))[:, 0]
        return -(chosen * kept).sum() / kept.sum()

    def attention(self, x: Any, name: str) -> Any:
        rows, length, _ = x.shape
        heads, groups = self.config["num_attention_heads"], self.config["num_key_value_heads"]

        def split(which: str, count: int) -> Any:
            return self.linear(x, name + which).reshape(rows, length, count, self.dimension).swapaxes(1, 2)

        def turn(value: Any) -> Any:
            first, second = value[..., : self.dimension // 2], value[..., self.dimension // 2 :]
            return value * self.cos + ops.cat((-second, first), -1) * self.sin

        q, k, v = turn(split("q_proj", heads)), turn(split("k_proj", groups)), split("v_proj", groups)
        k, v = (ops.repeat_interleave(each, heads // groups, 1) for each in (k, v))
        scores = ops.matmul(q, k.swapaxes(-1, -2)) / self.dimension**0.5 + self.future
        mixed = ops.matmul(ops.softmax(scores, -1), v).swapaxes(1, 2).reshape(rows, length, -1)
        return self.linear(mixed, name + "o_proj")

    def linear(self, x: Any, name: str) -> Any:
        return ops.matmul(x, self.weights[name + ".weight"].swapaxes(0, 1))


def train(model: Llama, step_of: Callable[..., Any]) -> tuple[list[float], dict[str, Any]]:
    """20 steps from the stored weights; AdamW as its paper has it, on whole tensors."""
    read = golden.read()
    settings = read.settings["full"]
    parameters = list(model.weights.values())
    for name, parameter in model.weights.items():
        ops.assign(parameter, ms.Tensor(model.stored[name]))
    first, second = ([ops.zeros_like(each) for each in parameters] for _ in range(2))
    (b1, b2), rate, eps = settings["betas"], settings["learning_rate"], settings["eps"]
    losses = []
    for step, (ids, labels) in enumerate(zip(read.input_ids, read.labels, strict=True), 1):
        loss, gradients = step_of(ms.Tensor(ids), ms.Tensor(labels))
        norm = ops.sqrt(sum(ops.square(each).sum() for each in gradients))
        scale = ops.minimum(settings["max_grad_norm"] / (norm + 1e-6), ms.Tensor(1.0, ms.float32))
        for index, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            gradient = gradient * scale
            first[index] = b1 * first[index] + (1 - b1) * gradient
            second[index] = b2 * second[index] + (1 - b2) * ops.square(gradient)
            change = first[index] / (1 - b1**step) / (ops.sqrt(second[index] / (1 - b2**step)) + eps)
            ops.assign(parameter, parameter - rate * change)
        losses.append(float(loss.asnumpy()))
    return losses, {name: each.asnumpy().copy() for name, each in model.weights.items()}


def curve(folder: Path, rank: int) -> Iterator[Line]:
    """The golden full-parameter curve, twice: the same loss as everywhere, and the same bits again."""
    model = Llama(folder / "model")
    gradients = ms.value_and_grad(model.__call__, None, ms.ParameterTuple(model.weights.values()))

    def step(ids: Any, labels: Any) -> Any:
        return gradients(ids, labels)

    step_of = ms.jit(step)  # compiled once: it then takes a quarter of the time
    losses, state = train(model, step_of)
    compared = golden.compare("full", losses)
    largest = max(compared.differences)
    yield line("golden", "full, 20 steps", not compared.problems, largest, "; ".join(compared.problems[:2]))
    again, other = train(model, step_of)
    same = again == losses and all(np.array_equal(state[name], other[name]) for name in state)
    yield line("determinism", "two trainings, bit for bit", same, None, "losses and weights")
    file = folder.parent / f"checkpoint-{rank}.ckpt"
    ms.save_checkpoint([{"name": name, "data": ms.Tensor(value)} for name, value in state.items()], str(file))
    read = ms.load_checkpoint(str(file))
    kept = all(np.array_equal(read[name].asnumpy(), state[name]) for name in state)
    yield line("checkpoint", "saved and read, bit for bit", kept, None, f"{len(state)} tensors")


def main() -> None:
    die_with_parent()
    asked = probing.arguments(__doc__)
    ms.set_device(asked.device)
    rank, world = int(os.environ.get("RANK_ID", "0")), int(os.environ.get("MS_WORKER_NUM", "1"))
    if world > 1:
        communication.init(asked.backend)
        rank, world = communication.get_rank(), communication.get_group_size()
    stated = [name for name in asked.dtypes if name in DTYPES]
    lines = probing.attempt(
        asked.probe,
        {
            "dtype": partial(dtypes, stated),
            "operator": operators,
            "collective": partial(collectives, rank, world),
            "rate": partial(rates, asked.device, stated),
            "golden": partial(curve, asked.golden, rank),
        },
    )
    if rank == 0:
        probing.write(lines, asked.output)


if __name__ == "__main__":
    sys.exit(cli.call(main))
