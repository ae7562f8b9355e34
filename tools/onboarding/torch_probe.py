"""What torch does on this machine's devices: operators, collectives, rates, the golden curve, checkpoints.

    LAUNCHER torch_probe.py --probe dtype --device cpu --backend gloo --dtypes float32,bfloat16
                            --golden FOLDER --output FILE [--plugin MODULE]

Run by `tools onboard` in a recipe's environment, on every device, once for each probe. Rank 0 writes FILE:
a list of {probe, name, ok, value, detail}. A probe that raises is a line that is not ok.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as functional

from common import cli, golden
from common.process import die_with_parent
from tools.onboarding import probing
from tools.onboarding.probing import DTYPES, SIZES, Line, line

warnings.filterwarnings("ignore")

REPEATS = 10
TIMEOUT = timedelta(minutes=2)  # a rank that failed alone must not hold the others for long


class Machine:
    """This rank's device, and how to wait for it."""

    def __init__(self, device: str, backend: str) -> None:
        self.kind = device
        if device == "cpu":
            self.device = torch.device("cpu")
            dist.init_process_group("gloo", timeout=TIMEOUT)
        else:
            self.device = torch.device(device, int(os.environ["LOCAL_RANK"]))
            torch.accelerator.set_device_index(self.device.index)
            dist.init_process_group(f"cpu:gloo,{device}:{backend}", device_id=self.device, timeout=TIMEOUT)

    def wait(self) -> None:
        if self.kind != "cpu":
            torch.accelerator.synchronize()

    def seconds(self, work: Callable[[], Any], repeats: int = REPEATS) -> float:
        """Of one call, after two that warm up: the fastest of the repeats."""
        for _ in range(2):
            work()
        times = []
        for _ in range(repeats):
            self.wait()
            started = time.perf_counter()
            work()
            self.wait()
            times.append(time.perf_counter() - started)
        return min(times)


def dtypes(machine: Machine, stated: list[str]) -> Iterator[Line]:
    """Products in each dtype that the platform states, against numpy's in fp64."""
    random = np.random.RandomState(0)
    a, b = (random.standard_normal((256, 256)).astype(np.float32) for _ in range(2))
    for name in stated:
        dtype = getattr(torch, name)
        left, right = (torch.from_numpy(each).to(machine.device, dtype) for each in (a, b))
        expected = left.cpu().double().numpy() @ right.cpu().double().numpy()
        found = (left @ right).cpu().double().numpy()
        error = float(np.abs(found - expected).max() / np.abs(expected).max())
        yield line("dtype", name, error <= DTYPES[name], error, "largest relative error of a product")


def operators(machine: Machine) -> Iterator[Line]:
    """What Llama and its training are made of: forward and gradients on the device against the CPU in fp64."""
    random = np.random.RandomState(1)
    q, k, v = (random.standard_normal((2, 4, 32, 16)) for _ in range(3))
    x, w = random.standard_normal((2, 32, 64)), random.standard_normal(64)
    logits, ids = random.standard_normal((64, 97)), random.randint(0, 97, 64)
    ids[::3] = -100

    def attention(q: Any, k: Any, v: Any) -> Any:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    def cross_entropy(scores: Any) -> Any:
        return functional.cross_entropy(scores, torch.from_numpy(ids).to(scores.device), ignore_index=-100)

    made: list[tuple[str, Callable[..., Any], list[Any]]] = [
        ("scaled_dot_product_attention, causal", attention, [q, k, v]),
        ("rms_norm", lambda x, w: functional.rms_norm(x, (64,), w, 1e-5), [x, w]),
        ("silu", functional.silu, [x]),
        ("cross_entropy with -100", cross_entropy, [logits]),
        ("embedding", lambda table: functional.embedding(torch.arange(9, device=table.device), table), [logits]),
        ("index_select and cumsum", lambda x: x.cumsum(1)[:, [0, 3, 3]], [x]),
    ]
    for name, work, arrays in made:
        exact, ours = (
            _with_gradients(work, arrays, device, dtype)
            for device, dtype in ((torch.device("cpu"), torch.float64), (machine.device, torch.float32))
        )
        error = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, exact, strict=True))
        yield line("operator", name, error <= 1e-5, error, "fp32, forward and gradients, against fp64")


def _with_gradients(work: Callable[..., Any], arrays: list[Any], device: Any, dtype: Any) -> list[Any]:
    inputs = [torch.from_numpy(each).to(device, dtype).requires_grad_() for each in arrays]
    output = work(*inputs)
    output.square().sum().backward()
    return [each.detach().cpu().double() for each in (output, *(each.grad for each in inputs))]


def collectives(machine: Machine) -> Iterator[Line]:
    """Each collective that the recipes use: what it must give, and its bandwidth at several sizes."""
    world, rank = dist.get_world_size(), dist.get_rank()
    for size in SIZES:
        count = size // 4 // world * world
        mine = torch.full((count,), float(rank + 1), device=machine.device)
        whole = torch.empty(count * world, device=machine.device)
        part = torch.empty(count // world, device=machine.device)
        total = float(sum(range(1, world + 1)))
        ranks = torch.arange(1.0, world + 1, device=machine.device).repeat_interleave(count)
        scratch = mine.clone()
        works: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
            "all_reduce": (partial(dist.all_reduce, scratch), partial(_same, scratch, total)),
            "all_gather": (partial(dist.all_gather_into_tensor, whole, mine), partial(_same, whole, ranks)),
            "reduce_scatter": (partial(dist.reduce_scatter_tensor, part, mine), partial(_same, part, total)),
            "broadcast": (partial(dist.broadcast, scratch, 0), partial(_same, scratch, 1.0)),
        }
        for name, (work, right) in works.items():
            scratch.copy_(mine)
            work()
            ok = right()
            seconds = machine.seconds(work, 3)
            yield line("collective", f"{name}, {size} bytes", ok, size / seconds / 1e9, "GB/s a rank")


def _same(found: torch.Tensor, expected: torch.Tensor | float) -> bool:
    return bool((found == expected).all())


def rates(machine: Machine, stated: list[str]) -> Iterator[Line]:
    """TFLOP/s of square products and GB/s of a copy, of one device while all work."""
    size = probing.MATMUL_ON_CPU if machine.kind == "cpu" else probing.MATMUL
    for name in stated:
        square = torch.randn(size, size, device=machine.device).to(getattr(torch, name))
        seconds = machine.seconds(partial(torch.matmul, square, square), 3)
        yield line("matmul", name, True, 2 * size**3 / seconds / 1e12, f"TFLOP/s, {size} x {size}")
    block = torch.zeros(2**26 if machine.kind == "cpu" else 2**30, dtype=torch.uint8, device=machine.device)
    other = torch.empty_like(block)
    seconds = machine.seconds(partial(other.copy_, block), 3)
    yield line("memory", "copy", True, 2 * block.numel() / seconds / 1e9, "GB/s, read and written")


def curve(machine: Machine, folder: Path) -> Iterator[Line]:
    """The golden full-parameter curve, twice: the same loss as everywhere, and the same bits again."""
    losses, state = train(machine, folder)
    compared = golden.compare("full", losses)
    largest = max(compared.differences)
    yield line("golden", "full, 20 steps", not compared.problems, largest, "; ".join(compared.problems[:2]))
    again, other = train(machine, folder)
    same = again == losses and all(torch.equal(state[name], other[name]) for name in state)
    yield line("determinism", "two trainings, bit for bit", same, None, "losses and weights")
    file = folder.parent / f"checkpoint-{dist.get_rank()}.pt"
    torch.save(state, file)
    read = torch.load(file, weights_only=True, map_location=machine.device)
    kept = all(torch.equal(read[name], state[name]) for name in state)
    yield line(
        "checkpoint", "saved and read, bit for bit", kept, None, f"{len(state)} tensors, {file.stat().st_size} bytes"
    )


def train(machine: Machine, folder: Path) -> tuple[list[float], dict[str, Any]]:
    """The plain loop of common/golden/make.py on this device."""
    from transformers import AutoModelForCausalLM

    read = golden.read()
    settings = read.settings["full"]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder / "model", torch_dtype=torch.float32).to(machine.device).train()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(
        parameters,
        lr=settings["learning_rate"],
        betas=tuple(settings["betas"]),
        eps=settings["eps"],
        weight_decay=settings["weight_decay"],
    )
    losses = []
    for ids, labels in zip(read.input_ids, read.labels, strict=True):
        logits = model(torch.from_numpy(ids).long().to(machine.device)).logits[:, :-1].flatten(0, 1)
        targets = torch.from_numpy(labels).long().to(machine.device)[:, 1:].flatten()
        loss = functional.cross_entropy(logits, targets, ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, settings["max_grad_norm"])
        optimizer.step()
        losses.append(loss.item())
    return losses, {name: value.detach().clone() for name, value in model.state_dict().items()}


def of_all_ranks(lines: list[Line]) -> list[Line]:
    """This rank's lines, where what failed on any rank has failed."""
    everybodys: list[list[Line]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(everybodys, lines)
    for rank, others in enumerate(everybodys):
        for mine, other in zip(lines, others, strict=False):
            if not other["ok"] and mine["ok"]:
                mine.update(ok=False, detail=f"rank {rank}: {other['name']}, {other['detail']}")
    return lines


def main() -> None:
    die_with_parent()
    asked = probing.arguments(__doc__)
    if asked.plugin:
        importlib.import_module(asked.plugin)
    machine = Machine(asked.device, asked.backend)
    stated = [name for name in asked.dtypes if name in DTYPES]
    works = {
        "dtype": partial(dtypes, machine, stated),
        "operator": partial(operators, machine),
        "collective": partial(collectives, machine),
        "rate": partial(rates, machine, stated),
        "golden": partial(curve, machine, asked.golden),
    }
    lines = of_all_ranks(probing.attempt(asked.probe, works))
    if dist.get_rank() == 0:
        probing.write(lines, asked.output)
    dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(cli.call(main))
