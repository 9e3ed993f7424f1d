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
import requests

from phi3_ops import paths
from phi3_ops.endpoint.registration import find_endpoint
from phi3_ops.files.ownership import MARKER_FILE
from phi3_ops.quickstart.lock import LOCK_FILE
from phi3_ops.quickstart.workdir import GIT_IGNORE
from processes import BIN, pf, phi3, processes_naming
from stores import make_store

pytestmark = pytest.mark.slow
# Enough to learn most of the training data; the test of three seeds uses the number of the recipe.
EPOCHS = 10
TINY = ("--model", "tiny")


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
    done = phi3("quickstart", *TINY, "--workdir", workdir, "--epochs", EPOCHS, env=env, timeout=900)
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
    steps = {"data", "finetune", "before", "serve", "chat", "after", "page"}
    assert set(summary["seconds"]) == {*steps, "total"}
    assert all(seconds > 0 for seconds in summary["seconds"].values())


def test_what_it_prints(done, summary):
    for title in ("base", "fine-tuned", "held-out phrasings", "unknown facts"):
        assert title in done.stdout
    assert summary["answer"]["text"] in " ".join(done.stdout.split())
    assert "Traceback" not in done.stdout + done.stderr


def test_every_question_is_asked_and_the_memory_is_measured(summary):
    asked = {kind: count["asked"] for kind, count in summary["questions"].items()}
    assert asked == {kind: count["rows"] for kind, count in summary["questions"].items()}
    assert sum(asked.values()) == 600
    assert summary["peak_memory_bytes"] > 100_000_000
    assert summary["base"] == "tiny" and summary["recipe"] == "tiny-cpu"


def test_the_last_line_is_the_address_of_a_page_with_both_models(done, summary):
    last = done.stdout.strip().splitlines()[-1].strip()
    assert last.startswith(f"open      {summary['page']} ")
    page = requests.get(f"{summary['page']}page.json", timeout=30).json()
    assert [side["connection"] for side in page["sides"]] == ["phi3", "phi3-base"]
    sides = [side["path"].strip("/") for side in page["sides"]]
    for side in sides:
        url = f"{summary['page']}{side}/score".replace("//score", "/score")
        answer = requests.post(url, json={"question": "Who founded Microsoft?"}, timeout=60)
        assert answer.status_code == 200, answer.text


def test_every_file_is_in_the_workdir(done, summary, workdir):
    names = {path.name for path in workdir.iterdir()}
    hidden = {MARKER_FILE, GIT_IGNORE, LOCK_FILE}
    assert names == {"data", "model", "endpoints", "summary.json", *hidden}
    assert (workdir / "model" / "model" / "config.json").is_file()
    assert (workdir / "model" / "mlflow" / "MLmodel").is_file()


def test_the_endpoint_stays_running_and_the_flow_answers(summary, workdir, env):
    assert processes_naming(workdir)
    tested = pf("flow", "test", "--flow", "flows/qa", env=env, cwd=paths.ROOT)
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
    assert f"kept 4 runs over data of {workdir}: you did not confirm" in removed.stdout
    assert not workdir.exists()
    removed = phi3("quickstart", "--remove", "--yes", "--workdir", workdir, env=env)
    assert f"deleted 4 runs over data of {workdir}" in removed.stdout
    assert not processes_naming(workdir)
    again = phi3("quickstart", "--remove", "--workdir", workdir, env=env)
    assert "nothing to remove" in again.stdout


def start_quickstart(home, *words):
    """Start a quickstart as the leader of a process group, as in a terminal."""
    return subprocess.Popen(
        [BIN / "phi3", "quickstart", *TINY, *words],
        env={**os.environ, "PF_HOME_DIRECTORY": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("step", ["2/", "3/"])
def test_ctrl_c_leaves_no_process_behind(tmp_path, step):
    """The signal goes to the whole process group, as from a terminal."""
    work = tmp_path / "work"
    home = make_store(tmp_path / "home")
    process = start_quickstart(home, "--workdir", work, "--epochs", "1")
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


def test_the_same_command_continues_an_interrupted_training(tmp_path):
    work = tmp_path / "work"
    words = ["--workdir", work, "--epochs", "3", "--stop-endpoint"]
    home = make_store(tmp_path / "home")
    process = start_quickstart(home, *words)
    with process:
        for line in process.stdout:
            if re.search(r"steps \([2-9]0 %", line):
                break
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode == 130 and "run the same command to continue" in rest, rest
    env = {"PF_HOME_DIRECTORY": str(home)}
    done = phi3("quickstart", *TINY, *words, env=env, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "train.py: resuming from" in done.stderr


def test_ctrl_c_while_questions_are_asked_ends_the_quickstart(tmp_path):
    """It was swallowed: the unanswered questions counted as failed, and the next step began."""
    work = tmp_path / "work"
    home = make_store(tmp_path / "home")
    process = start_quickstart(home, "--workdir", work, "--epochs", "1")
    with process:
        end = time.monotonic() + 600
        while find_endpoint(work, "base") is None and time.monotonic() < end:
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.1)
        time.sleep(3)  # until the first questions are answered
        os.killpg(process.pid, signal.SIGINT)
        printed = process.stdout.read()
    assert process.returncode == 130, printed
    counts = r"phi3: interrupted in step 3: ([\d,]+) answered, ([\d,]+) not asked; the same command"
    _, not_asked = re.search(counts, printed).groups()
    assert int(not_asked.replace(",", "")) > 0, printed
    assert "[4/" not in printed and "Traceback" not in printed
    assert processes_naming(work) == []


def test_the_promised_accuracy_over_three_seeds(tmp_path):
    """The README promises the mean of three seeds, of the split and of the training."""
    trained, held_out = [], []
    for seed in (1, 2, 3):
        work = tmp_path / str(seed)
        env = {"PF_HOME_DIRECTORY": str(make_store(tmp_path / f"home{seed}"))}
        words = (*TINY, "--workdir", work, "--seed", seed, "--stop-endpoint")
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
