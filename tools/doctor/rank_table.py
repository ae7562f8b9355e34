"""HCCL's rank table: a JSON file that names every device of a launch, where one is given by a variable.

The form is CANN 8.5's for Atlas A2 (HCCL user guide, "rank table"). Without such a file the launcher finds the
devices itself; with one, HCCL believes it, and a mistake in it ends in a time-out.
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.launchers import Cluster
from tools.doctor.line import Line, passed, tried

NAME = "rank table"
UNSET = "unset the variable: the launcher needs no rank table"


def rank_table(variables: list[str], launcher: str, cluster: Cluster) -> Iterator[Line]:
    """A line for each of `variables` that names a rank table, or one that says that none does."""
    named = [(name, value) for name in variables if (value := os.environ.get(name))]
    if variables and not named:
        yield passed(NAME, f"none is given, {launcher} needs none")
    for name, value in named:
        yield tried(NAME, lambda name=name, value=value: check(Path(value), name, cluster))  # type: ignore[misc]


def check(file: Path, variable: str, cluster: Cluster) -> str:
    """What the table holds. Raises UserError for the first mistake in it."""
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no such file, and {variable} names it", file=file, hint=UNSET) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read: {error}", file=file, hint=UNSET) from None
    except json.JSONDecodeError as error:
        hint = f"HCCL takes plain JSON, without comments; or {UNSET}"
        raise UserError(f"not JSON: {error.msg}", file=file, line=error.lineno, hint=hint) from None
    try:
        devices = _check(table, cluster)
    except Mistake as mistake:
        raise UserError(f"{mistake.place}: {mistake.what}", file=file, hint=f"{mistake.to_do}; or {UNSET}") from None
    return f"{len(devices)} devices of {cluster.nnodes} nodes in {file}"


class Mistake(Exception):
    def __init__(self, place: str, what: str, to_do: str = "put it right") -> None:
        self.place, self.what, self.to_do = place, what, to_do


def _check(table: Any, cluster: Cluster) -> list[dict[str, Any]]:
    """The devices of a table without mistakes, in the order of the file."""
    if not isinstance(table, dict) or not isinstance(table.get("server_list"), list):
        raise Mistake("server_list", "there is no such list", "write the table in the form of version 1.0")
    if table.get("status") != "completed":
        raise Mistake("status", f"found {table.get('status')!r}, expected 'completed'", "wait until it is written")
    servers = table["server_list"]
    count = _number(table, "server_count", "server_count")
    if count != len(servers):
        raise Mistake("server_count", f"found {count}, but server_list has {len(servers)}")
    if count != cluster.nnodes:
        raise Mistake("server_count", f"found {count}, but the run has {cluster.nnodes} nodes", "see --nnodes")
    devices: list[dict[str, Any]] = []
    for index, server in enumerate(servers):
        devices += _devices(server, f"server_list[{index}]", cluster)
    _unique([server.get("server_id") for server in servers], "server_list", "server_id")
    addresses = [device["device_ip"] for device in devices if "device_ip" in device]
    _unique(addresses, "server_list", "device_ip")
    ranks = sorted(int(device["rank_id"]) for device in devices)
    if ranks != list(range(cluster.world_size)):
        raise Mistake("rank_id", f"found {_short(ranks)}, expected each of 0 to {cluster.world_size - 1} once")
    return devices


def _devices(server: Any, place: str, cluster: Cluster) -> list[dict[str, Any]]:
    if not isinstance(server, dict) or not isinstance(server.get("device"), list):
        raise Mistake(f"{place}.device", "there is no such list")
    if not isinstance(server.get("server_id"), str):
        raise Mistake(f"{place}.server_id", "there is none", "give each server a name or its address")
    devices: list[dict[str, Any]] = server["device"]
    if len(devices) != cluster.nproc_per_node:
        what = f"found {len(devices)} devices, but the run has {cluster.nproc_per_node} processes on a node"
        raise Mistake(f"{place}.device", what, "see --nproc-per-node")
    for index, device in enumerate(devices):
        at = f"{place}.device[{index}]"
        if not isinstance(device, dict):
            raise Mistake(at, f"found {device!r}, expected device_id, device_ip and rank_id")
        for key in ("device_id", "rank_id"):
            _number(device, key, f"{at}.{key}")
        if "device_ip" not in device and cluster.nnodes > 1:
            raise Mistake(f"{at}.device_ip", "there is none", "hccn_tool -i DEVICE -ip -g shows it")
        if "device_ip" in device:
            _address(device["device_ip"], f"{at}.device_ip")
    _unique([int(device["device_id"]) for device in devices], place, "device_id")
    return devices


def _number(holder: dict[str, Any], key: str, place: str) -> int:
    found = holder.get(key)
    if not (isinstance(found, str) and found.isdecimal()):
        raise Mistake(place, f"found {found!r}, expected a number in quotes")
    return int(found)


def _address(text: Any, place: str) -> None:
    try:
        ipaddress.ip_address(str(text))
    except ValueError:
        raise Mistake(place, f"found {text!r}, expected an IP address") from None


def _unique(values: list[Any], place: str, key: str) -> None:
    twice = [value for value in values if values.count(value) > 1]
    if twice:
        raise Mistake(place, f"{key} {twice[0]} stands there {values.count(twice[0])} times")


def _short(values: list[int]) -> str:
    return f"{values[:16]}{'...' if len(values) > 16 else ''}"
