"""The answer of `tools plan` for a person."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.memory.estimate import PARTS

EXPLAINED = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer state",
    "activations": "activations",
    "loss": "logits and loss",
    "communication": "gathered and summed",
    "quantization": "quantization",
}


def show(found: dict[str, Any], out: Console) -> None:
    devices, model, memory = found["devices"], found["model"], found["memory"]
    of_device = "" if memory["of_device"] is None else f" of {memory['of_device']:g} GiB"
    nodes = "" if devices["nodes"] == 1 else f" on {devices['nodes']} nodes"
    out.print(Text(f"{found['recipe']}, preset {found['preset']}, platform {found['platform']}", style="bold"))
    out.print(f"{devices['all']} device{'s' if devices['all'] > 1 else ''}{of_device}{nodes}{_split(devices)}")
    out.print(
        f"{model['name']}: {model['parameters']:,} weights; {model['trained']:,} trained ({model['trained_share']:.3%})"
    )
    out.print()
    out.print(_memory_table(memory))
    out.print()
    _verdict(found, out)
    out.print()
    host, disk, work = found["host"], found["disk"], found["work"]
    rows = [
        ("host memory of a node", f"{host['peak']:g} GiB: load {host['load']:g}, step {host['step']:g}, "
                                  f"save {host['save']:g}"),
        ("disk", f"{disk['total']:g} GiB: weights {disk['weights']:g}, checkpoints {disk['checkpoints']:g}, "
                 f"model {disk['model']:g}, data {disk['data']:g}"),
        ("global batch", f"{work['micro_batch_size']} × {work['gradient_accumulation_steps']} × {work['data_parallel']}"
                         f" = {work['global_batch_size']} rows, {work['tokens_of_a_step']:,} tokens"),
        ("steps", "not known: --rows says how many rows there are" if work["steps"] is None
                  else f"{work['steps']:,}, {work['tokens']:,} tokens"),
        ("time", _time(found["time"])),
    ]  # fmt: skip
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for name, value in rows:
        table.add_row(name, value)
    out.print(table)
    if (claimed := found["stated"]) is not None:
        how = "measured" if claimed["measured"] else "claimed"
        out.print(
            f"recipe.yaml says of this preset: {claimed['device_gib']:g} GiB a device, {claimed['host_gib']:g} GiB "
            f"host, {how} ({claimed['source']})"
        )
    if found.get("verified"):
        out.print()
        checked = found["verified"]
        out.print(
            f"torch's FSDP2 memory tracker: {checked['tracker']:g} GiB at a step's peak; this estimate, without what "
            f"the tracker does not see: {checked['estimate']:g} GiB ({checked['difference']:+.1%})"
        )
    out.print()
    out.print(Text("Assumptions", style="dim"))
    for line in found["assumptions"]:
        out.print(Text(f"  {line}", style="dim"))


def _split(devices: dict[str, Any]) -> str:
    named = {"tensor": "tensor_parallel", "pipeline": "pipeline_parallel", "sequence": "sequence_parallel"}
    parts = [f"{name} {devices[key]}" for name, key in named.items() if devices[key] > 1]
    return f": data {devices['data_parallel']} × {' × '.join(parts)}" if parts else ""


def _memory_table(memory: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("GiB of a device", header_style="dim")
    for title in ("load", f"step ({memory['highest_of_step']})", "save"):
        table.add_column(title, justify="right", header_style="dim")
    for part in PARTS:
        table.add_row(EXPLAINED[part], *(f"{memory[moment][part]:.2f}" for moment in ("load", "step", "save")))
    totals = (f"{memory[moment]['total']:.2f}" for moment in ("load", "step", "save"))
    table.add_row("in all", *totals, style="bold")
    return table


def _verdict(found: dict[str, Any], out: Console) -> None:
    memory, verdict = found["memory"], found["fits"]
    reserve = "" if memory["reserve"] is None else f" with {memory['reserve']:g} GiB in reserve"
    if verdict["fits"]:
        out.print(Text(f"It fits: {memory['peak']:g} GiB{reserve}, {verdict['free']:g} GiB free", style="green"))
        return
    out.print(Text(f"It does not fit: {memory['peak']:g} GiB{reserve}, {-verdict['free']:g} GiB too much", style="red"))
    if verdict["instead"]:
        out.print("What does fit:")
        for change in verdict["instead"]:
            notes = [f"{change['peak']:g} GiB a device", f"{change['host']:g} GiB of host memory a node"]
            notes += [] if change["same_model"] else ["another batch, length or precision"]
            out.print(Text(f"  {' '.join(change['options'])}   ({'; '.join(notes)})"))
    else:
        out.print("Nothing near does.")


def _time(taken: dict[str, Any] | None) -> str:
    if taken is None:
        return "not estimated: the platform states no peak"
    parts = [f"{taken['step']:.3g} s a step (computing {taken['computing']:.3g}, moving {taken['moving']:.3g})"]
    parts.append(f"{taken['tokens_per_second_of_a_device']:,.0f} tokens/s a device")
    if taken["training"] is not None:
        parts.append(f"training {duration_text(taken['training'])}")
    if taken["cost"] is not None:
        parts.append(f"cost {taken['cost']:,.2f}")
    return "; ".join(parts)


def duration_text(seconds: float) -> str:
    """1 h 5 min, or 40 s."""
    minutes, hours = round(seconds / 60), int(seconds // 3600)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{hours} h {minutes - 60 * hours} min" if hours else f"{minutes} min"
