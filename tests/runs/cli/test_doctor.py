"""`core doctor`: packages, the driver, the cache."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_lists import ROOT, listed

from core.cli import doctor


def test_doctor_exits_with_0_and_both_forms_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    text = listed(capsys, "doctor")
    for entry in json.loads(listed(capsys, "doctor", "--json")):
        assert entry["what"] in text and entry["found"] in text and entry["verdict"] in ("ok", "note", "problem")
        assert entry["verdict"] != "problem" or entry["advice"]


def test_doctor_names_the_packages_that_pyproject_depends_on() -> None:
    import tomli

    with open(ROOT / "pyproject.toml", "rb") as file:
        wanted = tomli.load(file)["project"]["dependencies"]
    names = {text.split(">=")[0].split("[")[0].strip() for text in wanted}
    assert names == {*doctor.EVERYWHERE, *doctor.NOT_ON_MACOS}
    assert {t.split(">=")[0] for t in wanted if "darwin" in t} == set(doctor.NOT_ON_MACOS)


class FakeDriver:
    """libcuda's answers, for machines without one."""

    def __init__(self, number: int, start: int = 0) -> None:
        self.number, self.start = number, start

    def cuInit(self, flags: int) -> int:
        return self.start

    def cuDriverGetVersion(self, out: object) -> int:
        out._obj.value = self.number
        return 0

    def cuDeviceGetCount(self, out: object) -> int:
        out._obj.value = 1
        return 0

    def cuDeviceGetName(self, out: object, size: int, index: int) -> int:
        out.value = b"A GPU"
        return 0

    def cuDeviceTotalMem_v2(self, out: object, index: int) -> int:
        out._obj.value = 80 * 2**30
        return 0

    def cuDeviceGetAttribute(self, out: object, key: int, index: int) -> int:
        out._obj.value = {75: 9, 76: 0}[key]
        return 0


@pytest.mark.parametrize(
    ("library", "expected"),
    [
        (None, [("gpu", "note", "no NVIDIA driver")]),
        (FakeDriver(13_000, start=100), [("gpu", "problem", "does not start")]),
        (FakeDriver(12_080), [("driver", "problem", "CUDA 12.8"), ("gpu 0", "ok", "A GPU, sm_90, 80.0 GiB")]),
        (FakeDriver(13_010), [("driver", "ok", "CUDA 13.1"), ("gpu 0", "ok", "A GPU, sm_90, 80.0 GiB")]),
    ],
)
def test_doctor_tells_no_driver_from_a_dead_or_an_old_one(
    monkeypatch: pytest.MonkeyPatch, library: object, expected: list[tuple[str, str, str]]
) -> None:
    monkeypatch.setattr(doctor, "driver_library", lambda: library)
    found = list(doctor.driver())
    assert [(f.what, f.verdict) for f in found] == [(what, verdict) for what, verdict, _ in expected]
    for finding, (_, _, words) in zip(found, expected, strict=True):
        assert words in finding.found
        assert finding.verdict != "problem" or finding.advice


def test_doctor_says_when_the_cache_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setenv("CORELM_CACHE", str(tmp_path / "none"))
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    (finding,) = doctor.cache()
    assert finding.verdict == "problem" and "Permission denied" in finding.found
