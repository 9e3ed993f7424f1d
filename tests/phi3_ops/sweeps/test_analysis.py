"""A winner is named only if it is certain, and every failed line counts."""

from __future__ import annotations

import pytest

from phi3_ops.comparison.paired_stats import sign_test
from phi3_ops.sweeps import analysis
from phi3_ops.sweeps.results import BETTER, UNCLEAR, WORSE
from sweep_results import FAILED, PRICE, sweep_result

BAD, GOOD = [0.0] * 30, [1.0] * 30
HALF = [0.0, 1.0] * 15


def test_a_cell_that_is_better_than_all_others_wins(tmp_path):
    result = sweep_result(tmp_path, HALF, GOOD, BAD)
    assert result.decision.winner == result.decision.best == "B"
    assert result.decision.comparisons == 3
    assert result.decision.reason == (
        "Winner: B has the highest score (1), and is better than every other cell after correction for "
        "3 comparisons."
    )
    assert {each.cell: each.verdict for each in result.differences} == {"B": BETTER, "C": WORSE}


def test_without_certainty_there_is_no_winner(tmp_path):
    almost = [0.0, *GOOD[1:]]
    result = sweep_result(tmp_path, BAD, GOOD, almost, HALF)
    assert result.decision.winner is None and result.decision.best == "B"
    assert result.decision.reason == (
        "No winner: B has the highest score (1), but the corrected interval of its difference from C "
        "does not show that it is better."
    )


def test_equal_cells(tmp_path):
    result = sweep_result(tmp_path, HALF, HALF, HALF)
    assert result.decision.reason.startswith("No winner: A has the highest score (0.5), ")
    assert "intervals of its differences from B and C do not" in result.decision.reason
    assert {each.verdict for each in result.differences} == {UNCLEAR}


def test_no_interval_is_computed_for_the_winner_if_the_test_says_unclear(tmp_path, monkeypatch):
    intervals = []
    interval = analysis._Pair.interval
    monkeypatch.setattr(
        analysis._Pair, "interval", lambda *args: intervals.append(args) or interval(*args)
    )
    result = sweep_result(tmp_path, HALF, HALF, HALF)
    assert len(intervals) == len(result.differences) == 2
    intervals.clear()
    sweep_result(tmp_path, HALF, GOOD, BAD)
    assert len(intervals) == 2 + 2


def test_a_lower_score_can_be_better(tmp_path):
    result = sweep_result(tmp_path, GOOD, BAD, higher_is_better=False)
    assert result.decision.reason.startswith("Winner: B has the lowest score (0), ")
    assert result.differences[0].verdict == BETTER
    assert result.differences[0].difference == -1


def test_two_lines_are_not_enough_for_a_winner(tmp_path):
    # The bootstrap knows only differences of 1, so its interval has no width.
    result = sweep_result(tmp_path, [0.0, 0.0], [1.0, 1.0])
    (difference,) = result.differences
    assert difference.corrected_low == 1 and difference.corrected_p_value == 0.5
    assert result.decision.winner is None and difference.verdict == UNCLEAR


def test_the_correction_can_take_a_difference_away(tmp_path):
    better = [1.0] * 7 + [0.0] * 23  # wins 7 lines, loses none: p = 0.016
    alone = sweep_result(tmp_path, BAD, better)
    assert alone.differences[0].corrected_p_value == sign_test(7, 0)
    assert alone.differences[0].verdict == BETTER
    among = sweep_result(tmp_path, BAD, better, BAD, BAD, BAD)
    assert among.differences[0].p_value == sign_test(7, 0)
    assert among.differences[0].corrected_p_value == pytest.approx(4 * sign_test(7, 0))
    assert among.differences[0].verdict == UNCLEAR
    assert among.differences[0].corrected_low <= among.differences[0].low


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ([FAILED] * 30, "No winner: 30 of 30 lines of B failed; 5% is accepted."),
        ([FAILED] * 2 + [0.0] * 28, "No winner: 2 of 30 lines of B failed; 5% is accepted."),
        ([None] * 3 + [0.0] * 27, "No winner: 3 of 30 lines of B have no score; 5% is accepted."),
    ],
)
def test_a_cell_with_too_many_missing_lines_prevents_a_winner(tmp_path, column, reason):
    result = sweep_result(tmp_path, GOOD, column)
    assert result.decision.reason == reason
    assert result.decision.best == "A"


def test_failed_lines_count_as_the_worst_score(tmp_path):
    result = sweep_result(tmp_path, GOOD, [FAILED, None, *GOOD[2:]])
    cell = result.cells[1]
    assert (cell.answered, cell.failed) == (29, 1)
    assert cell.scores["score"].n == 29 and cell.scores["score"].unscored == 1
    assert cell.scores["score"].mean == pytest.approx(28 / 29)
    assert len([*result.cells]) == 2 and result.failed == 1


def test_latency_tokens_and_cost(tmp_path):
    result = sweep_result(
        tmp_path, GOOD, HALF, connections=["c"], prices={"c": PRICE}, currency="EUR"
    )
    first, second = result.cells
    assert first.latency_p50 == pytest.approx(1.145) and second.latency_p50 == pytest.approx(2.145)
    assert first.latency_p95 == pytest.approx(1.2755)
    assert (first.prompt_tokens, first.completion_tokens, first.tokens) == (300, 150, 450)
    assert first.cost == pytest.approx(0.06)
    assert result.pareto == {"cost": ["A"], "latency": ["A"]}
    assert "cost" not in sweep_result(tmp_path, GOOD, HALF).pareto  # without prices


def test_the_same_seed_gives_the_same_result(tmp_path):
    assert sweep_result(tmp_path, HALF, GOOD) == sweep_result(tmp_path, HALF, GOOD)
