"""The coordinates of the plot: better is higher up, more expensive is further right."""

from __future__ import annotations

import pytest

from phi3_ops.sweeps.plot import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, _round_step, make_plots
from sweep_results import FAILED, PRICE, sweep_result


def test_points_are_in_the_frame_and_in_order(tmp_path):
    columns = [0.0] * 20, [0.0, 1.0] * 10, [1.0] * 20
    result = sweep_result(tmp_path, *columns, connections=["c"], prices={"c": PRICE})
    cost, latency = make_plots(result)
    assert [cost.title, latency.title] == ["score against cost", "score against latency"]
    assert [point.cell.letter for point in latency.points] == ["A", "B", "C"]
    assert [point.is_on_front for point in latency.points] == [True, True, True]
    xs, ys = [p.x for p in latency.points], [p.y for p in latency.points]
    assert xs == sorted(xs) and ys == sorted(ys, reverse=True)
    assert latency.front == " ".join(f"{x},{y}" for x, y in zip(xs, ys))
    for plot in (cost, latency):
        for point in plot.points:
            assert LEFT <= point.x <= WIDTH - RIGHT
            assert TOP <= point.high <= point.y <= point.low <= HEIGHT - BOTTOM
        assert 2 <= len(plot.x_ticks) <= 7 and 2 <= len(plot.y_ticks) <= 7


def test_a_cell_without_an_answer_is_left_out_of_the_latencies(tmp_path):
    (plot,) = make_plots(sweep_result(tmp_path, [1.0] * 5, [FAILED] * 5))
    assert [point.cell.letter for point in plot.points] == ["A"]


@pytest.mark.parametrize(("step", "rounded"), [(0.3, 0.5), (1, 1), (1.1, 2), (6, 10), (0.02, 0.02)])
def test_steps_are_round(step, rounded):
    assert _round_step(step) == pytest.approx(rounded)
