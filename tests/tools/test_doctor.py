"""tools doctor: a line for each thing, what to do about it, and the exit status."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from common import golden, platform
from common.environment import Spec
from common.environment_source import Source
from common.platform import Check
from common.recipe import Memory
from common.request import Request
from common.weights import tiny
from tools.__main__ import app
from tools.doctor import machine
from tools.doctor.examine import examine
from tools.doctor.line import Line, at_least

RECIPE = golden.environment.ROOT / "recipes" / "fsdp_qlora_70b"


def by_name(request: Request) -> dict[str, Line]:
    return {line.name: line for line in examine(request)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    tiny.make(folder)
    return folder


def edited(model: Path, name: str, **values: object) -> None:
    file = model / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_smoke_has_no_fail_and_writes_nothing(tmp_path: Path) -> None:
    lines = by_name(Request(RECIPE, output=tmp_path / "run"))
    assert {"platform", "devices", "weights", "data.train", "data.eval", "template"} <= lines.keys()
    assert [line for line in lines.values() if line.state == "fail"] == []
    assert list(tmp_path.iterdir()) == []


def test_full_with_nothing_given_names_what_is_missing() -> None:
    ran = CliRunner().invoke(app, ["doctor", "fsdp_qlora_70b", "--preset", "full", "--json"], standalone_mode=False)
    lines = {line["name"]: line for line in json.loads(ran.stdout)}
    assert ran.return_value == 1
    said = lines["what is given"]
    assert said["state"] == "fail" and "--model" in said["found"] and "--data" in said["found"]
    assert all(line["to_do"] for line in lines.values() if line["state"] == "fail")


def test_weights_and_ids_are_read(model: Path, tmp_path: Path) -> None:
    lines = by_name(Request(RECIPE, model=str(model), output=tmp_path / "run"))
    assert lines["weights"].state == lines["ids of bos, eos, pad"].state == lines["tokenizer"].state == "pass"


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("config.json", {"eos_token_id": 7}),
        ("config.json", {"bos_token_id": 1025}),
        ("config.json", {"pad_token_id": 1025}),
        ("generation_config.json", {"eos_token_id": 1033}),
    ],
)
def test_ids_that_do_not_agree_fail(tmp_path: Path, file: str, values: dict[str, int]) -> None:
    tiny.make(tmp_path / "model")
    edited(tmp_path / "model", file, **values)
    lines = by_name(Request(RECIPE, model=str(tmp_path / "model"), output=tmp_path / "run"))
    assert lines["ids of bos, eos, pad"].state == "fail" and lines["ids of bos, eos, pad"].to_do


def test_a_truncated_shard_and_broken_data_fail(tmp_path: Path) -> None:
    tiny.make(tmp_path / "model")
    shard = next((tmp_path / "model").glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-100])
    (tmp_path / "data.jsonl").write_text('{"messages": 1\n')
    asked = Request(RECIPE, model=str(tmp_path / "model"), data=str(tmp_path / "data.jsonl"), output=tmp_path / "run")
    lines = by_name(asked)
    assert lines["weights"].state == "fail" and shard.name in lines["weights"].found
    assert lines["data.train"].state == "fail" and "data.jsonl" in lines["data.train"].found


def test_a_chat_template_on_base_weights_fails(model: Path, tmp_path: Path) -> None:
    asked = Request(RECIPE, model=str(model), assignments=("data.template=llama3",), output=tmp_path / "run")
    assert by_name(asked)["template"].state == "fail"


def test_a_port_in_use_fails(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        lines = by_name(Request(RECIPE, nnodes=2, master_port=port, output=tmp_path / "run"))
        assert lines["port"].state == "fail" and str(port) in lines["port"].found
    assert by_name(Request(RECIPE, nnodes=2, master_port=port, output=tmp_path / "run"))["port"].state == "pass"


def check(printed: str, **bounds: str) -> Line:
    command = [sys.executable, "-c", f"print({printed!r})"]
    return machine.driver(Check(name="driver", command=command, pattern=r"v(\S+)", hint="install it", **bounds))


def test_platform_checks_compare_versions_not_text() -> None:
    assert check("v580.1", min="58.9").state == "pass"
    assert check("v9.1", min="10").state == "fail" and "at least 10" in check("v9.1", min="10").found
    assert check("v10.1", max="9").state == "fail"
    assert check("nothing").state == "fail" and check("nothing").to_do == "install it"
    assert check("vX", min="1").state == "warn"
    absent = Check(name="driver", command=["no-such-tool"], pattern="x", hint="install it")
    assert machine.driver(absent).state == "fail"


def test_a_need_that_is_measured_fails_and_a_claim_warns() -> None:
    needed = Memory(device_gib=1, host_gib=10**6, measured=True, source="us")
    host = [line for line in machine.memory("cpu", needed) if line.name.startswith("host")]
    assert [line.state for line in host] == ["fail"]
    host = list(machine.memory("cpu", needed.model_copy(update={"measured": False})))
    assert [line.state for line in host] == ["warn"]
    assert at_least("x", 2, 2, "GiB", "").state == "pass"


def test_versions_that_differ_from_the_pins_are_named(tmp_path: Path) -> None:
    pins = ["torch==2.13.0", "trl==1.16.0", "--no-deps peft==0.1", 'win==1 ; sys_platform == "win32"', "numpy==2.0"]
    installed = {"torch": "2.13.0+cpu", "trl": "1.15.0", "numpy": "2.0"}
    assert list(machine.differing(pins, installed)) == ["trl 1.15.0, pinned ==1.16.0", "no peft"]
    file = tmp_path / "cpu.txt"
    file.write_text("numpy==1.0\n")
    lines = list(machine.interpreter(Spec(file, (3, 0), (3, 1))))
    assert [line.state for line in lines] == ["fail"] and "no Python" in lines[0].found


def test_the_vendors_packages_are_shown_and_those_that_the_pins_need_must_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a BI-V150 host: torch is the vendor's, the other kernels are used where they are."""
    here = sys.version_info[:2]
    vendors = tmp_path / "vendor python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(vendors)], check=True)
    (packages,) = vendors.glob("lib/python3.*/site-packages")
    monkeypatch.setenv("PATH", str(vendors / "bin"))
    monkeypatch.setenv("LLAMA3_RECIPES_ENVS", str(tmp_path / "envs"))
    recipe = RECIPE.parent / "colossalai_bi_v150"
    wheels = platform.read("iluvatar_bi_v150").frameworks["torch"].wheels
    names = tuple(name for name, each in wheels.items() if each.vendor)
    spec = Spec(recipe / "requirements" / "iluvatar.txt", here, here, system_packages=True, vendor=names)
    line = {line.name: line for line in machine.interpreter(spec)}["vendor's packages"]
    assert line.state == "fail" and "no torch" in line.found and "first on PATH" in line.to_do
    for name, version in (("torch", "2.4.1+corex"), ("flash_attn", "2.5.8+corex")):
        (packages / f"{name}-{version}.dist-info").mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (packages / f"{name}-{version}.dist-info" / "METADATA").write_text(metadata)
    line = {line.name: line for line in machine.interpreter(spec)}["vendor's packages"]
    assert line.state == "pass"
    assert line.found == "torch 2.4.1+corex; no apex; no ixformer; flash-attn 2.5.8+corex"
    installed = {pin.split("==")[0] for pin in spec.pins()}
    assert not installed & {"torch", "apex", "ixformer", "flash-attn", "triton"}
    assert not [name for name in installed if name.startswith(("nvidia", "cuda"))]


def test_what_is_on_no_index_and_cannot_be_had_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA3_RECIPES_ENVS", str(tmp_path / "envs"))
    monkeypatch.delenv("MADEUP_SOURCE", raising=False)
    pins = tmp_path / "cpu.txt"
    pins.write_text("numpy==2.0\n")
    source = Source("madeup", f"git+{(tmp_path / 'no-repository').as_uri()}@1.0", "MADEUP_SOURCE")
    spec = Spec(pins, sys.version_info[:2], sys.version_info[:2], sources=(source,))
    line = {line.name: line for line in machine.interpreter(spec)}["madeup"]
    assert line.state == "fail" and "cannot be reached" in line.found and "set MADEUP_SOURCE" in line.to_do
    wheel = tmp_path / "madeup-1.0-py3-none-any.whl"
    wheel.write_bytes(b"x")
    monkeypatch.setenv("MADEUP_SOURCE", str(wheel))
    line = {line.name: line for line in machine.interpreter(spec)}["madeup"]
    assert (line.state, line.found) == ("pass", str(wheel))


def test_a_folder_that_cannot_be_written_and_too_little_disk(tmp_path: Path) -> None:
    assert [line.state for line in machine.disk(tmp_path / "a" / "b", 10**9)] == ["warn"]
    assert [line.state for line in machine.disk(tmp_path / "a" / "b", 0)] == ["pass"]


def test_a_wrong_call_is_status_2() -> None:
    for wrong in (["--preset", "ful"], ["--platform", "cup"], ["--set", "train.sed=1"]):
        with pytest.raises(golden.UserError):
            CliRunner().invoke(app, ["doctor", "fsdp_qlora_70b", *wrong], standalone_mode=False, catch_exceptions=False)
