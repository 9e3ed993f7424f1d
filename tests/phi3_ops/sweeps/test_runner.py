"""The cells run as batches: answered lines are asked once, whatever stopped the sweep."""

from __future__ import annotations

import pytest

from phi3_ops.sweeps.config import load_sweep
from phi3_ops.sweeps.plan import make_plan
from phi3_ops.sweeps.runner import SweepRunner


@pytest.fixture
def run_sweep(tmp_path):
    """Return a function that runs the sweep of a file, and returns the runs of its cells."""

    def run(file, **options):
        staging = tmp_path / "staging"
        staging.mkdir(exist_ok=True)
        plan = make_plan(load_sweep(file), staging)
        runner = SweepRunner(
            plan, tmp_path / "kept", command="phi3 sweep X", in_flight=4, **options
        )
        return runner.run()

    return run


def test_a_second_start_asks_nothing(server, write_sweep, run_sweep):
    file = write_sweep()
    first = run_sweep(file)
    assert len(server.requests) == 24
    assert [cell.cell.label for cell in first] == ["plain, cells", "good, cells"]
    again = run_sweep(file)
    assert len(server.requests) == 24
    assert [(cell.run, cell.evaluations) for cell in again] == [
        (cell.run, cell.evaluations) for cell in first
    ]
