"""Fuzz the client against an endpoint that answers with damaged answers, headers and streams.

    python tests/fuzz/client.py 600 --seed 7

The endpoint is a socket of this process. Its answers are those of tests/golden/contracts, mutated, and
hostile status lines, headers, bodies and events, at any pace. Each call must end in a Reply or in a
Phi3Error, within its deadline. No error, log record or field of a reply may contain a part of the key,
and each text must be valid UTF-8. Exits with 1 after a failure.
"""

from __future__ import annotations

import contextlib
import html
import json
import logging
import os
import socket
import struct
import sys
import threading
import time
import traceback
import urllib.parse
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "tests/support")]

import psutil  # noqa: E402
from fuzzing import (  # noqa: E402
    Counts,
    FailureFound,
    Run,
    explore,
    main,
)
from hypothesis import strategies as st  # noqa: E402
from scripted_answers import GOOD, KEY, MAX_BYTES, Script, chats, contracts, params, scripts  # noqa: E402

from phi3_tools import Limits, Params, Phi3Client, Phi3Error, Reply  # noqa: E402

PART = 8  # characters of the key that count as a leak
DEADLINE_S = 0.6
SLACK_S = 0.7  # for a machine that does other work
LIMITS = Limits(
    connect_timeout_s=0.5,
    read_timeout_s=0.3,
    deadline_s=DEADLINE_S,
    max_attempts=2,
    max_answer_bytes=MAX_BYTES,
    backoff_first_s=0.01,
    backoff_max_s=0.02,
    retry_after_max_s=0.05,
)


class Endpoint(threading.Thread):
    """A server on a loopback socket that plays the current script for each request."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.script = Script((), "close")
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, ValueError):
            connection.settimeout(5)
            while self.read_request(connection):
                script = self.script
                for wait, data in script.pieces:
                    time.sleep(wait)
                    connection.sendall(data)
                if script.end == "reset":
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                if script.end != "stay":
                    return

    def read_request(self, connection: socket.socket) -> bool:
        """Read one request; return whether there was one."""
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = connection.recv(65536)
            if not chunk:
                return False
            data += chunk
        head, _, body = data.partition(b"\r\n\r\n")
        lines = [line.partition(b":") for line in head.lower().split(b"\r\n")]
        left = next(int(value) for name, _, value in lines if name == b"content-length") - len(body)
        while left > 0:
            left -= len(connection.recv(65536))
        return True


class Records(logging.Handler):
    """Keeps the texts of log records."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.texts: list[str] = []
        self.setFormatter(logging.Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))


class ClientFuzzer:
    """The checks of the client.

    Args:
        endpoint: the running endpoint.
        counts: receives the outcomes.
        records: handler of the root logger.
    """

    def __init__(self, endpoint: Endpoint, counts: Counts, records: Records) -> None:
        self.endpoint, self.counts, self.records = endpoint, counts, records
        self.clients: dict[str, Phi3Client] = {}

    def client(self, contract: str) -> Phi3Client:
        url = f"http://127.0.0.1:{self.endpoint.port}/score"
        fields = {"endpoint": url, "key": KEY, "contract": contract, "model": "phi3"}
        return Phi3Client.from_connection(fields, limits=LIMITS)

    def answered(self, arguments: tuple[Script, str, bool]) -> None:
        """Make one call to an endpoint that follows a script."""
        script, contract, streams = arguments
        self.endpoint.script = script
        with self.client(contract) as client:
            self.call(client, "hello", Params(), streams, script)

    def asked(self, arguments: tuple[Any, dict[str, Any]]) -> None:
        """Make one call with hostile messages and parameters."""
        messages, params = arguments
        self.endpoint.script = GOOD
        with self.client("chat") as client:
            self.call(client, messages, params, False, (messages, params))

    def call(
        self,
        client: Phi3Client,
        messages: Any,
        params: Params | dict[str, Any],
        streams: bool,
        input: object,
    ) -> None:
        self.records.texts.clear()
        start = time.monotonic()
        shown: list[str] = []
        try:
            if isinstance(params, dict):
                params = Params(**params)
            reply = self.reply(client, messages, params, streams)
            outcome = "Reply"
            shown = [str(field) for field in (reply.model, reply.finish_reason, reply.request_id)]
            reply.text.encode("utf-8")
        except Phi3Error as error:
            outcome = type(error).__name__
            trace = "".join(traceback.format_exception(error))
            shown = [str(error), repr(error), json.dumps(error.as_dict()), trace, error.what]
        except UnicodeEncodeError:
            raise FailureFound("the text of a reply is not valid UTF-8", str(input)) from None
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} in {Path(where.filename).name}:{where.name}"
            raise FailureFound(kind, f"{input} -> {error}") from None
        seconds = time.monotonic() - start
        self.counts.add(outcome, seconds)
        if seconds > DEADLINE_S + SLACK_S:
            raise FailureFound(f"{outcome} after the deadline", f"{input} took {seconds:.2f} s")
        self.require_clean([*shown, *self.records.texts], outcome, input)

    def reply(self, client: Phi3Client, messages: Any, params: Params, streams: bool) -> Reply:
        if not streams:
            return client.chat(messages, params)
        with client.stream(messages, params) as stream:
            pieces = [*stream]
            reply = stream.reply
        if reply is None or reply.text != "".join(pieces):
            raise ValueError("the pieces of a stream are not its reply")
        return reply

    def require_clean(self, shown: list[str], outcome: str, input: object) -> None:
        for text in shown:
            for form in (text, urllib.parse.unquote(text), html.unescape(text)):
                if any(KEY[n : n + PART] in form for n in range(len(KEY) - PART + 1)):
                    raise FailureFound(f"{outcome}: a text contains a part of the key", str(input))
            try:
                text.encode("utf-8")
            except UnicodeEncodeError:
                raise FailureFound(f"{outcome}: a text is not valid UTF-8", str(input)) from None


# --- the run ----------------------------------------------------------------------------------


@contextlib.contextmanager
def recording() -> Iterator[Records]:
    """Keep the records of all loggers, and pass warnings to them."""
    records, root = Records(), logging.getLogger()
    level = root.level
    root.addHandler(records)
    root.setLevel(logging.DEBUG)
    logging.captureWarnings(True)
    try:
        yield records
    finally:
        logging.captureWarnings(False)
        root.setLevel(level)
        root.removeHandler(records)


def fuzz(run: Run) -> int:
    """Fuzz for the seconds of the run; return the exit status."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    counts, endpoint = Counts("client", run.seed), Endpoint()
    endpoint.start()
    with recording() as records, warnings.catch_warnings():
        fuzzer = ClientFuzzer(endpoint, counts, records)
        calls = st.tuples(scripts(), contracts, st.booleans())
        process = psutil.Process()
        files, memory = process.num_fds(), process.memory_info().rss
        explore(
            counts, run, [(calls, fuzzer.answered)] * 4 + [(st.tuples(chats, params), fuzzer.asked)]
        )
    time.sleep(1)  # threads of the endpoint that still wait
    left = process.num_fds() - files
    if left > 100:
        counts.fail("connections stay open", f"{left} more than before")
    endpoint.listener.close()
    grown = (process.memory_info().rss - memory) / 2**20
    return counts.finish(open_files=f"{left:+d}", memory=f"{grown:+.0f} MiB")


if __name__ == "__main__":
    main(fuzz, __doc__)
