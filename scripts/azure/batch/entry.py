"""Entry script of a batch on a cluster: runs a flow on mini-batches with the engine of `phi3_tools.flow`.

Azure ML starts several processes per node. Each process calls `init()` once, and `run()` for each of its
mini-batches. Contract: "Use parallel jobs in pipelines". A mini-batch is one file; each row of it has the
`line_number` and the `inputs` of one line.

All processes share two output folders:

- `answers` gets one file per attempt at a mini-batch, with one row per line. No file is ever replaced.
- `progress` gets one file per line that has ended. A mini-batch runs again if its process was killed or
  if the endpoint failed. It then runs only the lines that have no file.
"""

from __future__ import annotations

import argparse
import contextvars
import json
import os
import threading
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from phi3_tools import Reply
from phi3_tools.client import CallObserver, observe_calls
from phi3_tools.connections import Connection
from phi3_tools.flow import Engine, LineResult, load_flow

FLOW = Path(__file__).resolve().parent / "flow"
ARM = "https://management.azure.com"
CONNECTIONS_API_VERSION = "2024-04-01-preview"
# Azure ML sets these variables in every job.
WORKSPACE_VARIABLES = (
    "AZUREML_ARM_SUBSCRIPTION",
    "AZUREML_ARM_RESOURCEGROUP",
    "AZUREML_ARM_WORKSPACE_NAME",
)
REQUEST_TIMEOUT_S = 60
TOKEN_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")

Row = dict[str, Any]


@dataclass(frozen=True)
class Batch:
    """The state of this process.

    Attributes:
        engine: runs the lines of the flow.
        answers: output folder of the answers.
        progress: output folder of the lines that have ended.
        threads: number of lines that this process runs at once.
    """

    engine: Engine
    answers: Path
    progress: Path
    threads: int


_batch: Batch | None = None


def init() -> None:
    """Load the flow and its connections.

    Raises:
        RuntimeError: a connection cannot be read.
        phi3_tools.flow.FlowError: the flow cannot run.
    """
    global _batch
    parser = argparse.ArgumentParser()
    parser.add_argument("--answers", type=Path, required=True)
    parser.add_argument("--progress", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    options, _ = parser.parse_known_args()  # Azure ML adds arguments
    # By this name, connections with `auth: entra` find the identity of the cluster.
    if client_id := os.environ.get("DEFAULT_IDENTITY_CLIENT_ID"):
        os.environ.setdefault("AZURE_CLIENT_ID", client_id)
    engine = Engine(load_flow(FLOW), WorkspaceConnections())
    _batch = Batch(engine, options.answers, options.progress, options.threads)


def run(mini_batch: list[str]) -> list[str]:
    """Run the lines of a mini-batch, and return the paths of its files.

    Args:
        mini_batch: the paths of its files.

    Raises:
        RuntimeError: lines failed for a reason that may pass, so that Azure ML repeats the mini-batch.
    """
    if _batch is None:
        raise RuntimeError("init() was not called")
    for path in mini_batch:
        _run_file(_batch, Path(path))
    return list(mini_batch)


def shutdown() -> None:
    """End the threads of the engine."""
    if _batch is not None:
        _batch.engine.close()


# -- lines -----------------------------------------------------------------------------------------


def _run_file(batch: Batch, path: Path) -> None:
    inputs = {row["line_number"]: row["inputs"] for row in _read_rows(path)}
    folder = batch.progress / path.stem
    folder.mkdir(parents=True, exist_ok=True)
    rows = dict(_ended_lines(folder))
    missing = [line for line in inputs if line not in rows]

    def run_line(line: int) -> Row:
        row = _run_line(batch.engine, line, inputs[line])
        if not row.get("may_pass"):
            _write(folder / f"{line}.json", [row])
        return row

    with observe_calls(_TokenObserver()), ThreadPoolExecutor(batch.threads) as pool:
        rows.update(zip(missing, pool.map(run_line, missing)))
    # A name that no attempt has used before: a mounted folder need not allow that a file is replaced.
    _write(batch.answers / f"{path.stem}-{uuid.uuid4().hex}.jsonl", rows.values())
    failed = [row for row in rows.values() if row.get("may_pass")]
    if failed:
        first = failed[0]
        raise RuntimeError(
            f"{len(failed)} of {len(rows)} lines failed; line {first['line_number']}: {first['error']}"
        )


def _run_line(engine: Engine, line: int, inputs: Mapping[str, Any]) -> Row:
    tokens = Counter(dict.fromkeys(TOKEN_COUNTS, 0))
    _tokens.set(tokens)
    result: LineResult = engine.run(inputs)
    row: Row = {"line_number": line, "tokens": dict(tokens)}
    if result.error is None:
        return {**row, "output": result.outputs}
    return {**row, "error": result.error.message, "may_pass": not result.error.is_user_error}


_tokens: contextvars.ContextVar[Counter[str] | None] = contextvars.ContextVar(
    "line_tokens", default=None
)


class _TokenObserver(CallObserver):
    """Adds the tokens of each answer to the line in whose context the call runs."""

    def on_answered(self, reply: Reply) -> None:
        tokens = _tokens.get()
        if tokens is not None and reply.usage is not None:
            for name in TOKEN_COUNTS:
                tokens[name] += getattr(reply.usage, name) or 0


def _ended_lines(folder: Path) -> Iterator[tuple[int, Row]]:
    """Yield number and row of each line that an earlier attempt has finished."""
    for path in folder.glob("*.json"):
        try:
            (row,) = _read_rows(path)
        except ValueError:  # the process was killed while it wrote the file
            continue
        yield row["line_number"], row


def _read_rows(path: Path) -> list[Row]:
    # `str.splitlines` also splits at U+2028 and U+0085, which JSON strings may contain.
    return [json.loads(text) for text in path.read_text(encoding="utf-8").split("\n") if text]


def _write(path: Path, rows: Iterable[Row]) -> None:
    text = "".join(f"{json.dumps(row, default=str)}\n" for row in rows)
    path.write_text(text, encoding="utf-8")


# -- connections -----------------------------------------------------------------------------------


class WorkspaceConnections:
    """Reads the connections of the job's workspace, each of them once, and keeps them in memory.

    Contract: "Workspace connections - List Secrets".
    """

    def __init__(self) -> None:
        self._connections: dict[str, Connection] = {}
        self._lock = threading.Lock()

    def __call__(self, name: str) -> Connection:
        """Return a connection.

        Raises:
            RuntimeError: it cannot be read, or flows cannot use it.
        """
        with self._lock:
            if name not in self._connections:
                self._connections[name] = _read_connection(name)
            return self._connections[name]


def _read_connection(name: str) -> Connection:
    subscription, group, workspace = (os.environ[variable] for variable in WORKSPACE_VARIABLES)
    url = (
        f"{ARM}/subscriptions/{subscription}/resourceGroups/{group}/providers"
        f"/Microsoft.MachineLearningServices/workspaces/{workspace}/connections/{quote(name)}/listsecrets"
    )
    answer = _session().post(
        url,
        params={"api-version": CONNECTIONS_API_VERSION},
        headers={"Authorization": f"Bearer {arm_token()}"},
        timeout=REQUEST_TIMEOUT_S,
    )
    what = f"the connection {name!r} of the workspace {workspace} cannot be read"
    if answer.status_code == 403:
        raise RuntimeError(
            f"{what}: the identity of the job may not read it; assign the role Azure Machine Learning "
            "Workspace Connection Secrets Reader on the workspace"
        )
    if not answer.ok:
        raise RuntimeError(f"{what}: status {answer.status_code} {answer.reason}")
    properties = answer.json()["properties"]
    keys = (properties.get("credentials") or {}).get("keys") or {}
    return Connection(name, properties.get("metadata") or {}, keys, f"the workspace {workspace}")


def arm_token() -> str:
    """Return a token for Azure Resource Manager: of the user who submitted the job, or of the cluster.

    Azure ML sets OBO_ENDPOINT in jobs that run with the identity of their user. Contract: the class
    AzureMLOnBehalfOfCredential of azure-ai-ml.

    Raises:
        RuntimeError: the job has no identity.
    """
    if endpoint := os.environ.get("OBO_ENDPOINT"):
        answer = _session().get(endpoint, params={"resource": ARM}, timeout=REQUEST_TIMEOUT_S)
        if not answer.ok:
            what = f"Azure ML gave no token of the job's user: status {answer.status_code}"
            raise RuntimeError(f"{what}; {IDENTITY_FIX}")
        content = answer.json()
        return str(content.get("access_token") or content["token"])
    from azure.core.exceptions import ClientAuthenticationError
    from azure.identity import ManagedIdentityCredential

    client_id = os.environ.get("DEFAULT_IDENTITY_CLIENT_ID")
    try:
        return str(
            ManagedIdentityCredential(client_id=client_id).get_token(f"{ARM}/.default").token
        )
    except ClientAuthenticationError as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise RuntimeError(f"the cluster has no identity: {first}; {IDENTITY_FIX}") from error


IDENTITY_FIX = "set `azure.identity: true` in phi3.yaml, and run `phi3 provision`"


def _session() -> requests.Session:
    """Return a session that repeats requests which Azure refuses for a while."""
    session = requests.Session()
    wait = Retry(total=5, backoff_factor=1, status_forcelist=(429, 500, 502, 503, 504))
    wait.allowed_methods = None  # also POST, which only reads here
    session.mount("https://", HTTPAdapter(max_retries=wait))
    session.mount("http://", HTTPAdapter(max_retries=wait))
    return session
