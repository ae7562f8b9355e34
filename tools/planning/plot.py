"""A sweep as a picture: peak memory over length, a line for each number of devices and rows at once."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import matplotlib

from common.memory import fit
from common.memory.estimate import GIB
from tools.planning.answer import device_memory
from tools.planning.question import Question

matplotlib.use("agg")
import matplotlib.pyplot as plt

# What is drawn to the right: the first that has several values
ACROSS = ("length", "devices", "batch")


def draw(points: list[dict[str, Any]], question: Question, file: Path) -> None:
    """Write the picture to `file`, in the format that its name says."""
    points = [point for point in points if "problem" not in point]
    values = {axis: sorted({point[axis] for point in points}) for axis in ACROSS}
    across = next((axis for axis in ACROSS if len(values[axis]) > 1), ACROSS[0])
    others = [axis for axis in ACROSS if axis != across]
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for combination in itertools.product(*(values[axis] for axis in others)):
        line = [
            point for point in points if all(point[axis] == at for axis, at in zip(others, combination, strict=True))
        ]
        line.sort(key=lambda point: point[across])
        named = ", ".join(f"{axis} {at:,}" for axis, at in zip(others, combination, strict=True))
        axes.plot([point[across] for point in line], [point["peak"] for point in line], marker="o", label=named)
    if (of_device := device_memory(question)) is not None:
        axes.axhline(of_device, color="black", linewidth=1)
        usable = of_device - fit.reserve(of_device) / GIB
        axes.axhline(usable, color="black", linewidth=1, linestyle="--", label=f"{of_device:g} GiB less the reserve")
    axes.set_xlabel(across)
    axes.set_ylabel("peak memory of a device, GiB")
    axes.set_ylim(bottom=0)
    axes.set_title(f"{question.plan.recipe_folder.name}, {question.model}, {question.plan.platform_id}")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)
    plt.close(figure)
