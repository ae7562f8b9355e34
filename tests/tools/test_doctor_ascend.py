"""The doctor on an Ascend machine: what the vendor's commands print and its files hold, shortened after public ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common import hardware, plan, recipe
from common.errors import UserError
from common.recipe import Versions
from common.request import Request
from common.weights import tiny
from tools.doctor import machine, versions
from tools.doctor.examine import examine
from tools.doctor.line import Line

RECIPE = recipe.ROOT / "recipes" / "mindformers_ascend"
HEAD = """\
+------------------------------------------------------------------------------------------------+
| npu-smi {driver}                   Version: {driver}                                               |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
"""
DEVICE = """\
| {number}     910B3               | {health:<13} | 93.5        39                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          3161 / {memory}         |
+===========================+===============+====================================================+
"""
PROCESSES = """\
| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |
+===========================+===============+====================================================+
| 0       0                 | 2113          | python                   | 3012                    |
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    tiny.make(folder)
    return folder


Host = Callable[..., dict[str, Line]]


@pytest.fixture
def host(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A machine with eight NPUs, and what the doctor says of it: every value can be given otherwise."""
    commands, cann = tmp_path / "bin", tmp_path / "cann"
    commands.mkdir()
    (cann / "compiler").mkdir(parents=True)
    (cann / "set_env.sh").touch()
    monkeypatch.setenv("PATH", str(commands), prepend=":")
    monkeypatch.setenv("ASCEND_HOME_PATH", str(cann))
    for name in ("RANK_TABLE_FILE", "MINDSPORE_HCCL_CONFIG_PATH"):
        monkeypatch.delenv(name, raising=False)

    def put(name: str, prints: str) -> None:
        (commands / f"{name}.txt").write_text(prints)
        (commands / name).write_text(f"#!/bin/sh\ncat '{commands / name}.txt'\n")
        (commands / name).chmod(0o755)

    def look(
        driver: str = "25.5.0",
        cann_version: str | None = "8.5.0.1.231",
        mindspore: str = "2.7.2",
        health: tuple[str, ...] = ("OK",) * 8,
        memory: int = 65536,
        nnodes: int = 1,
        rank_table: object = None,
        on: Path = model,
    ) -> dict[str, Line]:
        rows = [DEVICE.format(number=number, health=each, memory=memory) for number, each in enumerate(health)]
        put("npu-smi", HEAD.format(driver=driver) + "".join(rows) + PROCESSES)
        put("msrun", "usage: msrun [-h] [--worker_num WORKER_NUM]\n")
        put("python3", f"mindspore {mindspore}\n")
        if cann_version is not None:
            info = f"Version={cann_version}\nversion_dir=8.5.0\n"
            (cann / "compiler" / "version.info").write_text(info)
        if rank_table is not None:
            file = tmp_path / "rank_table.json"
            file.write_text(rank_table if isinstance(rank_table, str) else json.dumps(rank_table))
            monkeypatch.setenv("RANK_TABLE_FILE", str(file))
        hardware.devices.cache_clear()
        asked = Request(
            RECIPE,
            preset="full",
            platform="ascend_800t_a2",
            model=str(on),
            data=str(RECIPE / "samples" / "train.json"),
            output=tmp_path / "run",
            nnodes=nnodes,
            master_addr="127.0.0.1",
        )
        return {line.name: line for line in examine(asked)}

    yield look
    hardware.devices.cache_clear()


def test_a_machine_as_the_table_has_it_passes(host: Host, tmp_path: Path) -> None:
    lines = host()
    for name in ("devices", "setup script", "driver", "devices are healthy", "CANN", "mindspore", "msrun",
                 "rank table", "memory of a device", "ids of bos, eos, pad"):  # fmt: skip
        assert lines[name].state == "pass", lines[name]
    assert lines["setup script"].found == str(tmp_path / "cann" / "set_env.sh")
    assert lines["CANN"].found == "8.5" and lines["mindspore"].found == "2.7.2" and lines["devices"].found[0] == "8"
    assert "msrun needs none" in lines["rank table"].found


@pytest.mark.parametrize(
    ("name", "other", "state", "said"),
    [
        (
            "CANN",
            {"cann_version": "8.3.0.1.200"},
            "fail",
            "8.3, but mindformers 1.8.0 and mindspore 2.7.2 go with 8.5.0",
        ),
        ("CANN", {"cann_version": "8.3.0.1.200"}, "fail", "8.3 goes with mindformers 1.7.0 and mindspore 2.7.1"),
        ("CANN", {"cann_version": "9.0.0.1.1"}, "warn", "9.0, but"),
        ("CANN", {"cann_version": None}, "fail", "version.info"),
        ("driver", {"driver": "25.2.0"}, "fail", "25.2, but"),
        ("driver", {"driver": "26.0.rc1"}, "warn", "26.0, but"),
        ("mindspore", {"mindspore": "2.7.1"}, "fail", "2.7.1, but mindformers 1.8.0 go"),
        ("mindspore", {"mindspore": "2.9.0"}, "fail", "2.9.0, but"),
        ("devices are healthy", {"health": ("OK",) * 7 + ("Alarm",)}, "fail", "npu-smi info"),
        ("devices", {"memory": 32768}, "fail", "0 of ascend_800t_a2"),
        ("devices", {"health": ("OK",) * 4}, "fail", "4 of ascend_800t_a2, needs 8"),
    ],
)
def test_what_does_not_belong_together_is_told(
    host: Host, name: str, other: dict[str, Any], state: str, said: str
) -> None:
    line = host(**other)[name]
    assert line.state == state and said in line.found and line.to_do, line


def test_commands_that_are_not_there_fail(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("ASCEND_HOME_PATH", str(tmp_path / "nothing"))
    spec = plan.environment_spec(RECIPE, recipe.read(RECIPE)[0], "ascend_800t_a2")
    lines = list(machine.drivers("ascend_800t_a2", recipe.read(RECIPE)[0].versions, spec))
    assert {line.state for line in lines} == {"fail"} and all(line.to_do for line in lines)
    to_do = {line.name: line.to_do for line in lines}
    assert "8.5.0 (MindFormers" in to_do["CANN"] and "25.5.0 (" in to_do["driver"] and "2.7.2 (" in to_do["mindspore"]


@pytest.mark.parametrize("folder", [each for each in recipe.folders() if recipe.read(each)[0].versions])
def test_the_pins_of_a_recipe_are_in_its_table(folder: Path) -> None:
    found = recipe.read(folder)[0]
    assert found.versions is not None
    for identifier in found.platforms:
        chosen = versions.together(found.versions, plan.environment_spec(folder, found, identifier))
        assert chosen.chosen == found.versions.sets[0] and "mindspore" in chosen.pinned
        missing = Versions(source="x", sets=[{"mindspore": "1.0"}])
        with pytest.raises(UserError, match="no set with the pinned versions"):
            versions.together(missing, plan.environment_spec(folder, found, identifier))


def table(nodes: int = 1) -> dict[str, Any]:
    """A rank table without mistakes: eight devices on each node."""
    servers = [
        {
            "server_id": f"10.0.0.{node + 1}",
            "device": [
                {"device_id": str(n), "device_ip": f"192.168.{node}.{n + 1}", "rank_id": str(8 * node + n)}
                for n in range(8)
            ],
        }
        for node in range(nodes)
    ]
    return {"version": "1.0", "server_count": str(nodes), "server_list": servers, "status": "completed"}


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_rank_table_without_mistakes_passes(host: Host, nodes: int) -> None:
    line = host(nnodes=nodes, rank_table=table(nodes))["rank table"]
    assert line.state == "pass" and f"{8 * nodes} devices of {nodes} node" in line.found


def changed(path: list[str | int], value: object) -> dict[str, Any]:
    """The table of two nodes with another value at `path`; None takes the key out."""
    made: Any = table(2)
    holder = made
    for part in path[:-1]:
        holder = holder[part]
    if value is None:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return dict(made)


FIRST: list[str | int] = ["server_list", 0, "device", 1]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ('{\n"status": "completed", // HCCL\n}', "rank_table.json:2: not JSON"),
        ("[]", "server_list: there is no such list"),
        (table(1), "server_count: found 1, but the run has 2 nodes"),
        (changed(["server_count"], "3"), "server_count: found 3, but server_list has 2"),
        (changed(["server_count"], 2), "server_count: found 2, expected a number in quotes"),
        (changed(["status"], "initializing"), "status: found 'initializing'"),
        (changed([*FIRST, "device_id"], "0"), "server_list[0]: device_id 0 stands there 2 times"),
        (changed([*FIRST, "device_ip"], None), "server_list[0].device[1].device_ip: there is none"),
        (changed([*FIRST, "device_ip"], "192.168.0"), "server_list[0].device[1].device_ip: found '192.168.0'"),
        (changed([*FIRST, "device_ip"], "192.168.1.1"), "device_ip 192.168.1.1 stands there 2 times"),
        (changed([*FIRST, "rank_id"], "0"), "rank_id: found [0, 0, 2,"),
        (changed([*FIRST, "rank_id"], None), "server_list[0].device[1].rank_id: found None"),
        (changed(["server_list", 1, "server_id"], "10.0.0.1"), "server_id 10.0.0.1 stands there 2 times"),
        (changed(["server_list", 1, "device"], []), "server_list[1].device: found 0 devices, but the run has 8"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_rank_table_is_told_with_its_place(host: Host, wrong: object, said: str) -> None:
    line = host(nnodes=2, rank_table=wrong)["rank table"]
    assert line.state == "fail" and said in line.found and "unset the variable" in line.to_do, line


def test_a_rank_table_that_is_not_there_fails(host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RANK_TABLE_FILE", str(tmp_path / "none.json"))
    line = host()["rank table"]
    assert line.state == "fail" and "none.json" in line.found and "RANK_TABLE_FILE names it" in line.found


@pytest.mark.parametrize(
    ("file", "values", "said"),
    [
        ("config.json", {"eos_token_id": 7}, "eos_token_id"),
        ("config.json", {"bos_token_id": 1025}, "bos_token_id"),
        ("config.json", {"pad_token_id": 1025}, "the pad token is an end token"),
        ("generation_config.json", {"eos_token_id": 1033}, "generation does not stop"),
    ],
)
def test_ids_that_do_not_agree_fail_with_their_file(
    host: Host, tmp_path: Path, file: str, values: dict[str, int], said: str
) -> None:
    tiny.make(tmp_path / "model")
    stated = json.loads((tmp_path / "model" / file).read_text())
    (tmp_path / "model" / file).write_text(json.dumps({**stated, **values}))
    line = host(on=tmp_path / "model")["ids of bos, eos, pad"]
    assert line.state == "fail" and said in line.found and file in line.found and line.to_do, line
