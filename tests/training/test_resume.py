"""A run that was killed goes on and ends as if it had not been; what goes wrong leaves the last good
checkpoint."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checkpoints import MARKER, Checkpoints, origin
from inputs import TrainError, read_recipe
from small import arguments, metrics, weights, write
from training_run import ROWS, TINY_RECIPE, TRAINING, environment

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to send"),
]
STEPS = 60


def start(line: list[str]) -> subprocess.Popen:
    command = [sys.executable, str(TRAINING / "train.py"), *line]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment())


def finish(line: list[str], code: int = 0) -> str:
    with start(line) as run:
        said = run.communicate(timeout=300)[1]
    assert run.returncode == code, said
    assert "Traceback" not in said
    return said


def stop_at(line: list[str], step: int, number: int) -> tuple[int, str]:
    """Signal the run when it says that it has reached that step, or the next that it speaks of."""
    with start(line) as run:
        assert run.stderr is not None
        for said in run.stderr:
            if said.startswith("training ") and int(said.split()[1].split("/")[0]) >= step:
                break
        run.send_signal(number)
        rest = run.stderr.read()
        return run.wait(timeout=60), rest


@pytest.fixture
def recipe(tmp_path):
    # With dropout the random state matters too.
    return write(tmp_path / "small.yaml", tiny_resid_pdrop=0.1)


def test_a_run_killed_twice_ends_as_an_unbroken_one(rows_file, recipe, tmp_path):
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    finish(arguments(rows_file, unbroken, recipe))
    line = arguments(rows_file, broken, recipe, "--resume")
    where = random.randrange(1, STEPS // 2), random.randrange(STEPS // 2 + 8, STEPS - 8)
    print("stopped at", where)

    code, said = stop_at(line, where[0], signal.SIGTERM)
    assert code == 128 + signal.SIGTERM, said
    assert "--resume to go on" in said.splitlines()[-1] and "Traceback" not in said
    assert not (broken / "model").exists()
    code, said = stop_at(line, where[1], signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert "going on from" in finish(line)

    expected, found = weights(unbroken), weights(broken)
    assert expected.keys() == found.keys()
    assert all((expected[name] == found[name]).all() for name in expected)
    for name in ("steps", "tokens", "eval_loss", "base_eval_loss"):
        assert metrics(broken)[name] == metrics(unbroken)[name]
    assert metrics(broken)["train_loss"] == pytest.approx(metrics(unbroken)["train_loss"])
    assert metrics(broken)["resumed_from"] >= where[1] - 7
    assert not (broken / "checkpoints").exists(), "the result is whole"


def test_a_loss_that_is_no_number_stops_at_once(rows_file, tmp_path):
    absurd = write(tmp_path / "absurd.yaml", learning_rate=1e30, warmup_steps=10, save_steps=1)
    said = finish(arguments(rows_file, tmp_path / "out", absurd), code=1)
    last = said.splitlines()[-1]
    assert last.startswith("train.py: the loss or its gradient is not a number at step ")
    step = int(last.split("step ")[1].split(",")[0])
    assert f"(step {step - 1} is kept): lower trainer.learning_rate" in last
    kept = Checkpoints(tmp_path / "out" / "checkpoints", {}).last()
    assert kept is not None and kept.name == f"checkpoint-{step - 1}"
    from safetensors.torch import load_file

    assert all(each.isfinite().all() for each in load_file(kept / "model.safetensors").values())


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")
def test_a_disk_that_fills_up_keeps_the_last_good_checkpoint(rows_file, recipe, tmp_path):
    import resource

    kept = Checkpoints(tmp_path / "out" / "checkpoints", {})
    with start(arguments(rows_file, tmp_path / "out", recipe, "--epochs", "5000")) as run:
        assert run.stderr is not None
        while kept.last() is None and run.poll() is None:
            time.sleep(0.01)
        # From now on no file of the run gets longer than this: what a full disk looks like to it.
        resource.prlimit(run.pid, resource.RLIMIT_FSIZE, (50_000, 50_000))
        said = run.stderr.read()
        assert run.wait(timeout=60) == 1, said
    last = said.splitlines()[-1]
    assert last.startswith("train.py: cannot write the checkpoint of step ")
    assert "is kept): make room, then run the same command with --resume" in last
    found = kept.last()
    assert found is not None and f"(step {found.name.removeprefix('checkpoint-')} is kept)" in last


# --- Checkpoints by themselves -------------------------------------------------------------------

ORIGIN = {"model": "a", "recipe": "b", "training file": "c", "number of processes": "1"}


def plant(folder: Path, step: int, complete: bool = True, made_from: dict = ORIGIN) -> Checkpoints:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "model.safetensors").write_text("weights")
    kept = Checkpoints(folder, made_from)
    if complete:
        kept.complete(step)
    return kept


def test_the_latest_complete_one_is_taken(tmp_path):
    kept = plant(tmp_path, 9)
    plant(tmp_path, 10)
    plant(tmp_path, 11, complete=False)
    (tmp_path / "checkpoint-last").mkdir()
    assert kept.to_resume() == tmp_path / "checkpoint-10"
    kept.drop_incomplete()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-10",
        "checkpoint-9",
        "checkpoint-last",
    ]


@pytest.mark.parametrize("damage", ["shorter", "missing", "marker"])
def test_a_damaged_one_is_not_taken(tmp_path, damage):
    kept = plant(tmp_path, 5)
    file = tmp_path / "checkpoint-5" / "model.safetensors"
    if damage == "shorter":
        file.write_text("wei")
    elif damage == "missing":
        file.unlink()
    else:
        (file.parent / MARKER).write_text("{")
    assert kept.to_resume() is None


def test_none_is_no_error(tmp_path):
    kept = Checkpoints(tmp_path / "gone", ORIGIN)
    assert kept.to_resume() is None
    kept.drop_incomplete()
    kept.remove()


@pytest.mark.parametrize("part", ORIGIN)
def test_that_of_another_run_is_refused(tmp_path, part):
    plant(tmp_path, 5)
    with pytest.raises(TrainError, match=f"was made with another {part}, .*checkpoint-5: "):
        Checkpoints(tmp_path, {**ORIGIN, part: "other"}).to_resume()


def test_a_new_runs_first_one_replaces_another_runs(tmp_path):
    plant(tmp_path, 50, made_from={**ORIGIN, "recipe": "earlier"})
    kept = plant(tmp_path, 7)
    assert kept.to_resume() == tmp_path / "checkpoint-7"


def test_what_changes_the_weights_is_told_from_what_does_not(tmp_path):
    plain = origin(read_recipe(write(tmp_path / "a.yaml")), ROWS, 1)
    often = origin(read_recipe(write(tmp_path / "b.yaml", save_steps=1, logging_steps=1)), ROWS, 1)
    faster = origin(read_recipe(write(tmp_path / "c.yaml", learning_rate=1.0)), ROWS, 1)
    assert often == plain and faster["recipe"] != plain["recipe"]
    assert origin(read_recipe(tmp_path / "a.yaml"), ROWS[1:], 1) != plain
    assert origin(read_recipe(tmp_path / "a.yaml"), ROWS, 2) != plain


def test_other_rows_are_refused_before_anything_is_loaded(train_cli, tmp_path):
    made = origin(read_recipe(TINY_RECIPE), ROWS[1:], 1)
    plant(tmp_path / "out" / "checkpoints", 5, made_from=made)
    done = train_cli(tmp_path / "out", "--resume")
    assert done.returncode == 1
    assert done.stderr.startswith("train.py: the checkpoint was made with another training file, ")
    assert len(done.stderr.splitlines()) == 1


def test_the_means_go_over_all_of_a_run_that_went_on():
    import train

    history = [
        {"step": 4, "loss": 3.0, "num_tokens": 40},
        {"step": 6, "loss": 2.0, "num_tokens": 60},
        # Went on here: TRL counts from 0 again.
        {"step": 8, "loss": 1.0, "num_tokens": 20},
        {"step": 8, "eval_loss": 9.0},
    ]
    assert train.total_tokens(history) == 80
    assert train.mean_loss(history) == pytest.approx((4 * 3 + 2 * 2 + 2 * 1) / 8)
