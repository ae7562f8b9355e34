"""The Ascend platforms' checks read what the vendor's tools print: outputs shortened, after public ones."""

from __future__ import annotations

import re

import pytest
from packaging.version import Version

from common import platform

SMI = """\
+------------------------------------------------------------------------------------------------+
| npu-smi 25.5.0                   Version: 25.5.0                                               |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     910B3               | OK            | 93.5        39                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          3161 / 65536         |
+===========================+===============+====================================================+
"""
OUTPUTS = {
    "driver": SMI,
    "devices are healthy": SMI,
    "CANN": "Version=8.5.0.1.231\nversion_dir=8.5.0\n",
    "mindspore": "mindspore 2.7.2\n",
    "msrun": "usage: msrun [-h] [--worker_num WORKER_NUM]\n",
}


@pytest.mark.parametrize("identifier", ["ascend_800t_a2", "ascend_32gb"])
def test_each_check_finds_its_value(identifier: str) -> None:
    checks = platform.read(identifier).checks
    assert [check.name for check in checks] == list(OUTPUTS)
    for check in checks:
        match = re.search(check.pattern, OUTPUTS[check.name], re.MULTILINE)
        assert match is not None, check.name
        if check.min is not None:
            assert Version(check.min) <= Version(match[1]) <= Version(check.max or match[1])


@pytest.mark.parametrize(("name", "output"), [("CANN", "Version=8.3.0.1.200\n"), ("mindspore", "mindspore 2.7.1\n")])
def test_a_version_that_does_not_fit_is_outside_the_bounds(name: str, output: str) -> None:
    check = next(each for each in platform.read("ascend_800t_a2").checks if each.name == name)
    match = re.search(check.pattern, output, re.MULTILINE)
    assert match is not None and check.min is not None and Version(match[1]) < Version(check.min)


def test_an_unhealthy_device_is_not_passed_over() -> None:
    check = next(each for each in platform.read("ascend_800t_a2").checks if each.name == "devices are healthy")
    assert re.search(check.pattern, SMI.replace("OK ", "Alarm "), re.MULTILINE) is None


def test_devices_are_found_by_their_memory() -> None:
    detect = platform.read("ascend_800t_a2").detect
    assert detect is not None
    found = [int(match["mib"]) for match in re.finditer(detect.pattern, SMI, re.MULTILINE)]
    assert found == [65536] and detect.min_mib <= found[0] <= detect.max_mib
