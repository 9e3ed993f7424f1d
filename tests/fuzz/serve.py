"""Fuzz `phi3 serve --feedback` with the flow `chat`: its page, `/score`, `/feedback`, hostile clients.

    python tests/fuzz/serve.py 600 --seed 7

The server is a process of its own, in front of an endpoint that repeats each question. A status of 500
or more, an answer that takes more than 5 s, an answer that cannot be read or contains the key, a
traceback in the server's output, files that stay open, and memory that keeps growing are failures. Exits
with 1 after a failure.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "tests/support")]

import psutil  # noqa: E402
from fuzzing import (  # noqa: E402
    HANG_S,
    Answer,
    Counts,
    FailureFound,
    Request,
    Run,
    explore,
    leave_early,
    main,
    port_of,
    require_text,
    send_bytes,
    send_request,
)
from hostile import (  # noqa: E402
    as_json,
    content_types,
    damaged_requests,
    framings,
    headers,
    methods,
    raw_data,
    texts,
    values,
)
from hypothesis import strategies as st  # noqa: E402

from echo_endpoint import KEY, EchoServer, echo_endpoint  # noqa: E402
from served_flow import Served, phi3_serve  # noqa: E402
from stores import make_store  # noqa: E402

WARM_UP = 300  # requests before the files and the memory are measured
MORE_FILES = 24  # that may be open at the end: kept connections to the endpoint, one per thread
MORE_MIB = 400  # that the server may need after the warm-up
OUTSIDE = (
    b"evil.example",
    b"127.0.0.1.evil.example",
    b"localhost@evil.example",
    b"[::1]evil",
    b"\xff",
)


class ServeFuzzer:
    """The checks of `phi3 serve`.

    Args:
        served: the running server.
        endpoint: the endpoint of its connection.
        counts: receives the outcomes.
    """

    def __init__(self, served: Served, endpoint: EchoServer, counts: Counts) -> None:
        self.port = port_of(served.url)
        self.served, self.endpoint, self.counts = served, endpoint, counts
        self.process = psutil.Process(served.process.pid)
        self.output_read = 0
        self.before: tuple[int, int] | None = None

    def structured(self, request: Request) -> None:
        """Send a request, and check its answer."""
        self.judge(send_request(self.port, request), request)

    def outside(self, request: Request) -> None:
        """Send a request of another origin or to another host, which must be refused."""
        answer = send_request(self.port, request)
        self.judge(answer, request)
        if answer.status is not None and answer.status < 400:
            raise FailureFound(f"a request of another origin got {answer.status}", request)

    def raw(self, data: bytes) -> None:
        """Send bytes, and check that the server still answers."""
        self.judge(send_bytes(self.port, data), data)
        alive = send_request(self.port, Request("GET", b"/health"))
        if alive.status != 200:
            raise FailureFound("the server no longer answers", data)

    def leaving(self, arguments: tuple[Request, int]) -> None:
        """Send a request and leave before the end of its answer."""
        leave_early(self.port, *arguments)
        self.counts.add("left")
        self.judge_output(arguments)

    def judge(self, answer: Answer, request: object) -> None:
        self.counts.add(answer.status or "closed", answer.seconds)
        if (answer.status or 0) >= 500:
            raise FailureFound(f"status {answer.status}", request)
        require_text(answer, request)
        if KEY.encode() in answer.body or KEY in str(answer.headers):
            raise FailureFound("the answer contains the key", request)
        self.judge_output(request)
        self.endpoint.requests.clear()
        if self.before is None and sum(self.counts.statuses.values()) > WARM_UP:
            self.before = self.measure()

    def judge_output(self, request: object) -> None:
        """Require that the server has not printed a traceback since the last request."""
        if self.served.process.poll() is not None:
            raise FailureFound("the server has ended", request)
        os.lseek(self.served.output.fileno(), self.output_read, os.SEEK_SET)
        printed = os.read(self.served.output.fileno(), 2**20)
        os.lseek(self.served.output.fileno(), 0, os.SEEK_END)  # where the server goes on
        self.output_read += len(printed)
        if b"Traceback" in printed or KEY.encode() in printed:
            last = printed.decode("utf-8", "replace").strip().rpartition("\n")[2]
            raise FailureFound(f"printed: {last}"[:200], request)

    def measure(self) -> tuple[int, int]:
        """Return the server's number of open files and its memory in MiB."""
        return self.process.num_fds(), self.process.memory_info().rss // 2**20

    def require_released(self) -> dict[str, str]:
        """Require that files and memory have been released; return what the counts mention."""
        if self.before is None:
            return {}
        files, memory = self.before
        end = time.monotonic() + HANG_S
        while time.monotonic() < end and self.process.num_fds() > files + MORE_FILES:
            time.sleep(0.1)
        files, memory = (now - then for now, then in zip(self.measure(), self.before))
        if files > MORE_FILES:
            self.counts.fail("files stay open", f"{files} more than after the warm-up")
        if memory > MORE_MIB:
            self.counts.fail("the memory grows", f"{memory} MiB more than after the warm-up")
        return {"open_files": f"{files:+d}", "memory": f"{memory:+d} MiB"}


# --- inputs -----------------------------------------------------------------------------------

image_keys = st.sampled_from(
    [
        *(
            "data:image/png;path",
            "data:image/*;path",
            "data:image/jpg;url",
            "data:image/png;base64",
        ),
        *("data:image/png", "DATA:image/png;path", "image_url", "image_file", "type"),
    ]
)
image_values = st.sampled_from(
    ["/etc/passwd", "/dev/ptmx", "/dev/zero", "http://127.0.0.1:1/", "file:///etc/passwd", "A" * 99]
)
images = st.one_of(
    st.dictionaries(image_keys, image_values | values, min_size=1, max_size=2),
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["image_url", "image_file", "text"]),
            "image_url": st.fixed_dictionaries({"url": image_values}) | values,
            "image_file": st.fixed_dictionaries({"path": image_values}) | values,
        }
    ),
)
turns = st.one_of(
    values,
    images,
    st.fixed_dictionaries(
        {
            "inputs": st.fixed_dictionaries({"question": texts | values | images}) | values,
            "outputs": st.fixed_dictionaries({"answer": texts | values | st.lists(images)})
            | values,
        }
    ),
)
histories = st.lists(turns, max_size=4) | values | images
payloads = st.one_of(
    values,
    st.fixed_dictionaries(
        {"question": texts | values | images | st.sampled_from(["fail", "two words"])},
        optional={"chat_history": histories, "line_number": values, "x": values},
    ),
)
score_headers = st.sampled_from(
    [
        (),
        ((b"accept", b"text/event-stream"),),
        ((b"accept", b"text/event-stream"), (b"x-phi3-usage", b"1")),
        ((b"accept", b"text/event-stream"), (b"accept", b"application/json")),
        ((b"accept", b"image/png"),),
    ]
)
PATHS = (
    *(b"/", b"/page.json", b"/markdown", b"/health", b"/version", b"/swagger.json", b"/feedback"),
    *(b"/static/index.html", b"/static/../guard.py", b"/static/%2e%2e/guard.py", b"/static/", b"*"),
    *(
        b"/score/",
        b"//score",
        b"/side1/score",
        b"/score?a=\xff",
        b"/%00",
        b"/static/\xff",
        b"/docs",
    ),
    *(b"/static/page.js", b"/static//etc/passwd", b"/favicon.ico", b"http://127.0.0.1/page.json"),
)


@st.composite
def score_requests(draw: Any) -> Request:
    return Request(
        method="POST",
        target=b"/score",
        headers=(
            (b"content-type", draw(content_types)),
            *draw(score_headers),
            *draw(headers),
        ),
        body=draw(as_json(payloads)),
        framing=draw(framings),
    )


feedback_kinds = st.sampled_from(["thumbs_up", "thumbs_down", "edit", "choice", "comment"])
feedback_texts = st.fixed_dictionaries(
    {"kind": feedback_kinds | values, "question": texts | values, "answer": texts | values},
    optional={
        **dict.fromkeys(("edited", "chosen", "rejected", "comment", "who"), texts | values),
        **dict.fromkeys(("id", "conversation", "turn", "x"), texts | values),
        "history": st.lists(
            st.fixed_dictionaries({"role": st.sampled_from(["user", "tool"]) | values})
            | st.fixed_dictionaries({"role": st.just("assistant"), "content": texts | values})
            | values,
            max_size=4,
        )
        | values,
        "connection": st.sampled_from(["phi3", None]) | values,
        "against": values,
    },
)


@st.composite
def feedback_requests(draw: Any) -> Request:
    return Request(
        method="POST",
        target=draw(st.sampled_from([b"/feedback", b"/feedback?flatten=true"])),
        headers=((b"content-type", draw(content_types)), *draw(headers)),
        body=draw(as_json(feedback_texts | values)),
        framing=draw(framings),
    )


@st.composite
def page_requests(draw: Any) -> Request:
    method = draw(st.sampled_from(["GET", "POST"]) | methods)
    is_markdown = draw(st.booleans())
    body = b"" if method != "POST" else draw(markdown | as_json(payloads))
    return Request(
        method="POST" if is_markdown else method,
        target=b"/markdown" if is_markdown else draw(st.sampled_from(PATHS)),
        headers=((b"content-type", draw(content_types)), *draw(headers)),
        body=draw(markdown) if is_markdown else body,
        framing=draw(framings),
    )


markdown = st.one_of(
    st.binary(max_size=200),
    texts.map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.builds(
        lambda piece, times: piece * min(times, 200_000 // len(piece)),
        st.sampled_from(
            [
                *(
                    b"[",
                    b"![",
                    b"*",
                    b"_a_",
                    b"> ",
                    b"- ",
                    b"`",
                    b"<",
                    b"|a",
                    b"[a](",
                    b"**a ",
                    b"\n\n",
                ),
                *(
                    b"[a]: b\n",
                    b"a\n- ",
                    b"|-|\n",
                    b"&#0;",
                    b"&lt;",
                    b"\\",
                    b"    ",
                    b"# ",
                    b"1. ",
                    b"<a ",
                ),
                *(
                    b"*a_ ",
                    b"`` ` ",
                    b"<!--",
                    b"[x][",
                    b"[](",
                    b"](x)",
                    b"http://a ",
                    b"|a|b|\n|-|-|\n",
                ),
            ]
        ),
        st.integers(1, 100_000),
    ),
)


@st.composite
def outside_requests(draw: Any) -> Request:
    """Draw a valid request whose Host or Origin is that of another server."""
    host = draw(st.sampled_from([b"127.0.0.1", *OUTSIDE]))
    origins = [b"http://" + name for name in OUTSIDE] + [b"null", b"", b"file://", b"http://"]
    origin = draw(st.sampled_from(origins))
    pairs: list[tuple[bytes, bytes]] = [(b"content-type", b"application/json")]
    if host == b"127.0.0.1" or draw(st.booleans()):
        pairs.append((b"origin", origin))
    target = draw(st.sampled_from([b"/score", b"/", b"/page.json", b"/markdown", b"/health"]))
    method = "POST" if target in (b"/score", b"/markdown") else "GET"
    return Request(method, target, tuple(pairs), b'{"question": "x"}', host=host)


@st.composite
def streamed(draw: Any) -> Request:
    question = "word " * draw(st.integers(1, 300))
    pairs = ((b"content-type", b"application/json"), *draw(score_headers))
    body = b'{"question": "%s", "chat_history": []}' % question.encode()
    return Request("POST", b"/score", pairs, body)


# --- the run ----------------------------------------------------------------------------------


def fuzz(run: Run) -> int:
    """Fuzz for the seconds of the run; return the exit status."""
    counts = Counts("serve", run.seed)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="phi3-fuzz-")))
        # Before promptflow is imported, which reads these variables.
        os.environ["PF_HOME_DIRECTORY"] = str(make_store(folder / "home"))
        os.environ["PF_TRACING_SKIP_LOCAL_SETUP"] = "true"
        from phi3_ops.pf.connections import save_connection

        endpoint = stack.enter_context(echo_endpoint())
        endpoint.may_finish.set()
        # The server leaves the endpoint when its client leaves.
        endpoint.handle_error = lambda *_: None
        save_connection("phi3", {"endpoint": endpoint.url, "max_attempts": "1"}, KEY)
        served = stack.enter_context(
            phi3_serve("--feedback", "--feedback-store", folder / "feedback.sqlite")
        )
        fuzzer = ServeFuzzer(served, endpoint, counts)
        checks = [
            (score_requests(), fuzzer.structured),
            (page_requests(), fuzzer.structured),
            (feedback_requests(), fuzzer.structured),
            (outside_requests(), fuzzer.outside),
            (raw_data | damaged_requests(score_requests()), fuzzer.raw),
            (st.tuples(streamed(), st.integers(0, 300)), fuzzer.leaving),
        ]
        explore(counts, run, checks)
        return counts.finish(**fuzzer.require_released())


if __name__ == "__main__":
    main(fuzz, __doc__)
