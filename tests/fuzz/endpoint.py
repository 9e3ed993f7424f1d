"""Fuzz the local endpoint: generated, hostile and damaged requests to all of its routes.

    python tests/fuzz/endpoint.py 600 --seed 7

The front end runs in this process and the real scoring script in another one, with a model that repeats
the prompt. A run of a minute or more also uses the tests' tiny Phi-3. Requests come from the endpoint's
own OpenAPI document (Schemathesis) and from Hypothesis. A status of 500 or more, an answer that takes
more than 5 s, an answer that cannot be read, an answer with the key, an error in the log, and a request
that is not released at the end are failures. Exits with 1 after a failure.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "tests/support")]

import psutil  # noqa: E402
import requests  # noqa: E402
import schemathesis  # noqa: E402
from fuzzing import (  # noqa: E402
    HANG_S,
    Answer,
    Counts,
    FailureFound,
    Request,
    Run,
    event_data,
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
    header_bytes,
    headers,
    methods,
    raw_data,
    texts,
    values,
)
from hypothesis import strategies as st  # noqa: E402

from phi3_ops.endpoint.container import Container, Deployment  # noqa: E402
from tiny_endpoint import KEY, running  # noqa: E402

WINDOW = 512  # tokens
TINY_FROM_S = 60  # seconds of a run that is long enough to load the tiny model
# The scoring script, with a model that repeats the prompt byte by byte.
SCORE = f"""
import sys
sys.path[:0] = [{str(ROOT / "scripts/serving")!r}, {str(ROOT / "tests/support")!r}]
from byte_backend import ByteBackend
from engine import BatchingEngine
from score import Scorer, ScoringError, parse, sse

def load(model, name=None):
    return Scorer(BatchingEngine(ByteBackend(context_window={WINDOW})), model.name)
"""
PARAMETERS = (
    *(
        "max_new_tokens",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "top_k",
        "n",
    ),
    *("do_sample", "repetition_penalty", "frequency_penalty", "presence_penalty", "logit_bias"),
    *("return_full_text", "stop", "seed", "stream", "stream_options", "logprobs", "top_logprobs"),
    *("model", "response_format", "modalities", "tools", "tool_choice", "user", "metadata", "echo"),
)
PATHS = (
    *(b"/", b"/score", b"/v1/chat/completions", b"/v1/models", b"/swagger.json", b"/openapi.json"),
    *(
        b"/score/",
        b"//score",
        b"/%2e%2e/score",
        b"/score?x=\xff",
        b"*",
        b"/docs",
        b"/v1",
        b"/\xff\xfe",
    ),
    b"http://127.0.0.1/score",
)


class Guard(logging.Handler):
    """Keeps the errors that the endpoint logs."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        cause = f": {record.exc_info[1]!r}" if record.exc_info else ""
        first_line = record.getMessage().partition("\n")[0]  # the others contain addresses
        self.messages.append(f"{first_line}{cause}")


class EndpointFuzzer:
    """The checks of the endpoint.

    Args:
        url: base URL of the endpoint.
        counts: receives the outcomes.
        guard: handler of the endpoint's log.
    """

    def __init__(self, url: str, counts: Counts, guard: Guard) -> None:
        self.url, self.port = url, port_of(url)
        self.counts, self.guard = counts, guard
        self.session = requests.Session()
        self.session.trust_env = False

    def structured(self, request: Request) -> None:
        """Send a request, and check its answer."""
        self.judge(send_request(self.port, request), request)

    def raw(self, data: bytes) -> None:
        """Send bytes, and check that the endpoint still answers."""
        self.judge(send_bytes(self.port, data), data)
        alive = send_request(self.port, Request("GET", b"/"))
        if alive.status != 200:
            raise FailureFound("the endpoint no longer answers", data)

    def leaving(self, arguments: tuple[Request, int]) -> None:
        """Send a request and leave before the end of its answer."""
        leave_early(self.port, *arguments)
        self.counts.add("left")
        self.judge_log(arguments)

    def generated(self, case: schemathesis.Case) -> None:
        """Send a request of Schemathesis, and compare the answer with the OpenAPI document."""
        start = time.monotonic()
        given = dict(case.headers or {})
        given["Authorization"] = f"Bearer {KEY}"
        if given.get("azureml-model-deployment") not in (None, "blue"):
            given.pop("azureml-model-deployment")
            case.headers.pop("azureml-model-deployment", None)
        try:
            response = case.call(self.url, session=self.session, headers=given, timeout=HANG_S)
        except requests.exceptions.InvalidHeader:
            return  # such a header cannot be sent
        except UnicodeEncodeError:
            return
        except requests.RequestException as error:
            raise FailureFound(
                f"no answer: {type(error).__name__}", case.as_curl_command()
            ) from None
        pairs = {name.lower(): str(value[0]) for name, value in response.headers.items()}
        answer = Answer(response.status_code, pairs, response.content, time.monotonic() - start)
        self.judge(answer, case.as_curl_command())
        self.compare(case, response)

    def compare(self, case: schemathesis.Case, response: Any) -> None:
        checks = schemathesis.checks
        documented = [
            checks.not_a_server_error,
            checks.status_code_conformance,
            checks.content_type_conformance,
        ]
        # Schemathesis compares each event with the schema of the complete text, which does not fit.
        if "event-stream" not in str(response.headers.get("content-type")):
            documented.append(checks.response_schema_conformance)
        try:
            case.validate_response(response, checks=documented)
        except checks.FailureGroup as group:
            first = group.exceptions[0]
            kind = f"not as documented: {type(first).__name__} {response.status_code}"
            raise FailureFound(kind, f"{case.as_curl_command()} -> {first}") from None

    def judge(self, answer: Answer, request: object) -> None:
        self.counts.add(answer.status or "closed", answer.seconds)
        inner = answer.headers.get("ms-azureml-model-error-statuscode", "0")
        if max(answer.status or 0, int(inner)) >= 500:
            raise FailureFound(f"status {answer.status} around {inner}", request)
        if answer.media_type == "text/event-stream" and b'"server_error"' in answer.body:
            for data in event_data(answer.body):
                if data.startswith('{"error"'):
                    raise FailureFound("a stream ends with an error of the server", request)
        require_text(answer, request)
        if KEY.encode() in answer.body or KEY in str(answer.headers):
            raise FailureFound("the answer contains the key", request)
        self.judge_log(request)

    def judge_log(self, request: object) -> None:
        if self.guard.messages:
            message, self.guard.messages = self.guard.messages[0], []
            raise FailureFound(f"logged: {message}"[:200], request)


# --- inputs -----------------------------------------------------------------------------------

authorizations = st.one_of(
    *[st.just(f"Bearer {KEY}".encode())] * 5,
    header_bytes,
    header_bytes.map(lambda data: b"Bearer " + data),
    st.sampled_from(
        [f"bearer  {KEY} ".encode(), b"\xff " + KEY.encode(), b"\xb5 x", b"Basic Og=="]
    ),
)
settings_of_requests = st.dictionaries(
    st.sampled_from(PARAMETERS) | texts,
    st.one_of(values, st.just(1), st.just(True), st.just(0.5), st.just({"1": 3})),
    max_size=4,
)
messages = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "user", "assistant"]) | values,
            "content": texts
            | values
            | st.lists(st.fixed_dictionaries({"text": texts}), max_size=3),
        },
        optional={"type": values, "name": texts},
    ),
    max_size=4,
)
input_data = st.one_of(
    values,
    st.lists(texts, max_size=20),
    st.integers(1, 5000).map(lambda number: ["x"] * number),
    st.fixed_dictionaries(
        {"input_string": messages | st.lists(messages, max_size=2) | st.lists(texts) | values},
        optional={"parameters": settings_of_requests | values},
    ),
)
payloads = st.one_of(
    values,
    st.fixed_dictionaries(
        {"input_data": input_data}, optional={"params": settings_of_requests | values}
    ),
    st.builds(
        lambda chat, more: {**more, "messages": chat}, messages | values, settings_of_requests
    ),
)


@st.composite
def hostile_requests(draw: Any) -> Request:
    is_post = draw(st.integers(0, 9)) < 9
    pairs = [(b"authorization", draw(authorizations)), (b"content-type", draw(content_types))]
    return Request(
        method="POST" if is_post else draw(methods),
        target=draw(st.sampled_from([b"/score", b"/v1/chat/completions"] * 4 + [*PATHS])),
        headers=(*pairs, *draw(headers)),
        body=draw(as_json(payloads)) if is_post else b"",
        framing=draw(framings),
    )


@st.composite
def tiny_requests(draw: Any) -> Request:
    """Draw a request to the tiny model: few tokens, and any text."""
    chat = [{"role": role, "content": draw(texts)} for role in draw(st.sampled_from(ROLES))]
    payload = {
        **draw(settings_of_requests),
        "messages": chat,
        "max_tokens": draw(st.integers(1, 8)),
    }
    pairs = [(b"authorization", f"Bearer {KEY}".encode()), (b"azureml-model-deployment", b"tiny")]
    body = json.dumps(payload).encode()
    return Request("POST", b"/v1/chat/completions", tuple(pairs), body)


ROLES = (["user"], ["system", "user"], ["user", "assistant", "user"], ["assistant"])


@st.composite
def streamed(draw: Any) -> Request:
    payload = {"messages": [{"role": "user", "content": "x" * draw(st.integers(1, 400))}]}
    pairs = ((b"authorization", f"Bearer {KEY}".encode()),)
    body = json.dumps({**payload, "stream": draw(st.booleans())}).encode()
    return Request("POST", draw(st.sampled_from([b"/score", b"/v1/chat/completions"])), pairs, body)


# --- the run ----------------------------------------------------------------------------------


def make_containers(folder: Path, with_tiny: bool) -> list[Container]:
    """Make the deployments: the scoring script with the repeating model, and with the tiny one."""
    code, model = folder / "code", folder / "blue"
    code.mkdir()
    model.mkdir()
    (code / "score.py").write_text(SCORE)
    deployments = [Deployment("blue", model, code=code)]
    if with_tiny:
        from tiny_model import build_tiny_model

        deployments.append(Deployment("tiny", build_tiny_model(folder / "tiny"), weight=0))
    return [Container(deployment) for deployment in deployments]


@contextmanager
def listening(guard: Guard) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("uvicorn.error", "phi3.endpoint", "asyncio")]
    for logger in loggers:
        logger.addHandler(guard)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(guard)


def require_released(counts: Counts, containers: list[Container]) -> None:
    """Require that no request is in flight any more."""
    end = time.monotonic() + HANG_S
    while time.monotonic() < end and any(c.in_flight or c._calls for c in containers):
        time.sleep(0.05)
    for container in containers:
        if container.in_flight or container._calls:
            what = f"{container.in_flight} requests and {len(container._calls)} calls"
            counts.fail("requests are in flight after the end", what)


def fuzz(run: Run) -> int:
    """Fuzz for the seconds of the run; return the exit status."""
    counts, guard = Counts("endpoint", run.seed), Guard()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="phi3-fuzz-")))
        containers = make_containers(folder, with_tiny=run.seconds >= TINY_FROM_S)
        url = stack.enter_context(running(containers))
        stack.enter_context(listening(guard))
        fuzzer = EndpointFuzzer(url, counts, guard)
        document = schemathesis.openapi.from_dict(requests.get(f"{url}/swagger.json").json())
        checks = [
            (hostile_requests(), fuzzer.structured),
            (raw_data | damaged_requests(hostile_requests()), fuzzer.raw),
            (st.tuples(streamed(), st.integers(0, 300)), fuzzer.leaving),
        ]
        for operation in document.get_all_operations():
            for mode in schemathesis.GenerationMode:
                with_mode = operation.ok().as_strategy(generation_mode=mode)
                checks.append((with_mode, fuzzer.generated))
        if len(containers) > 1:
            checks.append((tiny_requests(), fuzzer.structured))
        process = psutil.Process()
        files, memory = process.num_fds(), process.memory_info().rss
        explore(counts, run, checks)
        require_released(counts, containers)
        return counts.finish(
            open_files=f"{process.num_fds() - files:+d}",
            memory=f"{(process.memory_info().rss - memory) / 2**20:+.0f} MiB",
        )


if __name__ == "__main__":
    main(fuzz, __doc__)
