"""The configuration of `slow_program`, with the gate as its profile."""

from tests.experiments.slow_program import Slow


def get_config(gate: str = "") -> Slow:
    return Slow(gate=gate)
