"""The progress of a run: lines in a log, a bar on a terminal."""

import io
import re

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

pytestmark = pytest.mark.filterwarnings("ignore")


LOGS = {"tokens_per_second": 1234.5, "mfu": 0.412, "grad_norm": 0.516, "num_tokens": 9.0}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def run_steps(monkeypatch, tmp_path):
    """A function that runs the callback over some steps and returns the standard error."""
    import progress

    def run(stderr, steps, first=0):
        monkeypatch.setattr("sys.stderr", stderr)
        clock = iter(range(10**6))
        monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
        callback = progress.Progress()
        state = TrainerState(global_step=first, max_steps=steps, is_world_process_zero=True)
        args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
        event = (args, state, TrainerControl())
        callback.on_train_begin(*event)
        for step in range(first + 1, steps + 1):
            state.global_step = step
            callback.on_log(*event, logs=LOGS | {"loss": 2.0 / step})
            if step % 10 == 0:
                callback.on_prediction_step(*event)
                callback.on_log(*event, logs={"eval_loss": 1.25})
                callback.on_evaluate(*event)
            callback.on_step_end(*event)
        callback.on_train_end(*event)
        return stderr.getvalue()

    return run


def test_a_log_gets_ten_lines_with_all_figures(run_steps):
    lines = run_steps(io.StringIO(), 40).splitlines()
    assert len(lines) == 10
    pattern = re.compile(
        r"training \d+/40 steps \(\d+ %\), loss \d\.\d{3}, 1,23[45] tokens/s, MFU 41%, \d+\.\d GB, "
        r"(eval loss 1\.250, )?gradient 0\.52, \d+\.\d steps/s, \d+ s left"
    )
    assert all(pattern.fullmatch(line) for line in lines), lines
    assert "eval loss" not in lines[0] and "eval loss 1.250" in lines[-1]
    assert lines[-1].endswith(" 0 s left")


def test_the_time_left_is_that_of_the_remaining_steps(run_steps):
    for line in run_steps(io.StringIO(), 40).splitlines():
        step, rate, left = map(
            float, re.search(r"training (\d+).* ([\d.]+) steps/s, (\d+)", line).groups()
        )
        # The rate is printed with one decimal.
        assert (40 - step) / (rate + 0.05) - 1 <= left <= (40 - step) / (rate - 0.05) + 1


def test_a_resumed_run_counts_only_its_own_steps(run_steps):
    fresh, resumed = (run_steps(io.StringIO(), 40, first).splitlines() for first in (0, 20))
    assert len(resumed) == 5 and resumed[0].startswith("training 24/40")

    def rate(line):
        return float(re.search(r"([\d.]+) steps/s", line)[1])

    assert rate(resumed[-1]) == pytest.approx(rate(fresh[-1]), rel=0.3)


def test_a_terminal_gets_one_bar(run_steps):
    text = run_steps(Terminal(), 40)
    assert "training: 100%" in text and "40/40" in text
    assert "evaluating" in text and "steps/s" not in text


def test_preferences_show_their_margin_and_accuracy():
    from progress import format_figures

    logs = {"eval_loss": 0.5, "eval_rewards/margins": 1.234, "eval_rewards/accuracies": 0.95}
    assert format_figures(logs) == {"eval_loss": "eval loss 0.500 (margin 1.23, accuracy 95%)"}
    base = {"eval_loss": 1.459, "eval_rewards/margins": -3.5e-5, "eval_rewards/accuracies": 0.26}
    assert format_figures(base) == {"eval_loss": "eval loss 1.459"}


def test_a_pass_over_the_rows_prints_four_lines_in_a_log_and_a_bar_on_a_terminal(monkeypatch):
    import progress

    monkeypatch.delenv("RANK", raising=False)
    clock = iter(range(10**6))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    for stderr in (io.StringIO(), Terminal()):
        monkeypatch.setattr("sys.stderr", stderr)
        assert list(progress.track(range(40), "reference")) == list(range(40))
        if isinstance(stderr, Terminal):
            assert "reference:" in stderr.getvalue()
            continue
        lines = stderr.getvalue().splitlines()
        assert lines[0] == "reference 10/40 batches (25 %), 3 s left"
        assert len(lines) == 4 and lines[-1] == "reference 40/40 batches (100 %), 0 s left"
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert list(progress.track(range(40), "reference")) == list(range(40))
    import sys

    assert sys.stderr.getvalue() == ""
