"""Writes the recordings in tests/recordings, with scripted endpoints.

    python tests/support/make_recordings.py

The reference is Prompt flow's own executor. Run it again after a new version of a flow.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
RECORDINGS = TESTS / "recordings"
CONNECTION = "recorded"
TURN = {"inputs": {"question": "Who are you?"}, "outputs": {"answer": "Phi-3"}}
TEXTS = ("Who founded Microsoft?", "one two three", "ü 漢字 \u2028 end", "fail")
REFERENCE = "Microsoft was founded by Bill Gates and Paul Allen."
CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
CALL = {"function": {"name": "get_weather", "arguments": '{"city": "Wien"}'}}
ORDER = {"customer": "Ada", "items": [], "deliver_on": "2026-03-09", "express": True}
LATE_ORDER = {**ORDER, "deliver_on": "soon"}


def calls(*named: tuple[str, dict[str, Any]]) -> str:
    """Return a question whose echo calls tools."""
    texts = (json.dumps({"name": name, "arguments": arguments}) for name, arguments in named)
    return "Please: " + "".join(f"<tool_call>{text}</tool_call>" for text in texts)


FIND = ("find_order", {"order_id": "A-1001"})
ROWS: dict[str, list[dict[str, Any]]] = {
    "qa": [
        *({"input_data": text} for text in TEXTS),
        {"input_data": "short", "max_new_tokens": "7"},
        {"max_new_tokens": 3},
        {"input_data": "x", "max_new_tokens": "many"},
    ],
    "chat": [
        *({"question": text, "chat_history": []} for text in TEXTS),
        {"question": "And you?", "chat_history": [TURN, {**TURN, "id": "extra"}]},
        {"question": "text as history", "chat_history": "[]"},
    ],
    "extract": [
        {"text": json.dumps(ORDER)},
        {"text": f"Sure: {json.dumps(ORDER)}", "max_new_tokens": "9"},
        {"text": json.dumps(LATE_ORDER)},
        {"text": "Please send a lamp."},
        {"text": "fail"},
        {},
    ],
    "agent": [
        {"question": "Hello", "chat_history": []},
        {"question": calls(FIND), "chat_history": []},
        {"question": calls(FIND, ("calculate", {"expression": "2 * (3 + 4)"}))},
        {"question": calls(("find_order", {"order_id": "A-9"}))},
        {"question": calls(FIND), "max_steps": 1, "chat_history": [TURN]},
        {"question": calls(("cancel_order", {}))},
        {"question": calls(("days_between", {"first": "2026-03-09"}))},
        {"question": "fail"},
        {"question": "no steps", "max_steps": 0},
    ],
    "eval": [
        {"answer": REFERENCE, "ground_truth": REFERENCE},
        {"answer": "7 times 8 is 54.", "ground_truth": "7 times 8 is 56."},
        {"answer": "", "ground_truth": "x"},
        {"answer": "ü", "ground_truth": ""},
        {"answer": 56, "ground_truth": "56"},
        {"ground_truth": "no answer"},
    ],
    "eval_structured": [
        {"answer": '{"city": "Wien"}', "ground_truth": {"city": "Wien"}, "schema": CITY},
        {"answer": {"city": 1}, "ground_truth": '{"city": "Wien", "zip": "1010"}', "schema": CITY},
        {"answer": "Wien", "ground_truth": {"city": "Wien"}},
        {"answer": "", "tool_calls": [CALL], "expected_calls": [CALL["function"]]},
        {"answer": "Hello", "tool_calls": [CALL], "expected_calls": []},
        {"answer": "{}", "ground_truth": {}, "schema": {"type": "objekt"}},
        {"answer": "{}"},
        {"answer": '"{}"', "ground_truth": "{}", "schema": {"type": "object"}},
        {"answer": '{"a": NaN}', "ground_truth": '{"a": 1}'},
    ],
    "judge": [
        {"question": "Who?", "answer": REFERENCE, "ground_truth": REFERENCE, "context": REFERENCE},
        {"question": "7 x 8?", "answer": "54", "ground_truth": "56", "context": ""},
        {
            "question": "7 x 8?",
            "answer": '{"score": 5}<|end|>',
            "ground_truth": "56",
            "context": "",
        },
        {
            "question": "a",
            "answer": "b",
            "ground_truth": "c",
            "context": "",
            "judge_rubrics": "none",
        },
        {"question": "a", "answer": "b", "ground_truth": "b", "context": "", "judge_samples": "2"},
    ],
    "judge_pairwise": [
        {"question": "Who?", "answer": REFERENCE, "answer_b": "Steve", "ground_truth": REFERENCE},
        {"question": "7 x 8?", "answer": "54", "answer_b": "56", "ground_truth": "56"},
        {"question": "a", "answer": "b", "answer_b": "b", "ground_truth": "c"},
        {"question": "a", "answer": "b", "answer_b": "d", "ground_truth": "", "judge_rubric": "x"},
        {"question": "a"},
    ],
}


def main() -> None:
    sys.path.insert(0, str(TESTS / "support"))
    import os

    from stores import make_store

    with tempfile.TemporaryDirectory() as home:
        os.environ["PF_HOME_DIRECTORY"] = str(make_store(Path(home) / "pf"))
        os.environ["PHI3_HOME"] = str(Path(home) / "phi3")
        record_all(RECORDINGS)


def record_all(out: Path, engine: str = "promptflow") -> None:
    """Record every flow into a folder of its name."""
    from echo_endpoint import KEY, echo_endpoint
    from judge_endpoint import KEY as JUDGE_KEY
    from judge_endpoint import judge_endpoint
    from phi3_ops.flows.definition import FlowDefinition
    from phi3_ops.pf.connections import delete_connection, save_connection
    from phi3_ops.publish.record import record_flow

    with echo_endpoint() as echo, judge_endpoint() as judge:
        echo.may_finish.set()
        for name, rows in ROWS.items():
            is_judge = name.startswith("judge")
            if name == "judge_pairwise":
                rows = [{"context": "", **row} if len(row) > 1 else row for row in rows]
            url, key = (judge.url(), JUDGE_KEY) if is_judge else (echo.url, KEY)
            fields = {"endpoint": url, "contract": "chat", "max_attempts": "1"}
            save_connection(CONNECTION, fields, key)
            flow = FlowDefinition.read(Path(name))
            record_flow(flow, rows, out / name, engine=engine, connection=CONNECTION)
        delete_connection(CONNECTION)


if __name__ == "__main__":
    main()
