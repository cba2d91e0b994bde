"""Communication beside a step: its hidden share, and the efficiency of ranks."""

from core.measure.communication import Communication


def test_communication_beyond_the_longer_step_is_hidden() -> None:
    assert Communication(2, alone=1.0, together=1.1, collectives=0.4).hidden == 1 - 0.1000000000000000888 / 0.4
    assert Communication(2, alone=1.0, together=0.9, collectives=0.4).hidden == 1
    assert Communication(2, alone=1.0, together=2.0, collectives=0.4).hidden == 0
    assert Communication(2, alone=1.0, together=2.0, collectives=0.4).efficiency == 0.5
