"""The quickstart end to end: data, training, endpoint, connection, flow, evaluation."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import time

import pytest

from processes import BIN, pf, phi3, processes_naming
from stores import make_store

# Enough to learn most of the training data; the slow test uses the number of the recipe.
EPOCHS = 10


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A separate Prompt flow store, because the quickstart writes the connection `phi3`."""
    return make_store(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("work") / "phi3"


@pytest.fixture(scope="module")
def env(home):
    return {"PF_HOME_DIRECTORY": str(home)}


@pytest.fixture(scope="module")
def done(workdir, env):
    done = phi3("quickstart", "--workdir", workdir, "--epochs", EPOCHS, env=env, timeout=900)
    yield done
    phi3("quickstart", "--remove", "--workdir", workdir, env=env)


@pytest.fixture
def summary(done, workdir):
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((workdir / "summary.json").read_text())


def test_training_teaches_something(summary):
    before, after = summary["exact_match"]["before"], summary["exact_match"]["after"]
    assert before == {"trained": 0, "held-out": 0, "unknown": 0}
    assert after["trained"] > 0.5
    assert after["held-out"] > 0.3
    assert after["trained"] > after["unknown"]


def test_every_line_is_counted(summary):
    for which in ("before", "after"):
        assert summary["lines"][which] == {"lines": 600, "failed": 0}


def test_every_step_is_timed(summary):
    steps = {"data", "finetune", "before", "serve", "chat", "after"}
    assert set(summary["seconds"]) == {*steps, "total"}
    assert all(seconds > 0 for seconds in summary["seconds"].values())


def test_what_it_prints(done, summary):
    for title in ("untrained", "tuned", "held-out phrasings", "unknown facts"):
        assert title in done.stdout
    assert summary["answer"]["text"] in " ".join(done.stdout.split())
    assert "Traceback" not in done.stdout + done.stderr


def test_every_file_is_in_the_workdir(done, summary, workdir):
    names = {path.name for path in workdir.iterdir()}
    assert names == {"data", "model", "endpoints", "summary.json"}
    assert (workdir / "model" / "model" / "config.json").is_file()
    assert (workdir / "model" / "mlflow" / "MLmodel").is_file()


def test_the_endpoint_stays_running_and_the_flow_answers(summary, workdir, env):
    assert processes_naming(workdir)
    tested = pf("flow", "test", "--flow", "flows/qa", env=env, cwd=_root())
    assert '"answer": "' in tested.stdout, tested.stderr


def test_the_key_is_in_no_file_and_no_argument(summary, workdir, env):
    code = "from phi3_ops.pf.connections import connection_key as k; print(k('phi3'))"
    printed = subprocess.run(
        [BIN / "python", "-c", code], env={**os.environ, **env}, capture_output=True, text=True
    )
    key = printed.stdout.strip()
    assert len(key) > 20
    holders = [p for p in workdir.rglob("*") if p.is_file() and key.encode() in p.read_bytes()]
    assert holders == []
    for process in processes_naming(workdir):
        assert key not in " ".join(process.cmdline())


def test_the_runs_are_in_prompt_flows_store(summary, env):
    name = summary["runs"]["tuned"][1]
    metrics = json.loads(pf("run", "show-metrics", "--name", name, env=env).stdout)
    assert metrics["lines"] == 600


def test_remove_takes_everything_away(summary, workdir, env):
    removed = phi3("quickstart", "--remove", "--workdir", workdir, env=env)
    assert removed.returncode == 0, removed.stderr
    assert not workdir.exists()
    assert not processes_naming(workdir)
    again = phi3("quickstart", "--remove", "--workdir", workdir, env=env)
    assert "nothing to remove" in again.stdout


def _root():
    from phi3_ops import paths

    return paths.ROOT


@pytest.mark.parametrize("step", ["2/", "3/"])
def test_ctrl_c_leaves_no_process_behind(tmp_path, step):
    """The signal goes to the whole process group, as from a terminal."""
    work = tmp_path / "work"
    command = [BIN / "phi3", "quickstart", "--workdir", work, "--epochs", "1"]
    process = subprocess.Popen(
        command,
        env={**os.environ, "PF_HOME_DIRECTORY": str(make_store(tmp_path / "home"))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with process:
        for line in process.stdout:
            if re.match(rf"\[{step}", line):
                break
        time.sleep(5)  # until the process of the step runs
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode == 130, rest
    assert "interrupted" in rest
    assert "Traceback" not in rest
    assert processes_naming(work) == []
    assert not list(work.rglob(".partial*"))


def test_a_connection_to_another_endpoint_is_not_replaced(tmp_path):
    env = {"PF_HOME_DIRECTORY": str(tmp_path), "PHI3_KEY": "k"}
    url = "https://mine.eastus2.inference.ml.azure.com/score"
    assert phi3("connect", "--no-check", "--endpoint", url, env=env).returncode == 0
    done = phi3("quickstart", "--workdir", tmp_path / "w", env=env)
    assert done.returncode == 1
    assert "points to another endpoint" in done.stderr
    assert not (tmp_path / "w").exists()


@pytest.mark.slow
def test_the_promised_accuracy_over_three_seeds(tmp_path):
    """The README promises the mean of three seeds, of the split and of the training."""
    trained, held_out = [], []
    for seed in (1, 2, 3):
        work = tmp_path / str(seed)
        env = {"PF_HOME_DIRECTORY": str(make_store(tmp_path / f"home{seed}"))}
        words = ("--workdir", work, "--seed", seed, "--stop-endpoint")
        done = phi3("quickstart", *words, env=env, timeout=900)
        assert done.returncode == 0, done.stdout + done.stderr
        after = json.loads((work / "summary.json").read_text())["exact_match"]["after"]
        print(f"seed {seed}: {after}")
        trained.append(after["trained"])
        held_out.append(after["held-out"])
        assert not processes_naming(work)
        shutil.rmtree(work)
    assert statistics.mean(trained) >= 0.98, trained
    assert statistics.mean(held_out) >= 0.80, held_out


def test_a_folder_of_other_files_is_not_removed(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    removed = phi3("quickstart", "--remove", "--workdir", tmp_path)
    assert removed.returncode == 1
    assert "is not the folder of a quickstart. Nothing was removed" in removed.stderr
    assert (tmp_path / "notes.txt").is_file()
