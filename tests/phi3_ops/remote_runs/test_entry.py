"""The entry script of a batch on a cluster, in this process: lines, retries, and connections."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from types import SimpleNamespace

import pytest

from echo_endpoint import KEY, USAGE, echo_endpoint
from phi3_ops import paths
from phi3_tools.connections import Connection


@pytest.fixture
def entry(tmp_path, monkeypatch):
    """Return the entry script as a module, beside a copy of flows/qa, with its two output folders."""
    shutil.copy(paths.AZURE / "batch" / "entry.py", tmp_path)
    shutil.copytree(paths.FLOWS / "qa", tmp_path / "flow")
    for name in ("answers", "progress"):
        (tmp_path / name).mkdir()
    words = ["--answers", "answers", "--progress", "progress", "--threads", "2", "--amlbi", "x"]
    monkeypatch.setattr(sys, "argv", ["entry.py", *words])
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("batch_entry", tmp_path / "entry.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "batch_entry", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def endpoint():
    with echo_endpoint() as server:
        yield server


@pytest.fixture
def started(entry, endpoint, monkeypatch):
    """The entry script after `init()`, with a connection to the endpoint."""
    fields = {"endpoint": endpoint.url, "contract": "chat", "max_attempts": "1"}
    connection = Connection("phi3", fields, {"key": KEY})
    monkeypatch.setattr(entry, "WorkspaceConnections", lambda: {"phi3": connection})
    entry.init()
    yield entry
    entry.shutdown()


def mini_batch(folder, *questions):
    """Write a mini-batch; return the argument of `run`."""
    rows = [{"line_number": n, "inputs": {"input_data": q}} for n, q in enumerate(questions)]
    file = folder / "000000.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return [str(file)]


def written(folder):
    """Return the rows of each file of answers."""
    files = (folder / "answers").iterdir()
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


def test_the_lines_of_a_mini_batch(started, tmp_path):
    paths_of_batch = mini_batch(tmp_path, "one", "two", "three")
    assert started.run(paths_of_batch) == paths_of_batch
    ((first, second, third),) = written(tmp_path)
    assert first == {"line_number": 0, "tokens": USAGE, "output": {"answer": "one"}}
    assert [row["output"]["answer"] for row in (second, third)] == ["two", "three"]


def test_line_separators_of_unicode_do_not_end_a_row(started, tmp_path):
    question = "a\u2028b\u2029c\x85d"
    (batch,) = mini_batch(tmp_path)
    row = {"line_number": 0, "inputs": {"input_data": question}}
    text = json.dumps(row, ensure_ascii=False) + "\n"  # as `write_jsonl` writes it
    (tmp_path / "000000.jsonl").write_text(text, encoding="utf-8")
    started.run([batch])
    ((answered,),) = written(tmp_path)
    assert answered["output"] == {"answer": question}


def test_a_retry_asks_only_what_has_no_answer(started, endpoint, tmp_path):
    batch = mini_batch(tmp_path, "one", "crash", "fail")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="1 of 3 lines failed; line 1: .*told to crash"):
            started.run(batch)
    sent = [body["input_data"]["input_string"][-1]["content"] for body in endpoint.requests]
    assert sorted(sent) == ["crash", "crash", "fail", "one"]
    for rows in written(tmp_path):  # one file per attempt
        by_line = {row["line_number"]: row for row in rows}
        assert by_line[0]["output"] == {"answer": "one"}
        assert by_line[1]["may_pass"] and not by_line[2]["may_pass"]
    assert len(written(tmp_path)) == 2


def test_a_file_that_a_killed_process_left_half_written_does_not_count(started, tmp_path):
    folder = tmp_path / "progress" / "000000"
    folder.mkdir()
    (folder / "0.json").write_text('{"line_number": 0, "outp')
    (folder / "1.json").write_text(json.dumps({"line_number": 1, "output": {"answer": "kept"}}))
    started.run(mini_batch(tmp_path, "one", "two"))
    ((first, second),) = [
        sorted(rows, key=lambda row: row["line_number"]) for rows in written(tmp_path)
    ]
    assert first["output"] == {"answer": "one"} and second["output"] == {"answer": "kept"}


def test_run_without_init(entry):
    with pytest.raises(RuntimeError, match="init"):
        entry.run([])


# -- connections -----------------------------------------------------------------------------------


class Azure:
    """A session whose requests get prepared answers."""

    def __init__(self, status=200, properties=None):
        self.status, self.properties, self.sent = status, properties or {}, []

    def __call__(self):
        return self

    def answer(self, url, body):
        self.sent.append(url)
        ok = self.status < 400
        return SimpleNamespace(ok=ok, status_code=self.status, reason="Refused", json=lambda: body)

    def get(self, url, params, timeout):
        return self.answer(url, {"access_token": "token"})

    def post(self, url, params, headers, timeout):
        assert headers == {"Authorization": "Bearer token"}
        return self.answer(url, {"properties": self.properties})


@pytest.fixture
def on_node(monkeypatch):
    """The variables of a job that runs with its user's identity."""
    for name, value in {
        "AZUREML_ARM_SUBSCRIPTION": "sub",
        "AZUREML_ARM_RESOURCEGROUP": "rg",
        "AZUREML_ARM_WORKSPACE_NAME": "ws",
        "OBO_ENDPOINT": "http://127.0.0.1:1/obo",
    }.items():
        monkeypatch.setenv(name, value)


def test_a_connection_is_read_once(entry, on_node, monkeypatch):
    properties = {"metadata": {"endpoint": "e"}, "credentials": {"keys": {"key": "k"}}}
    azure = Azure(properties=properties)
    monkeypatch.setattr(entry, "_session", azure)
    connections = entry.WorkspaceConnections()
    assert connections("phi3") is connections("phi3")
    assert (connections("phi3").endpoint, connections("phi3").key) == ("e", "k")
    assert len(azure.sent) == 2  # a token and the connection
    assert azure.sent[1].endswith("/workspaces/ws/connections/phi3/listsecrets")


@pytest.mark.parametrize(
    ("status", "message"),
    [(403, "assign the role .*Secrets Reader"), (404, "cannot be read: status 404")],
)
def test_a_connection_that_cannot_be_read(entry, on_node, monkeypatch, status, message):
    azure = Azure(status)
    monkeypatch.setattr(entry, "_session", azure)
    monkeypatch.setattr(entry, "arm_token", lambda: "token")
    with pytest.raises(RuntimeError, match=message):
        entry.WorkspaceConnections()("phi3")


def test_no_token_for_the_user(entry, on_node, monkeypatch):
    monkeypatch.setattr(entry, "_session", Azure(400))
    with pytest.raises(RuntimeError, match="no token .*status 400; set `azure.identity: true`"):
        entry.arm_token()


def test_a_cluster_without_an_identity(entry, monkeypatch):
    import azure.identity
    from azure.core.exceptions import ClientAuthenticationError

    def refuse(*_, **__):
        raise ClientAuthenticationError("no managed identity\nmore")

    monkeypatch.delenv("OBO_ENDPOINT", raising=False)
    monkeypatch.setattr(azure.identity.ManagedIdentityCredential, "get_token", refuse)
    with pytest.raises(RuntimeError, match="no identity: no managed identity; set `azure.identity"):
        entry.arm_token()
