"""Removal of the key from texts, and a search for it in everything that a failed call leaves behind."""

from __future__ import annotations

import base64
import html
import json
import logging
import re
import time
import traceback
from collections import Counter
from types import SimpleNamespace
from urllib.parse import quote, quote_plus, unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from phi3_tools import EntraAuth, Limits, Phi3Client, Phi3Error, Settings
from phi3_tools.client.redaction import MARK, MIN_PART, Redactor
from phi3_tools.client.spans import CAPTURE_VARIABLE, trace

KEY = "Zx8+qP/4vT=w9Lm2&Rk7\"sB5'Hc3\\Nd6<Jf1>Gy0%41u"  # 45 characters
TOKEN = f"eyJ0eXAiOiJKV1Qi.{'Qx7-Wv2_' * 180}.s1gnature-Of_the-token"
LIMITS = Limits(max_attempts=1)

ENCODINGS = {
    "plain": lambda t: t,
    "bearer": lambda t: f"Bearer {t}",
    "url": quote,
    "url-all": lambda t: quote(t, safe=""),
    "url-twice": lambda t: quote(quote(t, safe=""), safe=""),
    "form": quote_plus,
    "json": lambda t: json.dumps(t)[1:-1],
    "json-twice": lambda t: json.dumps(json.dumps(t))[3:-3],
    "json-slashes": lambda t: json.dumps(t)[1:-1].replace("/", "\\/"),
    "json-all": lambda t: "".join(f"\\u{ord(c):04X}" for c in t),
    "html": html.escape,
    "html-numbers": lambda t: "".join(c if c.isalnum() else f"&#{ord(c)};" for c in t),
    "repr": lambda t: repr(t.encode())[2:-1],
    "base64": lambda t: base64.b64encode(t.encode()).decode(),
    "base64-bearer": lambda t: base64.b64encode(f"Bearer {t}".encode()).decode(),
    "base64-basic": lambda t: base64.b64encode(f"u:{t}".encode()).decode(),
    "base64-url": lambda t: base64.urlsafe_b64encode(t.encode()).decode(),
    "base64-in-url": lambda t: quote(base64.b64encode(t.encode()).decode(), safe=""),
    "hex": lambda t: t.encode().hex(),
    "utf-16": lambda t: t.encode("utf-16-le").decode("latin-1"),
}


def parts(text, length=MIN_PART):
    return {text[n : n + length] for n in range(len(text) - length + 1)}


def leaked_parts(text, secret):
    """Return the parts of the secret in a text and in what a reader may decode from it."""
    decoders = (unquote, html.unescape, without_backslashes)
    readable = [text, *(decode(text) for decode in decoders)]
    readable += [decode(once) for once in readable[1:] for decode in decoders]
    for run in re.findall(r"[A-Za-z0-9+/_-]{10,}", readable[1]):
        standard = run.replace("-", "+").replace("_", "/")
        for offset in range(4):
            groups = standard[offset:][: (len(run) - offset) // 4 * 4]
            readable.append(base64.b64decode(groups).decode("latin-1"))
    for run in re.findall(r"(?:[0-9a-f]{2}){8,}", text):
        readable.append(bytes.fromhex(run).decode("latin-1"))
    return parts(secret) & parts("\n".join(readable).replace("\0", ""))


def without_backslashes(text):
    text = re.sub(r"\\+u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), text)
    return re.sub(r"\\+(.)", r"\1", text)


def test_a_key_that_is_a_word_of_error_messages_stays_readable():
    text = "The key or token is missing, wrong or expired."
    assert Redactor("wrong").redact(text) == text
    assert Redactor("wr0ng").redact("not wr0ng") == f"not {MARK}"


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("secret", [KEY, TOKEN], ids=["key", "token"])
def test_every_encoding_is_found(encoding, secret):
    text = f"before {ENCODINGS[encoding](secret)} after"
    redacted = Redactor(secret).redact(text)
    assert redacted.startswith("before ") and redacted.endswith(" after")
    assert leaked_parts(redacted, secret) == set()
    assert len(redacted) < 30


@given(start=st.integers(0, 37), length=st.integers(8, 45), encoding=st.sampled_from([*ENCODINGS]))
def test_a_part_of_a_key_is_found(start, length, encoding):
    part = KEY[start : start + length]
    redacted = Redactor(KEY).redact(f"the key {part}, cut off")
    assert parts(part) & parts(redacted) == set()
    assert redacted.startswith("the key ") and redacted.endswith(", cut off")


def test_only_the_complete_key_is_removed_where_parts_stay():
    redact = Redactor("Microsoft-2024").redact_complete
    encoded = base64.b64encode(b"Microsoft-2024").decode()
    assert redact("Microsoft and soft-2024") == "Microsoft and soft-2024"
    assert redact("Microsoft-2024, Microsoft%2D2024") == "…, …"
    assert encoded[:-4] not in redact(f"Basic {encoded}")
    assert Redactor("paris").redact_complete("paris or parisian") == "… or parisian"


def test_a_short_key_is_found_as_a_word():
    assert (
        Redactor("k3y").redact('the key "k3y", k3y. not k3ys')
        == f'the key "{MARK}", {MARK}. not k3ys'
    )
    assert Redactor("").redact("nothing") == "nothing"


@given(st.text())
def test_other_text_is_unchanged(text):
    assert Redactor(KEY).redact(text) == text


def test_a_redactor_does_not_show_the_key():
    assert KEY not in repr(Redactor(KEY))


# -- everything that a call leaves behind ----------------------------------------------------------


class Recorder(logging.Handler):
    """Every log record of the process, formatted with its traceback."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))
        self.texts = []

    def emit(self, record):
        self.texts.append(self.format(record))


@pytest.fixture
def recorded(monkeypatch):
    """Return a function that returns all logs and spans as a text."""
    monkeypatch.setenv(CAPTURE_VARIABLE, "true")
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    recorder, root = Recorder(), logging.getLogger()
    level = root.level
    root.addHandler(recorder)
    root.setLevel(logging.DEBUG)

    def take():
        spans = [span.to_json() for span in exporter.get_finished_spans()]
        texts = [*recorder.texts, *spans]
        recorder.texts.clear()
        exporter.clear()
        return "\n".join(texts)

    yield take
    root.removeHandler(recorder)
    root.setLevel(level)
    provider.shutdown()


def header(text):
    """Return a text that a header can contain."""
    return "".join(c if c.isprintable() and c.isascii() else " " for c in text)


def json_text(value):
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


# Each makes (status, headers, body) of an answer that repeats a text somewhere.
ANSWERS = {
    "error": lambda t: (500, {}, json_text({"error": {"message": t}})),
    "error, other keys": lambda t: (400, {}, json_text({"error": {t: 1, "code": t}})),
    "plain error": lambda t: (401, {}, t.encode()),
    "error with 200": lambda t: (200, {}, json_text({"error": t})),
    "request id": lambda t: (401, {"x-ms-request-id": header(t)}, b"no"),
    "request id with 200": lambda t: (200, {"x-ms-request-id": header(t)}, b'{"output": "x"}'),
    "reason": lambda t: (424, {"ms-azureml-model-error-reason": header(t)}, b""),
    "not JSON": lambda t: (200, {}, b"headers: " + t.encode()),
    "a JSON key": lambda t: (200, {}, json_text({t: 1})),
    "a list": lambda t: (200, {}, json_text([{t: [t]}])),
    "fields": lambda t: (200, {}, json_text({"output": t, "finish_reason": t, "model": t})),
    "an event": lambda t: (200, {"content-type": "text/event-stream"}, b"data: " + json_text([t])),
    "no event": lambda t: (
        200, {"content-type": "text/event-stream"}, f"data: {header(t)}\n\n".encode()),
    "an event's error": lambda t: (
        200, {"content-type": "text/event-stream"}, b"data: " + json_text({"error": t})),
    "a stream's model": lambda t: (
        200,
        {"content-type": "text/event-stream"},
        b"data: " + json_text({"output": t, "model": t, "finish_reason": t}) + b"\n\ndata: [DONE]\n\n",
    ),
    "a bad header": lambda t: (200, {f"bad {header(t)}\r\n{header(t)}": ""}, b"{"),
    "a bad length": lambda t: (200, {"transfer-encoding": "chunked"}, header(t).encode() + b"\r\n"),
    "a bad encoding": lambda t: (200, {"content-encoding": "gzip"}, t.encode()),
}  # fmt: skip


class Credential:
    def get_token(self, scope):
        return SimpleNamespace(token=TOKEN, expires_on=time.time() + 3600)


def traces_of(client, ask):
    """Make a call; return everything that its error or its reply says, and the number of errors."""
    try:
        if ask == "chat":
            reply = client.chat("Hi")
        else:
            with client.stream("Hi") as stream:
                list(stream)
            reply = stream.reply
    except Phi3Error as error:
        texts = [str(error), repr(error), json.dumps(error.as_dict(), ensure_ascii=False)]
        texts += [error.what, error.fix, repr(vars(error)), *traceback.format_exception(error)]
        return "\n".join(texts), 1
    return f"{reply.model} {reply.finish_reason} {reply.request_id}", 0


@pytest.mark.finding(
    7,
    "an endpoint or a gateway repeats the key in any field and encoding",
    "the key is removed from every field before anything is shortened",
)
@pytest.mark.parametrize("secret", [KEY, TOKEN], ids=["key", "token"])
def test_no_part_of_the_key_is_in_errors_logs_or_spans(server, connect, recorded, secret):
    """The endpoint repeats the key at any position of any field, in any encoding."""
    answer = {}
    server.play(
        lambda x: (x.respond(answer["body"], answer["status"], answer["headers"]), x.hang_up())
    )
    if secret == KEY:
        clients = [
            connect(server, contract=c, key=KEY, max_attempts="1")
            for c in ("chat", "openai", "mlflow")
        ]
    else:
        auth = EntraAuth("scope", Credential())
        clients = [Phi3Client(Settings(server.url, auth, contract="chat", limits=LIMITS))]
    outcomes = Counter()

    @settings(max_examples=100)
    @given(
        field=st.sampled_from([*ANSWERS]),
        encoding=st.sampled_from([*ENCODINGS]),
        before=st.integers(0, 600) | st.integers(460, 500) | st.integers(40, 80),
        after=st.integers(0, 50),
        cut=st.integers(0, 45) | st.none(),
        blanks=st.booleans(),
        ask=st.sampled_from(["chat", "stream"]),
        number=st.integers(0, 2),
    )
    @example("error", "plain", 460, 0, None, False, "chat", 0)
    @example("a JSON key", "plain", 45, 0, None, False, "chat", 0)
    @example("not JSON", "bearer", 40, 9, None, False, "chat", 0)
    @example("plain error", "utf-16", 0, 0, None, False, "chat", 0)
    @example("fields", "plain", 0, 0, None, False, "chat", 0)
    @example("a bad header", "plain", 3, 3, None, False, "chat", 0)
    def search(field, encoding, before, after, cut, blanks, ask, number):
        filler = "\n" if blanks else "x"
        text = f"{filler * before} {ENCODINGS[encoding](secret[:cut])} {'y' * after}"
        answer["status"], answer["headers"], answer["body"] = ANSWERS[field](text)
        said, failed = traces_of(clients[number % len(clients)], ask)
        outcomes[failed] += 1
        everything = f"{said}\n{recorded()}"
        assert leaked_parts(everything, secret) == set()

    try:
        search()
    finally:
        for client in clients:
            client.close()
    assert outcomes[0] >= 1 and outcomes[1] >= 4  # the explicit examples


def test_the_limit_of_a_detail_is_applied_after_the_key_is_removed(server, connect):
    """A key of 45 characters at the border of 500 characters: 33 of them were in the error before."""
    server.give(500, f"{'x' * 466} {KEY} {'y' * 99}".encode())
    with pytest.raises(Phi3Error) as caught:
        connect(server, key=KEY, max_attempts="1").chat("Hi")
    assert caught.value.detail == f"{'x' * 466} {MARK} {'y' * 31}"


def test_the_keys_of_an_unknown_answer_are_redacted(server, connect):
    server.json({"a" * 50: 1, KEY: 2})
    with pytest.raises(Phi3Error, match="unknown form: keys") as caught:
        connect(server, key=KEY, contract="chat").chat("Hi")
    assert leaked_parts(str(caught.value), KEY) == set()


def test_a_token_that_was_replaced_is_still_removed():
    """The identity service may repeat the old token when it refuses a new one."""

    class Once(Credential):
        calls = 0

        def get_token(self, scope):
            self.calls += 1
            if self.calls > 1:
                raise RuntimeError(f"{TOKEN} was refused")
            return SimpleNamespace(token=TOKEN, expires_on=time.time())

    auth = EntraAuth("scope", Once())
    auth.header()
    with pytest.raises(Phi3Error) as caught:
        auth.header()
    assert leaked_parts("".join(traceback.format_exception(caught.value)), TOKEN) == set()
    assert "was refused" in str(caught.value)


def test_the_log_of_the_contract_has_no_query(server, connect, caplog):
    server.json({"output": "x"})
    with caplog.at_level(logging.INFO, "phi3_tools"):
        connect(f"{server.url}?code=s3cret").chat("Hi")
    assert caplog.messages == [f"{server.url} speaks the chat contract"]
