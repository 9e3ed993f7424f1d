"""Measures structured answers of an endpoint: JSON by a schema, and tool calls, free and constrained.

    phi3 endpoint --model smollm2
    python tests/benchmarks/structured.py --url http://127.0.0.1:8710/v1/chat/completions --out base.jsonl
    python tests/benchmarks/structured.py --url … --free --out base-free.jsonl

The rows are the test samples of scripts/phi3_ops/samples/structured. Constrained requests have
`response_format`, or `tools` with `tool_choice: auto`. Free requests have neither: the tools are in the
prompt, in the format of training, and the calls are read from the answer's text. Answers are greedy. The
output has one row per line with the scores of flows/eval_structured, for `phi3 compare … --data`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts" / "training"), str(ROOT / "scripts"), str(ROOT / "tools")]

from tool_format import GENERIC, plain_messages  # noqa: E402

from phi3_tools.evaluation import mean_of, structured_scores, tool_call_match  # noqa: E402

DATA = ROOT / "scripts" / "phi3_ops" / "samples" / "structured" / "test.jsonl"
MAX_NEW_TOKENS = 160
CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)


def request_of(row: Mapping[str, Any], free: bool) -> dict[str, Any]:
    """Return the body of a request for the first answer of a row."""
    first = next(n for n, m in enumerate(row["messages"]) if m["role"] == "assistant")
    body: dict[str, Any] = {
        "messages": row["messages"][:first],
        "max_tokens": MAX_NEW_TOKENS,
        "temperature": 0,
    }
    if free:
        return {**body, "messages": plain_messages(body["messages"], row.get("tools"), GENERIC)}
    fields = ("response_format", "tools")
    return {**body, **{name: row[name] for name in fields if name in row}}


def scores_of(row: Mapping[str, Any], message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer of a row with its scores."""
    text = message.get("content") or ""
    reference = next(m for m in row["messages"] if m["role"] == "assistant")
    if "tools" not in row:
        schema = row["response_format"]["json_schema"]["schema"]
        return {"answer": text, **structured_scores(text, reference["content"], schema)}
    calls = message.get("tool_calls") or CALL.findall(text)
    expected = reference.get("tool_calls") or []
    answer = text or json.dumps(calls)
    return {"answer": answer, "tool_call_match": tool_call_match(_as_calls(calls), expected)}


def _as_calls(calls: Sequence[Any]) -> list[Any]:
    """Return calls whose texts are parsed; a text that is not JSON stays, and matches no call."""
    parsed = []
    for call in calls:
        try:
            parsed.append(json.loads(call) if isinstance(call, str) else call)
        except ValueError:
            parsed.append(call)
    return parsed


def ask(url: str, key: str, body: Mapping[str, Any]) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    response = requests.post(url, json=body, headers=headers, timeout=600)
    if not response.ok:
        raise SystemExit(f"{url} answered {response.status_code}: {response.text[:300]}")
    message: dict[str, Any] = response.json()["choices"][0]["message"]
    return message


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--url", required=True, help="URL of the endpoint's chat completions")
    parser.add_argument("--data", type=Path, default=DATA, help="rows with tools or a schema")
    parser.add_argument("--free", action="store_true", help="ask without a constraint")
    parser.add_argument("--rows", type=int, help="number of rows, from the start of the file")
    parser.add_argument("--in-flight", type=int, default=8, help="number of requests at once")
    parser.add_argument("--out", type=Path, required=True, help="JSONL file to write")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.data.read_text(encoding="utf-8").splitlines()]
    rows = rows[: options.rows]
    key, started = os.environ.get("PHI3_KEY", ""), time.monotonic()
    with ThreadPoolExecutor(options.in_flight) as pool:
        bodies = [request_of(row, options.free) for row in rows]
        messages = pool.map(lambda body: ask(options.url, key, body), bodies)
        results = [scores_of(row, message) for row, message in zip(rows, messages)]
    lines = [json.dumps({"line_number": n, **result}) for n, result in enumerate(results)]
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    names = dict.fromkeys(name for result in results for name in result if name != "answer")
    for name in names:
        mean = mean_of(result[name] for result in results if name in result)
        print(f"{name:16} {mean.mean:6.1%} ± {1.96 * mean.stderr:.1%} ({mean.n} lines)")
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
