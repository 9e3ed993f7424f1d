"""Spans that arrive over OTLP and at Application Insights, and none without the option."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

import echo_endpoint
from phi3_ops import paths
from phi3_ops.chat.traces import (
    CONNECTION_STRING,
    QUIET,
    READ_BY_OTHERS,
    _exporter_without_texts,
    start_tracing,
    without_texts,
)
from phi3_ops.cli import main
from phi3_ops.errors import OpsError
from phi3_ops.pf.connections import delete_connection, save_connection
from phi3_tools.client.spans import CAPTURE_VARIABLE
from processes import pf
from scripted_endpoint import scripted_endpoint
from served_flow import phi3_serve
from stores import make_store

QUESTION = "Whose secret is it?"
KEY = "11111111-2222-4333-8444-555555555555"
PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


class Receiver(ThreadingHTTPServer):
    """Takes whatever is posted or tunnelled, as a collector, an ingestion service or a proxy.

    Attributes:
        posts: (path, body), in order.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.posts = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def spans(self):
        """The spans that arrived by OTLP: (scope, name, attributes)."""
        spans = []
        for _, body in self.posts:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        values = {each.key: _value(each.value) for each in span.attributes}
                        spans.append((scope.scope.name, span.name, values))
        return spans

    def calls(self):
        """The attributes of the client's own spans."""
        return [values for scope, _, values in self.spans() if scope == "phi3_tools"]


def _value(value):
    return getattr(value, value.WhichOneof("value"))


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.posts.append((self.path, body))
        answer = json.dumps({"itemsReceived": 1, "itemsAccepted": 1, "errors": []}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_CONNECT(self):  # to a proxy
        self.server.posts.append((self.path, b""))
        self.send_error(403)

    do_GET = do_CONNECT

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def receiver():
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def endpoint():
    with scripted_endpoint() as endpoint:
        save_connection("phi3", {"endpoint": endpoint.url, "max_attempts": "1"}, "a-key")
        yield endpoint
        delete_connection("phi3")


@pytest.fixture
def collector():
    with receiver() as server:
        yield server


@pytest.fixture
def outside():
    """A proxy for all hosts but loopback: it receives every request to the internet."""
    with receiver() as server:
        yield server


def through(proxy):
    return dict.fromkeys(PROXIES, proxy.url) | {"NO_PROXY": "127.0.0.1,localhost"}


# -- phi3 serve --------------------------------------------------------------------------------------


def test_otlp_gets_the_calls_with_tokens_and_without_texts(endpoint, collector, outside):
    words = ("--trace", f"otlp={collector.url}", "--engine", "promptflow")
    with phi3_serve(*words, PF_DISABLE_TRACING="false", **through(outside)) as served:
        with served.ask(QUESTION, stream=True) as streamed:
            assert b"it?" in streamed.content
        served.stop()  # sends the remaining spans
    assert {path for path, _ in collector.posts} == {"/v1/traces"}
    (call,) = collector.calls()
    assert call["gen_ai.usage.input_tokens"] == 11
    assert call["gen_ai.usage.output_tokens"] == 4
    assert call["server.port"] == endpoint.server_port
    spans = {name: values for scope, name, values in collector.spans() if scope == "promptflow"}
    assert spans["chat"]["framework"] == "promptflow"  # promptflow's span of the node
    for _, body in collector.posts:
        assert b"secret" not in body and b"a-key" not in body
    assert outside.posts == []


def test_application_insights_gets_them_and_texts_on_request(endpoint, collector, outside):
    text = f"InstrumentationKey={KEY};IngestionEndpoint={collector.url}/"
    variables = {CONNECTION_STRING: text, CAPTURE_VARIABLE: "true", **through(outside)}
    with phi3_serve("--trace", "appinsights", **variables) as served:
        with served.ask(QUESTION, stream=True) as streamed:
            assert b"it?" in streamed.content
        served.stop()
    items = [each for _, body in collector.posts for each in json.loads(body)]
    properties = [each["data"]["baseData"].get("properties", {}) for each in items]
    (call,) = [each for each in properties if "gen_ai.usage.input_tokens" in each]
    assert (call["gen_ai.usage.input_tokens"], call["gen_ai.usage.output_tokens"]) == ("11", "4")
    assert QUESTION in call["gen_ai.input.messages"]
    assert QUESTION in call["gen_ai.output.messages"]
    assert {each["iKey"] for each in items} == {KEY}
    assert outside.posts == []


def test_without_the_option_nothing_is_sent_anywhere(endpoint, collector, outside):
    """Not even if the environment has the variables that promptflow's app and the exporters use."""
    text = f"InstrumentationKey={KEY};IngestionEndpoint={collector.url}/"
    variables = {CONNECTION_STRING: text, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    before = len(endpoint.requests)
    with phi3_serve(PF_DISABLE_TRACING="false", **variables, **through(outside)) as served:
        assert served.ask(QUESTION).json() == {"answer": QUESTION}
        served.stop()
    assert collector.posts == outside.posts == []
    assert len(endpoint.requests) == before + 1


@pytest.mark.parametrize(
    ("destination", "message"),
    [
        ("nowhere", "the destination of --trace is unknown"),
        ("otlp", "the destination of --trace is unknown"),
        (f"appinsights=InstrumentationKey={KEY}", "the destination of --trace is unknown"),
        ("otlp=collector:4318", "http or https URL"),
        ("otlp=http://me:pass-word@collector", "http or https URL without a password"),
        ("appinsights", f"{CONNECTION_STRING} is not set"),
    ],
)
def test_an_unknown_destination_is_an_error(endpoint, monkeypatch, capsys, destination, message):
    monkeypatch.delenv(CONNECTION_STRING, raising=False)
    assert main(["serve", "--port", "0", "--trace", destination]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert KEY not in line and "pass-word" not in line


def test_a_wrong_connection_string_is_not_shown(monkeypatch):
    monkeypatch.setenv(CONNECTION_STRING, "InstrumentationKey=not-a-guid-but-mine")
    for name in QUIET:
        monkeypatch.setenv(name, "true")
    with pytest.raises(OpsError, match="is not a connection string") as caught:
        start_tracing("appinsights")
    assert "mine" not in str(caught.value)


# -- pf runs -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """`pf run create` of one line, in a store in which traces are not switched off."""
    folder = tmp_path_factory.mktemp("runs")
    store = make_store(folder / "store")
    (store / "pf.yaml").write_text("telemetry:\n  enabled: false\n")
    data = folder / "lines.jsonl"
    data.write_text(json.dumps({"input_data": QUESTION}) + "\n")
    variables = {"PF_HOME_DIRECTORY": str(store), "PHI3_TEST_KEY": echo_endpoint.KEY}
    words = ("run", "create", "--flow", paths.FLOWS / "qa", "--data", data, "--column-mapping")

    def run(**more):
        done = pf(*words, "input_data=${data.input_data}", env={**variables, **more})
        assert done.returncode == 0, done.stdout + done.stderr
        assert '"Completed"' in done.stdout

    with echo_endpoint.echo_endpoint() as endpoint:
        file = paths.ROOT / "connections" / "phi3.yaml"
        fields = (f"configs.endpoint={endpoint.url}", "secrets.key=${env:PHI3_TEST_KEY}")
        done = pf("connection", "create", "--file", file, "--set", *fields, env=variables)
        assert done.returncode == 0, done.stderr
        yield run


def test_pf_runs_send_by_opentelemetrys_own_variable(run, collector, outside):
    run(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{collector.url}/v1/traces", **through(outside))
    assert [call["gen_ai.usage.input_tokens"] for call in collector.calls()] == [11]
    assert all(b"secret" not in body for _, body in collector.posts)
    assert outside.posts == []


def test_pf_runs_send_nothing_otherwise(run, outside):
    run(**through(outside))
    assert outside.posts == []


# -- promptflow's spans ----------------------------------------------------------------------------


def test_promptflows_spans_lose_all_texts():
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(_exporter_without_texts(exporter)))
    texts = {"inputs": QUESTION, "output": QUESTION, "llm.generated_message": QUESTION}
    plain = {"framework": "promptflow", "node_name": "chat", "llm.usage.total_tokens": 3}
    with provider.get_tracer("promptflow").start_as_current_span("outer"):
        inner = provider.get_tracer("promptflow").start_as_current_span("inner")
        with contextlib.suppress(ValueError), inner as span:
            span.set_attributes(texts | plain)
            span.add_event("promptflow.function.inputs", {"payload": QUESTION})
            raise ValueError(QUESTION)
    provider.shutdown()
    inner, outer = exporter.get_finished_spans()
    assert QUESTION not in inner.to_json()
    assert dict(inner.attributes) == plain
    assert inner.parent.span_id == outer.context.span_id
    assert not inner.status.is_ok


def test_the_environment_is_cleared_for_others(monkeypatch):
    for name in READ_BY_OTHERS:
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    start_tracing(None)()
    assert not set(READ_BY_OTHERS) & set(os.environ)


def test_a_span_of_another_is_left_alone():
    span = SimpleNamespace(attributes={"http.route": "/score"})
    assert without_texts(span) is span
