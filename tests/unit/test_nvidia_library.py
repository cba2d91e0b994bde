"""Libraries of NVIDIA's that a plugin calls: absent, without a function, and complete."""

from __future__ import annotations

import ctypes
import sys
from types import SimpleNamespace

import pytest

from core.kernels.nvidia_library import open_nvidia_library


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuda.pathfinder as it answers where the library is the C library of this process."""
    found = SimpleNamespace(load_nvidia_dynamic_lib=lambda name: SimpleNamespace(abs_path=None))
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", found)


def test_a_library_that_is_not_installed_is_absent_with_the_command_that_installs_it() -> None:
    assert open_nvidia_library("no_such", "NoSuch", {}, "pip install it") == (
        None,
        "NoSuch is not installed: pip install it",
    )


def test_a_library_without_a_function_is_absent_with_its_name(installed: None) -> None:
    library, why = open_nvidia_library("c", "C", {"abs": [ctypes.c_int], "no_such_call": []}, "pip install it")
    assert library is None and why.startswith("this version of C lacks a function") and "no_such_call" in why


def test_functions_check_the_types_of_their_arguments(installed: None) -> None:
    library, why = open_nvidia_library("c", "C", {"abs": [ctypes.c_int]}, "pip install it")
    assert library is not None and not why and library.abs(-3) == 3
    with pytest.raises(ctypes.ArgumentError):
        library.abs("three")
