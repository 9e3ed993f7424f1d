"""The answers of the scripted endpoint of `client.py`, as strategies of Hypothesis."""

from __future__ import annotations

import base64
import gzip
import html
import json
import urllib.parse
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostile import as_json, header_bytes, nested, scalars, texts, values
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = sorted((ROOT / "tests/golden/contracts").glob("*.answer.json"))
KEY = 'fuzz"key+with/45&odd<characters>0123456789=='
MAX_BYTES = 2**20


@dataclass(frozen=True)
class Script:
    """What the endpoint does with each request.

    Attributes:
        pieces: bytes to send, each with the seconds to wait before it.
        end: `close`, `reset`, or `stay` for a connection that stays open.
    """

    pieces: tuple[tuple[float, bytes], ...]
    end: str

    def __str__(self) -> str:
        return f"{self.pieces!r} then {self.end}"


KEYS = (
    KEY.encode(),
    KEY[:20].encode(),
    KEY[12:].encode(),
    urllib.parse.quote(KEY).encode(),
    html.escape(KEY).encode(),
    json.dumps(KEY).encode()[1:-1],
    json.dumps(json.dumps(KEY)).encode(),
    base64.b64encode(KEY.encode()),
    f"Authorization: Bearer {KEY}".encode(),
    base64.b64encode(f"Bearer {KEY}".encode()),
    KEY.encode().hex().encode(),
)
keys = st.sampled_from(KEYS)
padding = st.integers(0, 700).map(lambda size: b"p" * size)
echoes = st.tuples(padding, keys, padding).map(b"".join)
golden_values = st.sampled_from([json.loads(path.read_bytes())["payload"] for path in GOLDEN])
golden_bodies = golden_values.map(lambda payload: json.dumps(payload).encode())


@st.composite
def mutated(draw: Any) -> Any:
    """Draw a golden answer in which some values are replaced."""
    return _mutate(draw, json.loads(json.dumps(draw(golden_values))))


def _mutate(draw: Any, value: Any) -> Any:
    if draw(st.integers(0, 5)) == 0:
        return draw(values | golden_values)
    if isinstance(value, list):
        return [_mutate(draw, item) for item in value] * draw(st.sampled_from([1, 1, 1, 0, 2]))
    if isinstance(value, dict):
        items = {name: _mutate(draw, item) for name, item in value.items()}
        if draw(st.integers(0, 5)) == 0:
            name = draw(
                texts | st.sampled_from(["error", "output", "choices", "detail", "message"])
            )
            items[name] = draw(values)
        return items
    return value


plain_bodies = st.one_of(
    golden_bodies,
    as_json(mutated()),
    as_json(mutated()),
    as_json(values),
    echoes,
    echoes.map(lambda data: b'{"error": {"message": ' + json.dumps(data.decode()).encode() + b"}}"),
    echoes.map(lambda data: b"{" + json.dumps(data.decode()).encode() + b": 1}"),
    st.builds(lambda depth: nested(depth, '{"error":', "1").encode(), st.integers(300, 1100)),
    st.builds(lambda depth: nested(depth, "[").encode(), st.integers(300, 1100)),
    st.sampled_from([b"", b"<html>", b"x" * (MAX_BYTES + 1), b"\0" * 1000, b'"' + b"z" * 100_000]),
)
event_payloads = st.one_of(
    as_json(mutated()),
    as_json(
        st.fixed_dictionaries(
            {
                "choices": st.lists(
                    st.fixed_dictionaries(
                        {"delta": st.fixed_dictionaries({"content": texts | values}) | values},
                        optional={"finish_reason": st.just("stop") | scalars},
                    ),
                    max_size=2,
                )
                | values
            },
            optional={"usage": values, "model": texts, "error": values},
        )
    ),
    as_json(st.fixed_dictionaries({"output": texts | values}, optional={"finish_reason": scalars})),
    st.sampled_from([b"[DONE]", b"[DONE]", b'{"output": "word "}', b"", b"{", b"null"]),
    echoes,
    st.builds(lambda depth: nested(depth, '{"error":', "1").encode(), st.integers(300, 1100)),
)


@st.composite
def event_streams(draw: Any) -> bytes:
    """Draw a body of server-sent events, with any line ends and field names."""
    end = draw(st.sampled_from([b"\n", b"\n", b"\r\n", b"\r"]))
    body = b""
    for payload in draw(st.lists(event_payloads, max_size=6)):
        name = draw(
            st.sampled_from([b"data: "] * 8 + [b"data:", b"event: ", b": ", b"id: ", b"retry: "])
        )
        body += name + payload + end + draw(st.sampled_from([end, end, end, b""]))
    return body


status_lines = st.one_of(
    *[st.just(b"HTTP/1.1 200 OK")] * 6,
    st.integers(100, 999).map(lambda status: b"HTTP/1.1 %d X" % status),
    st.sampled_from(
        [400, 401, 403, 404, 408, 413, 422, 424, 424, 424, 429, 500, 502, 503, 504]
    ).map(lambda status: b"HTTP/1.1 %d X" % status),
    st.sampled_from(
        [
            *(
                b"HTTP/1.0 200 OK",
                b"HTTP/1.1 200",
                b"HTTP/1.1  200 ",
                b"HTTP/2 200 OK",
                b"",
                b"200 OK",
            ),
            *(
                b"HTTP/1.1 0 X",
                b"HTTP/1.1 -1 X",
                b"HTTP/1.1 99999 X",
                b"HTTP/1.1 \xff X",
                b"ICY 200 OK",
            ),
            *(
                b"HTTP/1.1 200 " + b"x" * 70_000,
                b"HTTP/1.1 204 X",
                b"HTTP/1.1 304 X",
                b"HTTP/1.1 101 X",
            ),
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK",
        ]
    ),
    keys.map(lambda key: b"HTTP/1.1 400 " + key),
    keys,
)
dates = st.one_of(
    st.sampled_from(
        [
            *(
                b"0",
                b"0.01",
                b"-1",
                b"1e999",
                b"nan",
                b"1_0",
                b"\xb2",
                b"99999999999",
                b"1" * 5000,
                b"a b",
            ),
            *(b"Wed, 21 Oct 2015 07:28:00 GMT", b"Fri, 31 Dec 9999 23:59:59 GMT", b"Mon,", b","),
            b"Mon, 01 Jan 2024 00:00:00 +99999999999999999",
            b"Mon, 01 Jan 0001 00:00:00 +2359",
            b"Mon, 01 Jan 2024 25:61:61 GMT",
            b"Mon, 01 Jan 99999 00:00:00 GMT",
            b"Wed, 3 Apr 2002 12.34.56.78+0800",
        ]
    ),
    st.text("MonJa 0123456789:,+-.GT", max_size=30).map(str.encode),
)
answer_headers = st.one_of(
    st.tuples(st.just(b"retry-after"), dates),
    st.tuples(
        st.just(b"ms-azureml-model-error-statuscode"),
        st.sampled_from([b"200", b"400", b"429", b"500", b"504", b"599", b"\xb2", b"-1"])
        | header_bytes,
    ),
    st.tuples(
        st.just(b"ms-azureml-model-error-reason"),
        st.sampled_from([b"model_not_ready", b"model_error"]) | keys | header_bytes,
    ),
    st.tuples(st.just(b"x-ms-request-id"), keys | header_bytes | st.just(b"\xed\xa0\x80")),
    st.tuples(st.just(b"location"), keys | header_bytes),
    st.tuples(st.just(b"set-cookie"), keys),
    st.tuples(st.just(b"connection"), st.sampled_from([b"close", b"keep-alive", b"\xff"])),
    st.tuples(
        st.just(b"content-encoding"),
        st.sampled_from(
            [b"gzip", b"deflate", b"br", b"zstd", b"gzip, gzip, gzip", b"\xff", b"identity"]
        ),
    ),
    st.tuples(keys, keys),
    st.tuples(st.binary(max_size=20), st.binary(max_size=20)),
    st.just((b"a" * 70_000, b"b")),
)
media_types = st.sampled_from(
    [b"application/json"] * 3
    + [b"text/event-stream"] * 3
    + [b"TEXT/EVENT-STREAM; charset=x", b"text/html", b"", b"\xff", b"text/event-streamx"]
)


def _chunked(body: bytes, size: int, ending: bytes) -> bytes:
    parts = [body[n : n + size] for n in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + ending


BOMB = gzip.compress(b'"' + b" " * 50_000_000)  # 50 kB
ASPECTS = ("status", "headers", "packing", "framing")
ODD_LENGTHS = [b"-1", b"1_0", b"\xb2", b"9" * 5000, b"5, 5", b"5, 6", b"", b"0x10"]
LAST_CHUNK = b"0\r\n\r\n"
ODD_CHUNKS = [b"", b"-5\r\nabc\r\n", b"zz\r\n", b"f" * 5000 + b"\r\n", b"0\r\n" + b"a: b\r\n" * 300]


@st.composite
def responses(draw: Any, media_type: bytes | None = None) -> bytes:
    """Draw the bytes of a response, of which the body and up to two other aspects are hostile."""
    hostile = draw(st.sets(st.sampled_from(ASPECTS), max_size=2))
    kind = media_type or draw(media_types)
    is_stream = kind.lower().startswith(b"text/event-stream")
    body = draw(event_streams() if is_stream else plain_bodies)
    lines = [
        draw(status_lines) if "status" in hostile else b"HTTP/1.1 200 OK",
        b"content-type: " + kind,
    ]
    if "headers" in hostile:
        lines += [
            name + b": " + value for name, value in draw(st.lists(answer_headers, max_size=3))
        ]
    if "packing" in hostile:
        packing = draw(st.sampled_from(["gzip", "deflate", "bomb"]))
        pack = {"gzip": gzip.compress, "deflate": zlib.compress, "bomb": lambda _: BOMB}[packing]
        body = pack(body)
        lines.append(b"content-encoding: " + (b"deflate" if packing == "deflate" else b"gzip"))
    line, body = draw(framed(body, "framing" in hostile))
    return b"\r\n".join([*lines, *line]) + b"\r\n\r\n" + body


@st.composite
def framed(draw: Any, body: bytes, hostile: bool) -> tuple[list[bytes], bytes]:
    """Draw the header that says where a body ends, and the body as it is sent."""
    framing = (
        draw(st.sampled_from(["long", "short", "odd", "none", "chunked"])) if hostile else "length"
    )
    if framing == "chunked" or (not hostile and draw(st.booleans())):
        size = draw(st.sampled_from([1, 7, 1000, 100_000])) if len(body) < 5000 else 100_000
        last = draw(st.sampled_from([LAST_CHUNK, *ODD_CHUNKS])) if hostile else LAST_CHUNK
        return [b"transfer-encoding: chunked"], _chunked(body, size, last)
    if framing == "odd":
        return [b"content-length: " + draw(st.sampled_from(ODD_LENGTHS))], body
    if framing == "none":
        return [], body
    length = {"length": len(body), "long": len(body) + 10, "short": len(body) // 2}[framing]
    return [b"content-length: %d" % length], body


@st.composite
def scripts(draw: Any) -> Script:
    """Draw a response, cut into pieces that arrive at any pace."""
    data = draw(responses() | responses(b"text/event-stream") | st.binary(max_size=200))
    pace = draw(st.sampled_from(["at once"] * 10 + ["pieces", "slow", "drip", "cut", "silent"]))
    ends = ["stay"] * 3 + ["close"] * 5 + ["reset"]
    if b"content-length" not in data and b"chunked" not in data:
        ends = ["close"]
    end = draw(st.sampled_from(ends))
    if pace == "silent":
        return Script((), end)
    if pace == "cut":
        data = data[: draw(st.integers(0, len(data)))]
    if pace == "drip":  # each byte comes before the read timeout
        first, last = data[:-8], data[-8:]
        return Script(((0.0, first), *((0.2, bytes([byte])) for byte in last)), end)
    if pace in ("pieces", "slow"):
        places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=3)))
        wait = 0.01 if pace == "pieces" else draw(st.sampled_from([0.1, 0.25, 0.4]))
        bounds = zip([0, *places], [*places, len(data)])
        return Script(tuple((wait, data[start:stop]) for start, stop in bounds), end)
    return Script(((0.0, data),), end)


GOOD_BODY = b'{"output": "yes"}'
GOOD = Script(
    ((0.0, b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(GOOD_BODY), GOOD_BODY)),),
    "close",
)
contracts = st.sampled_from(["auto", "chat", "mlflow", "openai"])
chats = st.one_of(
    texts,
    values,
    st.lists(
        st.dictionaries(
            st.sampled_from(["role", "content", "name"]),
            st.sampled_from(["user", "system", "assistant"]) | texts | values,
        ),
        max_size=4,
    ),
)
params = st.dictionaries(
    st.sampled_from(["max_new_tokens", "temperature", "top_p", "stop", "seed", "extra"]),
    scalars | values,
    max_size=3,
)
