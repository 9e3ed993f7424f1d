"""Registrations: one owner per name, and no other process is taken for an endpoint."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress

import psutil
import pytest

from endpoint_requests import gone
from phi3_ops.cli import main
from phi3_ops.endpoint.background import start_endpoint, stop_endpoint
from phi3_ops.endpoint.registration import (
    RunningEndpoint,
    endpoint_state_file,
    find_endpoint,
    lock_file,
    log_file,
    own_endpoint_name,
    register_endpoint,
    running_endpoints,
)
from phi3_ops.errors import OpsError
from phi3_ops.files.ownership import record_files
from registered_endpoint import registered_endpoint
from tiny_endpoint import KEY

URL = "http://127.0.0.1:9/score"


@pytest.fixture
def stranger():
    """A process that is not an endpoint, and runs until the test ends."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def forge(workdir, file_name, **changes):
    """Write a note of an endpoint, as anybody can who can write the workdir."""
    file = endpoint_state_file(workdir, file_name)
    fields = {"name": file_name, "pid": os.getpid(), "started": 1.0, "url": URL, "model": "m"}
    fields |= changes
    if "started" not in changes and isinstance(fields["pid"], int):
        with suppress(psutil.Error, ValueError, OverflowError):
            fields["started"] = psutil.Process(fields["pid"]).create_time()
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_text(json.dumps(fields))
    return file


# -- notes -------------------------------------------------------------------------------------------


def test_a_registered_endpoint_is_found(tmp_path):
    with registered_endpoint(tmp_path, url=URL) as process:
        running = find_endpoint(tmp_path, "tuned")
        assert running == RunningEndpoint("tuned", process.pid, running.started, URL, "a, b")
        assert list(running_endpoints(tmp_path)) == [running]
        assert find_endpoint(tmp_path, "base") is None


def test_a_relative_workdir_is_the_same_one(tmp_path, monkeypatch):
    with registered_endpoint(tmp_path / "work") as process:
        monkeypatch.chdir(tmp_path)
        assert find_endpoint(tmp_path.relative_to(tmp_path) / "work", "tuned").pid == process.pid


def test_a_registration_has_no_key(tmp_path):
    with own_endpoint_name(tmp_path, "tuned"):
        register_endpoint(tmp_path, "tuned", URL, "a")
        fields = json.loads(endpoint_state_file(tmp_path, "tuned").read_text())
    assert set(fields) == {"name", "pid", "started", "url", "model", "runtime"}


def test_a_reused_pid_is_not_the_endpoint(tmp_path):
    with registered_endpoint(tmp_path) as process:
        forge(tmp_path, "tuned", pid=process.pid, started=1.0)
        assert find_endpoint(tmp_path, "tuned") is None
        assert list(running_endpoints(tmp_path)) == []


def test_a_process_that_has_ended_is_not_found(tmp_path):
    with registered_endpoint(tmp_path) as process:
        assert find_endpoint(tmp_path, "tuned")
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
        assert find_endpoint(tmp_path, "tuned") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"name": "tuned", "more": 1}',
        "[" * 5000,
        '{"name": "tuned", "pid": -1, "started": 1, "url": "u", "model": "m"}',
        '{"name": "tuned", "pid": "1", "started": 1, "url": "u", "model": "m"}',
        '{"name": "tuned", "pid": 1, "started": "x", "url": "u", "model": "m"}',
        '{"name": "tuned", "pid": 1e400, "started": 1, "url": "u", "model": "m"}',
    ],
)
def test_a_broken_note_is_not_an_endpoint(tmp_path, text):
    file = endpoint_state_file(tmp_path, "tuned")
    file.parent.mkdir()
    file.write_text(text)
    assert find_endpoint(tmp_path, "tuned") is None


def test_only_the_own_registration_is_removed(tmp_path):
    with registered_endpoint(tmp_path, "other"):
        with own_endpoint_name(tmp_path, "mine"):
            register_endpoint(tmp_path, "mine", URL, "a")
            assert endpoint_state_file(tmp_path, "mine").exists()
        assert not endpoint_state_file(tmp_path, "mine").exists()
        assert [running.name for running in running_endpoints(tmp_path)] == ["other"]


# -- attacks -----------------------------------------------------------------------------------------


@pytest.mark.finding(
    3,
    "a forged note of an endpoint names the process of somebody else",
    "the process is not stopped: pid, start time, command line and lock file must match",
)
def test_a_forged_note_ends_no_process(tmp_path, stranger, capsys):
    """The review's note: a stranger's pid with its real start time."""
    record_files(tmp_path / "endpoints", ["tuned.json"])
    forge(tmp_path, "tuned", pid=stranger.pid)
    lock_file(tmp_path, "tuned").touch()
    assert main(["endpoint", "--stop", "--workdir", str(tmp_path)]) == 0
    assert "no endpoint of" in capsys.readouterr().out
    assert not stop_endpoint(tmp_path, "tuned")
    assert not gone(stranger.pid)


def test_a_note_that_names_another_process_of_phi3_ends_nothing(tmp_path):
    with registered_endpoint(tmp_path / "a") as process:
        forge(tmp_path / "b", "tuned", pid=process.pid)
        forge(tmp_path / "a", "other", pid=process.pid)
        assert not stop_endpoint(tmp_path / "b", "tuned")
        assert not stop_endpoint(tmp_path / "a", "other")
        assert not gone(process.pid)
        assert stop_endpoint(tmp_path / "a", "tuned")


def test_a_process_with_the_lock_file_open_that_is_not_phi3_is_not_ended(tmp_path):
    lock = lock_file(tmp_path, "tuned")
    lock.parent.mkdir()
    code = "import sys; file = open(sys.argv[1], 'w'); print('open', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        forge(tmp_path, "tuned", pid=process.pid)
        assert not stop_endpoint(tmp_path, "tuned")
        assert not gone(process.pid)
        process.kill()


@pytest.mark.finding(
    3,
    "the name of an endpoint is `../../x`",
    "the name is refused",
)
@pytest.mark.parametrize("name", ["../../x", "../x", "/x", "..", "", ".hidden", "a/b", "x\n"])
def test_a_name_is_not_a_path(tmp_path, name, capsys):
    workdir = tmp_path / "a" / "work"
    outside = [tmp_path / "x.json", tmp_path / "a" / "x.json", workdir / "x.json"]
    workdir.mkdir(parents=True)
    for file in outside:
        file.write_text("{}")
    forge(workdir, "tuned", name=name)
    assert main(["endpoint", "--stop", "--workdir", str(workdir)]) == 0
    assert not stop_endpoint(workdir, name)
    with pytest.raises(OpsError, match="is not a valid name"):
        start_endpoint(tmp_path, workdir, name, key=KEY)
    with pytest.raises(OpsError, match="is not a valid name"), own_endpoint_name(workdir, name):
        pass
    assert all(file.read_text() == "{}" for file in outside)


def test_a_link_in_the_workdir_is_not_followed(tmp_path):
    """Neither the folder of the endpoints nor the log leads anywhere else."""
    other, workdir = tmp_path / "other", tmp_path / "work"
    other.mkdir()
    (other / "tuned.json").write_text("{}")
    (other / "precious").write_text("mine")
    workdir.mkdir()
    (workdir / "endpoints").symlink_to(other)
    assert not stop_endpoint(workdir, "tuned")
    with pytest.raises(OpsError, match="is a link"):
        start_endpoint(tmp_path, workdir, "tuned", key=KEY)
    (workdir / "endpoints").unlink()
    record_files(workdir / "endpoints", ["tuned.log", "tuned.lock"])
    log_file(workdir, "tuned").symlink_to(other / "precious")
    with pytest.raises(OpsError, match="cannot write .*tuned.log"):
        start_endpoint(tmp_path, workdir, "tuned", key=KEY)
    lock_file(workdir, "tuned").symlink_to(other / "precious")
    with pytest.raises(OpsError, match="cannot lock"), own_endpoint_name(workdir, "tuned"):
        pass
    assert (other / "precious").read_text() == "mine"
    assert (other / "tuned.json").read_text() == "{}"


@pytest.mark.parametrize("file", ["tuned.json", "tuned.log", "tuned.lock"])
def test_a_file_of_others_is_not_replaced(tmp_path, file):
    (tmp_path / "endpoints").mkdir()
    (tmp_path / "endpoints" / file).write_text("mine")
    with pytest.raises(OpsError, match=f"{file} exists, and phi3 did not write it"):
        start_endpoint(tmp_path, tmp_path, "tuned", key=KEY)
    assert not stop_endpoint(tmp_path, "tuned")
    assert (tmp_path / "endpoints" / file).read_text() == "mine"


# -- one owner ---------------------------------------------------------------------------------------


@pytest.mark.finding(
    3,
    "two endpoints are started with one name",
    "the second start is refused with the URL and pid of the first",
)
def test_a_second_endpoint_of_that_name_is_refused(tmp_path):
    message = r"an endpoint 'tuned' of .* is already running \(http.*, process \d+\). Stop it with"
    with registered_endpoint(tmp_path) as process:
        with pytest.raises(OpsError, match=message), own_endpoint_name(tmp_path, "tuned"):
            pass
        assert find_endpoint(tmp_path, "tuned").pid == process.pid
        with own_endpoint_name(tmp_path, "other"):
            pass
        assert stop_endpoint(tmp_path, "tuned")
    with own_endpoint_name(tmp_path, "tuned"):
        pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_name_is_free_when_its_owner_has_ended(tmp_path, number):
    with registered_endpoint(tmp_path) as process:
        process.send_signal(number)
        process.wait()
        with own_endpoint_name(tmp_path, "tuned"):
            assert find_endpoint(tmp_path, "tuned") is None


def test_nothing_is_left(tmp_path):
    with own_endpoint_name(tmp_path / "new", "tuned"):
        register_endpoint(tmp_path / "new", "tuned", URL, "a")
    assert list(tmp_path.iterdir()) == []
    with own_endpoint_name(tmp_path, "tuned"):
        pass
    assert tmp_path.is_dir()
