"""A day with the commands of docs/commands.md, as they are printed, after a quickstart."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager

import pytest
import requests

from documented_commands import QA, documented, printed
from person import BIN, BackgroundCommand
from phi3_ops import paths
from phi3_ops.flows.content import copy_flow
from smollm2 import SMOLLM2_CACHE
from tiny_endpoint import HANG_S

pytestmark = pytest.mark.slow

MAKE = f"make -f {paths.ROOT}/Makefile -o {BIN.parent}/.local VENV={BIN.parent}"
QUESTION = "Who founded Microsoft?"


@pytest.fixture(scope="module")
def desk(person, smollm2_folder):
    """The folder of a person who has a clone and a table; the converted smollm2 is in their cache."""
    copy_flow(paths.FLOWS, person.folder / "flows")
    rows = "".join(f"What is product {n}?,It is number {n}.\n" for n in range(60))
    (person.folder / "mine.csv").write_text(f"question,answer\n{rows}")
    shutil.copytree(SMOLLM2_CACHE, person.home / "cache", copy_function=os.link)
    person.variables["PHI3_CACHE"] = str(person.home / "cache")
    return person


def run(person, text, plus="", **names):
    """Run a printed command to its end, and return its output."""
    line = f"{printed(text, **names)} {plus}"
    done = person.shell(line)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


@contextmanager
def running(person, line):
    """Start a command, and stop it with Ctrl-C at the end of the block."""
    process = subprocess.Popen(
        ["bash", "-c", f"exec {line}"],
        env={**person.environment, "PYTHONUNBUFFERED": "1"},
        cwd=person.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    command = BackgroundCommand(process)
    try:
        yield command
    finally:
        os.killpg(process.pid, signal.SIGINT)
        command.wait(HANG_S)


def address(command, pattern=r"http://[\w.]+:\d+"):
    """Return the address that a command prints when it is ready."""
    command.wait_for("http://")
    return re.search(pattern, command.output)[0]


def get_when_listening(url):
    """Return the answer of a server that does not print when it listens."""
    end = time.monotonic() + HANG_S
    while True:
        try:
            return requests.get(url, timeout=HANG_S)
        except requests.ConnectionError:
            assert time.monotonic() < end, f"{url} does not answer"
            time.sleep(0.1)


def summary(person):
    return json.loads((person.folder / ".phi3" / "summary.json").read_text())


@documented("make quickstart", "make quickstart MODEL=tiny", "source .venv/bin/activate")
def test_the_quickstart(desk):
    for text in ("make quickstart", "make quickstart MODEL=tiny"):
        line = printed(text).replace("make", f"{MAKE} -n", 1)
        model = "tiny" if "tiny" in text else "smollm2"
        assert f'bin/phi3 quickstart --model "{model}"' in desk.shell(line).stdout
    done = desk.shell(printed("make quickstart MODEL=tiny").replace("make", MAKE, 1))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Questions answered right" in done.stdout
    activate = printed("source .venv/bin/activate").replace(".venv/bin", str(BIN))
    assert desk.shell(f"{activate} && phi3 --version").stdout.startswith("phi3 ")


@documented("phi3 doctor")
def test_doctor(desk):
    output = run(desk, "phi3 doctor")
    works, _, further = output.partition("needs something first")
    assert all(f"  {way} " in works for way in ("local", "serve", "batch", "train", "endpoint"))
    assert "azure" in further


@documented("phi3 serve", "phi3 serve --connection phi3 --against phi3-base", "phi3 connections")
def test_the_chat_page(desk):
    names = run(desk, "phi3 connections")
    assert "phi3" in names and "phi3-base" in names
    for text in ("phi3 serve", "phi3 serve --connection phi3 --against phi3-base"):
        with running(desk, f"{printed(text)} --port 0") as command:
            url = address(command)
            assert requests.get(url, timeout=HANG_S).status_code == 200
            body = {"question": QUESTION, "chat_history": []}
            assert requests.post(f"{url}/score", json=body, timeout=HANG_S).json()["answer"]


@documented("PF_TRACING_SKIP_LOCAL_SETUP=true pf flow test --flow flows/qa …")
def test_a_flow_with_promptflows_command(desk):
    output = run(desk, "PF_TRACING_SKIP_LOCAL_SETUP=true pf flow test --flow flows/qa …")
    assert '"answer"' in output


@documented("PF_TRACING_SKIP_LOCAL_SETUP=true pf flow test --flow flows/chat --interactive")
def test_a_chat_in_the_terminal(desk):
    line = printed("PF_TRACING_SKIP_LOCAL_SETUP=true pf flow test --flow flows/chat --interactive")
    done = desk.shell(f"printf '%s\\n' '{QUESTION}' | {line}")
    assert "Bot" in done.stdout or "bot" in done.stdout.lower(), done.stdout + done.stderr


@documented("pf flow serve …")
def test_promptflows_page(desk):
    port = free_port()
    with running(desk, printed("pf flow serve …").replace("8080", str(port))) as command:
        command.wait_for("initializing succeed")
        assert get_when_listening(f"http://localhost:{port}/").status_code == 200


@documented(
    "phi3 run --flow qa …",
    "phi3 runs",
    "phi3 run --resume NAME",
    "phi3 compare base tuned --gate exact_match:0.02",
)
def test_a_batch_and_a_comparison(desk):
    output = run(desk, f"phi3 run {QA} --connection phi3-base …")
    assert "exact_match" in output
    base = re.search(r"^(base-\S+):", output, re.MULTILINE)[1]
    # The desk has a copy of the flows, so the runs of the quickstart are not runs of the same flow.
    assert f"next, after a run of another model: phi3 compare {base} OTHER" in output
    output = run(desk, f"phi3 run {QA} --connection phi3 …")
    tuned = re.search(r"^(tuned-\S+):", output, re.MULTILINE)[1]
    assert output.splitlines()[-1] == f"next: phi3 compare {base} {tuned}"
    assert tuned in run(desk, "phi3 runs")
    assert "nothing to do" in run(desk, "phi3 run --resume NAME", NAME=tuned)
    output = run(desk, "phi3 compare base tuned --gate exact_match:0.02")
    assert "gate: pass" in output
    assert output.splitlines()[-1] == "next: open .phi3/compare/compare.html in a browser"


@documented("phi3 run --flow chat …")
def test_conversations(desk):
    assert "turn 1: " in run(desk, "phi3 run --flow chat …")


@documented("PF_TRACING_SKIP_LOCAL_SETUP=true pf run create …", "pf run show-metrics …")
def test_a_batch_with_promptflows_commands(desk):
    run(desk, "PF_TRACING_SKIP_LOCAL_SETUP=true pf run create --flow flows/qa …")
    run(desk, "PF_TRACING_SKIP_LOCAL_SETUP=true pf run create --flow flows/eval …")
    assert "exact_match" in run(desk, "pf run show-metrics …")


@documented("flows")
def test_flows(desk):
    assert "match their lock" in run(desk, "phi3 flow lock")
    assert "is ready" in run(desk, "phi3 flow check chat --local")
    run(desk, "phi3 flow build chat --out build/chat")
    assert (desk.folder / "build" / "chat" / "Dockerfile").is_file()
    run(desk, "phi3 flow export chat --to fastapi --out build/chat-app")
    assert (desk.folder / "build" / "chat-app" / "app.py").is_file()


@documented("phi3 endpoint --stop")
def test_stop(desk):
    assert "stopped tuned" in run(desk, "phi3 endpoint --stop")


@documented("phi3 quickstart --data mine.csv")
def test_the_quickstart_with_a_table(desk):
    run(desk, "phi3 quickstart --data mine.csv", "--model tiny --questions 5 --stop-endpoint")


@documented(
    "phi3 data",
    "phi3 data --source mine.csv",
    "phi3 data --source FILE_OR_FOLDER …",
    "phi3 finetune --local",
    "phi3 finetune --local --resume",
    "phi3 finetune --local --model smollm2",
    "phi3 models",
)
def test_a_model(desk):
    run(desk, "phi3 data --source FILE_OR_FOLDER …", FILE_OR_FOLDER="mine.csv")
    assert run(desk, "phi3 data --source mine.csv").endswith(
        "next: phi3 finetune --local --model smollm2\n"
    )
    run(desk, "phi3 data")
    output = run(desk, "phi3 finetune --local", "--epochs 1")
    assert output.endswith("next: phi3 endpoint --model .phi3/model/model\n")
    run(desk, "phi3 finetune --local --resume", "--epochs 1")
    small = "--rows 8 --epochs 1 --output-dir .phi3/small"  # as printed it takes minutes
    run(desk, "phi3 finetune --local --model smollm2", small)
    assert "smollm2" in run(desk, "phi3 models")


@documented("phi3 endpoint --model …", "phi3 endpoint --deployment …", "PHI3_KEY=… …")
def test_endpoints(desk, monkeypatch):
    monkeypatch.setitem(desk.variables, "PHI3_ENDPOINT_KEY", "a-key")
    model = ".phi3/model/model"
    line = printed("phi3 endpoint --model .phi3/model/model")
    with running(desk, f"{line} --port 0") as command:
        command.wait_for("next, in another terminal: phi3 serve")
    line = printed("phi3 endpoint --model smollm2 --name base …").replace("8711", "0")
    with running(desk, line) as command:
        command.wait_for("next, in another terminal: phi3 serve --connection phi3-base")
    line = printed("phi3 endpoint --deployment …", DIR=model, DIR2=model)
    with running(desk, f"{line} --port 0") as command:
        command.wait_for("next, in another terminal")
        line = printed("PHI3_KEY=… …").replace("PHI3_KEY=…", "PHI3_KEY=a-key")
        done = desk.shell(re.sub(r"https://\S+", f"{address(command)}/score", line))
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith("next: phi3 serve\n")


@documented("phi3 quickstart --remove", "phi3 models --remove smollm2")
def test_remove(desk):
    done = desk.shell(f"{printed('phi3 quickstart --remove')} --yes")
    assert done.returncode == 0, done.stderr
    assert not (desk.folder / ".phi3" / "model").exists()
    assert "removed smollm2" in run(desk, "phi3 models --remove smollm2")
    assert not desk.processes()


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]
