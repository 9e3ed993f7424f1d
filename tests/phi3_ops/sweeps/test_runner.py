"""The cells run as batches: answered lines are asked once, whatever stopped the sweep."""

from __future__ import annotations

import os
import subprocess

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.runs.batch import Batch, BatchInterrupted
from phi3_ops.sweeps import runner as runner_module
from phi3_ops.sweeps.config import load_sweep
from phi3_ops.sweeps.plan import make_plan
from phi3_ops.sweeps.runner import SweepRunner
from processes import BIN
from sweep_files import HANG_S

SIZE_FLOW = """
inputs: {answer: {type: string}}
outputs: {size: {type: int, reference: '${size.output}'}}
nodes:
- {name: size, type: python, source: {type: code, path: size.py}, inputs: {answer: '${inputs.answer}'}}
"""
SIZE_TOOL = (
    "from phi3_tools.flow import tool\n\n@tool\ndef size(answer: str):\n    return len(answer)\n"
)


@pytest.fixture
def run_sweep(tmp_path, monkeypatch):
    """Return a function that runs the sweep of a file, and returns the runs of its cells."""

    monkeypatch.chdir(tmp_path)  # for .phi3

    def run(file, **options):
        staging = tmp_path / "staging"
        staging.mkdir(exist_ok=True)
        plan = make_plan(load_sweep(file), staging)
        command = f"phi3 sweep {file}"
        options = {"in_flight": 4, **options}
        return SweepRunner(plan, tmp_path / "kept", command=command, **options).run()

    return run


def names(cell_runs):
    return [(each.run, each.evaluations) for each in cell_runs]


def test_a_second_start_asks_nothing(server, write_sweep, run_sweep):
    file = write_sweep()
    first = run_sweep(file)
    assert len(server.answered) == len(set(server.answered)) == 24
    assert [each.cell.label for each in first] == ["plain, cells", "good, cells"]
    scores = [[row["exact_match"] for row in each.scored.scored.rows.values()] for each in first]
    assert [sum(column) for column in scores] == [4, 12]
    assert {line.completion_tokens for line in first[0].usage.values()} == {5}
    assert names(run_sweep(file)) == names(first)
    assert len(server.answered) == 24


def test_another_prompt_runs_its_own_cell_only(server, write_sweep, run_sweep):
    first = run_sweep(write_sweep())
    prompts = {"plain": None, "good": {"inputs": {"answer.system_prompt": "8"}}}
    changed = run_sweep(write_sweep(prompts=prompts))
    assert len(server.answered) == 36 and {system for system, _ in server.answered[24:]} == {"8"}
    assert names(changed)[0] == names(first)[0] and names(changed)[1] != names(first)[1]


def test_other_data_runs_every_cell(server, write_sweep, run_sweep):
    run_sweep(write_sweep())
    run_sweep(write_sweep(questions=range(3)))
    assert len(server.answered) == 24 + 6


def test_a_cell_that_stops_keeps_its_answers(server, write_sweep, run_sweep):
    file = write_sweep(questions=range(30))
    server.denied_after = 35
    expected = (
        r"cell B \(good, cells\): stopped after 10 equal failures: .* phi3 sweep .* goes on with"
    )
    with pytest.raises(OpsError, match=expected):
        run_sweep(file)
    server.denied_after = None
    again = run_sweep(file)
    assert len(server.answered) == len(set(server.answered)) == 60
    assert [len(each.scored.scored.rows) for each in again] == [30, 30]


def test_a_small_cell_that_was_refused_is_asked_again(server, write_sweep, run_sweep):
    file = write_sweep(questions=range(3))
    server.denied_after = 0
    expected = r"cell A \(plain, cells\): no line was answered: Authent.*401.* 3 failed. "
    for _ in range(2):
        with pytest.raises(OpsError, match=expected + "phi3 sweep .* goes on") as refused:
            run_sweep(file)
        assert "phi3 run" not in str(refused.value)
    server.denied_after = None
    assert len(run_sweep(file)) == 2 and len(server.answered) == 6


def test_a_killed_sweep_goes_on(server, write_sweep, run_sweep, tmp_path):
    file = write_sweep()
    server.held_after = 5
    words = [BIN / "phi3", "sweep", file, "--in-flight", "1", "--out", tmp_path / "kept"]
    with open(tmp_path / "child.log", "wb") as log:
        child = subprocess.Popen(words, cwd=tmp_path, env=dict(os.environ), stdout=log, stderr=log)
    try:
        assert server.held.wait(HANG_S), (tmp_path / "child.log").read_text()
    finally:
        child.kill()
        child.wait()
    server.release.set()
    server.held_after = None
    runs = run_sweep(file)
    assert len(server.answered) == len(set(server.answered)) == 24
    assert [len(each.scored.scored.rows) for each in runs] == [12, 12]


def test_failed_lines_are_asked_again_only_on_request(server, write_sweep, run_sweep):
    file = write_sweep(questions=["0", "fail", "1"])
    first = run_sweep(file)
    assert names(run_sweep(file)) == names(first)
    again = run_sweep(file, retry_failed=True)
    assert len(server.answered) == 4  # `fail` is never answered, and the others are asked once
    assert [each.run for each in again] != [each.run for each in first]
    assert set(again[0].scored.errors) == {1} and set(again[0].usage) == {0, 2}


def test_a_cell_without_any_answer_is_still_a_cell(server, write_sweep, run_sweep):
    prompts = {"plain": None, "broken": {"inputs": {"answer.system_prompt": "fail"}}}
    _, broken = run_sweep(write_sweep(prompts=prompts))
    assert broken.evaluations == [] and broken.usage == {}
    assert not broken.scored.scored.rows and len(broken.scored.errors) == 12


def test_several_evaluations_score_the_same_answers(server, write_sweep, run_sweep, tmp_path):
    flow = tmp_path / "size"
    flow.mkdir()
    (flow / "flow.dag.yaml").write_text(SIZE_FLOW)
    (flow / "size.py").write_text(SIZE_TOOL)
    file = write_sweep(
        evaluate=[{"flow": "eval"}, {"flow": "size"}], metrics=["exact_match", "size"]
    )
    first, _ = run_sweep(file)
    assert len(first.evaluations) == 2
    row = first.scored.scored.rows[0]
    assert (row["exact_match"], row["size"]) == (1, 5)


def test_a_ctrl_c_says_how_to_go_on(server, write_sweep, run_sweep, monkeypatch):
    def interrupted(*args, **options):
        raise BatchInterrupted(Batch("name", {0: {}}, lines=12, not_asked=11))

    monkeypatch.setattr(runner_module, "continue_flow", interrupted)
    expected = (
        r"interrupted in cell A \(plain, cells\): 1 answered, 11 not asked; go on with: phi3 sweep"
    )
    with pytest.raises(KeyboardInterrupt, match=expected):
        run_sweep(write_sweep())


def test_two_processes_do_not_run_the_same_sweep(server, write_sweep, run_sweep, tmp_path):
    file = write_sweep()
    with (
        runner_module._lock(tmp_path / ".phi3" / "sweeps" / load_sweep(file).name),
        pytest.raises(OpsError, match="another process runs the sweep in .*trial-.*. Wait for it."),
    ):
        run_sweep(file)  # its results go to another folder
    assert server.answered == []
