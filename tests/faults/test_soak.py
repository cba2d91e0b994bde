"""A round of benchmarks/soak.py: kills, signals, stops, full disks at random instants change no bit of a run."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

SEED = 1  # of a round with many kinds of events
SOAK = Path(__file__).resolve().parents[2] / "benchmarks" / "soak.py"


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
def test_a_round_of_faults_at_random_instants_changes_no_bit() -> None:
    spec = importlib.util.spec_from_file_location("soak", SOAK)
    assert spec is not None and spec.loader is not None
    soak = importlib.util.module_from_spec(spec)
    sys.modules["soak"] = soak
    spec.loader.exec_module(soak)
    rounds, events = soak.soak(minutes=0, seed=SEED, steps=60)
    # The instants are random: a fast machine may have ended before the second fault.
    assert rounds == 1 and sum(events.values()) >= 1
