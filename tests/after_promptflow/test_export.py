"""Exported flows give what the engine gives: outputs, streams, requests, error classes, metrics."""

from __future__ import annotations

import asyncio
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import judge_endpoint
from echo_endpoint import KEY, echo_endpoint
from exports import engine_result, exported
from phi3_ops import paths
from phi3_ops.publish import export_flow
from phi3_tools.flow import Engine, LineError, line, load_flow
from scripted_endpoint import scripted_endpoint

FLOWS = Path(__file__).with_name("flows")
FORMS = ("agent-framework", "fastapi")
QUESTIONS = [{"input_data": f"question {number}", "max_new_tokens": 5} for number in range(32)]
LETTERS = [
    {"text": "Dear Sir"},
    {"text": "Hi you", "count": "3"},
    {"text": "boom"},
    {"text": "Goodbye"},
    {"text": "Hi", "count": "many"},
    {},
]
WAIT_S = 20  # a limit for what must not hang


@pytest.fixture(params=FORMS)
def form(request):
    return request.param


@pytest.fixture
def connected(monkeypatch):
    """Return a function that makes an endpoint the connection `phi3`."""

    def connect(url, key=KEY):
        line.connection.cache_clear()
        monkeypatch.setenv("PHI3_CONNECTION_PHI3_ENDPOINT", url)
        monkeypatch.setenv("PHI3_CONNECTION_PHI3_KEY", key)
        monkeypatch.setenv("PHI3_CONNECTION_PHI3_CONTRACT", "chat")
        monkeypatch.setenv("PHI3_CONNECTION_PHI3_MAX_ATTEMPTS", "1")
        return {"phi3": line.connection("phi3")}

    yield connect
    line.connection.cache_clear()


def test_activate_skips_variants_prompts_and_errors(form, tmp_path):
    for variant in (None, "pick.excited"):
        with Engine(load_flow(FLOWS / "branches", variant)) as engine:
            expected = [engine_result(engine, values) for values in LETTERS]
        with exported(FLOWS / "branches", form, tmp_path / "out") as export:
            assert [export.run(values, variant) for values in LETTERS] == expected
            with pytest.raises(ValueError, match="choose one of pick.plain, pick.excited"):
                export.run({"text": "Hi"}, "pick.other")
    assert expected[0]["text"] == "Formally, 2 times: Dear Sir\n|no chat!"
    assert expected[1] == {
        "text": "no letter|Hi you Hi you Hi you!",
        "length": 18,
        "shouted": "HI YOU HI YOU HI YOU",
    }
    assert expected[2][0][-1] == "ToolExecutionError" and expected[4][0][-1] == "InputTypeError"


def test_the_metrics_of_evaluation_flows(form, tmp_path, capsys):
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(values) + "\n" for values in LETTERS))
    with Engine(load_flow(FLOWS / "branches")) as engine:
        metrics = engine.aggregate([engine.run(values) for values in LETTERS]).metrics
    with exported(FLOWS / "branches", form, tmp_path / "out"):
        evaluate = importlib.import_module("evaluate")
        with pytest.MonkeyPatch.context() as patch:
            out = tmp_path / "lines.jsonl"
            patch.setattr(sys, "argv", ["evaluate.py", str(data), "--out", str(out)])
            evaluate.main()
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"lines": 3, "failed": 3, "metrics": metrics}
    assert metrics == {"lines": 3, "wanted": 7, "shouted": 1}
    assert "ToolExecutionError" in out.read_text().splitlines()[2]


def test_the_scores_of_the_shipped_flow(form, tmp_path):
    rows = [
        {"answer": "Bill Gates and Paul Allen.", "ground_truth": "Paul Allen and Bill Gates"},
        {"answer": "Microsoft", "ground_truth": "microsoft."},
        {"answer": "", "ground_truth": "1975"},
    ]
    with Engine(load_flow(paths.FLOWS / "eval")) as engine:
        lines = [engine.run(values) for values in rows]
        metrics = engine.aggregate(lines).metrics
    with exported("eval", form, tmp_path / "out") as export:
        assert [export.run(values) for values in rows] == [each.outputs for each in lines]
        evaluate = importlib.import_module("evaluate")
        completed, _ = asyncio.run(evaluate.run_lines(rows, 2))
        assert asyncio.run(evaluate.aggregate_lines(completed)) == metrics


@pytest.mark.parametrize("name", ["judge", "judge_pairwise"])
def test_the_verdicts_of_the_judges(name, form, tmp_path, connected):
    values = {
        "question": "Who?",
        "answer": "Bill",
        "answer_b": "Paul",
        "ground_truth": "Bill",
        "context": "",
    }
    with judge_endpoint.judge_endpoint() as server:
        connections = connected(server.url(), judge_endpoint.KEY)
        with Engine(load_flow(paths.FLOWS / name), connections) as engine:
            expected = engine_result(engine, values)
            count = len(server.requests)
        with exported(name, form, tmp_path / "out") as export:
            assert export.run(values) == expected
        assert server.requests[count:] == server.requests[:count]


def test_32_requests_at_once_are_the_requests_of_the_engine(form, tmp_path, connected):
    with echo_endpoint() as server:
        connections = connected(server.url)
        with Engine(load_flow(paths.FLOWS / "qa"), connections) as engine:
            expected = [engine.run(values).outputs for values in QUESTIONS]
        count = len(server.requests)

        async def run_all():
            return await asyncio.gather(*(export.arun(values) for values in QUESTIONS))

        with exported("qa", form, tmp_path / "out") as export:
            assert asyncio.run(run_all()) == expected
        key = json.dumps
        assert sorted(map(key, server.requests[count:])) == sorted(
            map(key, server.requests[:count])
        )


@pytest.mark.parametrize("question", ["fail", "crash"])
def test_the_errors_of_an_endpoint_keep_their_classes(question, form, tmp_path, connected):
    with echo_endpoint() as server:
        connections = connected(server.url)
        with Engine(load_flow(paths.FLOWS / "qa"), connections) as engine:
            expected = engine_result(engine, {"input_data": question})
        with exported("qa", form, tmp_path / "out") as export:
            assert export.run({"input_data": question}) == expected


def test_the_chat_streams(form, tmp_path, connected):
    values = {"question": "one two three", "chat_history": []}

    async def pieces(export):
        return [event async for event in export.module.stream_line(values)]

    with scripted_endpoint() as server:
        connections = connected(server.url)
        with Engine(load_flow(paths.FLOWS / "chat"), connections) as engine:
            stream = engine.stream(values)
            expected = [{"answer": piece} for piece in stream]
        with exported("chat", form, tmp_path / "out") as export:
            assert (
                asyncio.run(pieces(export))
                == expected
                == [{"answer": w} for w in ("one ", "two ", "three")]
            )
            assert export.run(values) == {"answer": "one two three"}
        assert server.requests[0] == server.requests[1] != server.requests[2]


def test_leaving_a_stream_early_closes_the_connection(form, tmp_path, connected):
    async def leave(export):
        events = export.module.stream_line({"question": "endless"})
        async for _ in events:
            break
        await events.aclose()

    with scripted_endpoint() as server:
        connected(server.url)
        with exported("chat", form, tmp_path / "out") as export:
            asyncio.run(asyncio.wait_for(leave(export), WAIT_S))
        assert server.gone.wait(WAIT_S)


def test_the_workflow_yields_its_outputs_once(tmp_path, connected):
    with echo_endpoint() as server:
        connected(server.url)
        with exported("qa", "agent-framework", tmp_path / "out") as export:

            async def run():
                workflow = export.module.create_workflow()
                first = await workflow.run({"input_data": "Hi"})
                second = await workflow.run({"input_data": "Ho"})  # one after the other is allowed
                return first.get_outputs() + second.get_outputs()

            assert asyncio.run(run()) == [{"answer": "Hi"}, {"answer": "Ho"}]


def test_the_parity_test_of_an_export_passes_and_notices_a_change(tmp_path):
    recording = Path(__file__).parents[1] / "recordings" / "chat"
    out = tmp_path / "out"
    export_flow(Path("chat"), "fastapi", out, recording=recording)
    assert run_parity(out).returncode == 0
    file = out / "flow.py"
    file.write_text(file.read_text().replace("max_new_tokens=256", "max_new_tokens=255"))
    changed = run_parity(out)
    assert changed.returncode == 1 and "requests" in changed.stdout


def run_parity(folder):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_parity.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


STREAMS = """
from phi3_tools.flow import tool


@tool
def answer(kind: str):
    if kind == "iterator":
        return iter(["a", "b", 3])
    if kind == "generator":
        return (letter for letter in "ab")
    if kind == "empty":
        return iter([])
    if kind == "fails":
        return (1 // number for number in (1, 0))
    return ["a", "b"] if kind == "list" else kind
"""
KINDS = ["iterator", "generator", "empty", "fails", "list", "text"]


def write_stream_flow(folder, **outputs):
    """Write a flow whose node decides when it runs whether its output streams."""
    nodes = [
        {
            "name": name,
            "type": "python",
            "source": {"type": "code", "path": "answer.py"},
            "inputs": {"kind": f"${{inputs.{name}}}"},
        }
        for name in ("first", "second")
    ]
    definition = {
        "inputs": {name: {"type": "string", "default": "text"} for name in ("first", "second")},
        "outputs": {n: {"type": "object", "reference": r} for n, r in outputs.items()},
        "nodes": nodes,
    }
    folder.mkdir()
    (folder / "flow.dag.yaml").write_text(json.dumps(definition))
    (folder / "answer.py").write_text(STREAMS)
    return folder


def test_a_returned_iterator_is_an_answer_in_pieces(form, tmp_path):
    flow = write_stream_flow(tmp_path / "flow", x="${first.output}", y="${second.output}")
    rows = [{"first": kind} for kind in KINDS] + [{"first": "iterator", "second": "generator"}]

    with exported(flow, form, tmp_path / "out") as export, Engine(load_flow(flow)) as engine:
        for values in rows:
            assert export.run(values) == engine_result(engine, values), values
            expected = engine_events(engine, values)
            assert asyncio.run(streamed_events(export, values)) == expected, values
    assert expected[-1] == "MultipleStreamOutputFieldsNotSupported"


def engine_events(engine, values):
    """Return the streamed output's name and all events, or the error codes."""
    try:
        with engine.stream(values) as stream:
            if stream.result.error:
                return stream.result.error.codes
            complete = [dict(stream.result.outputs)] if stream.result.outputs else []
            return stream.name, complete + [{stream.name: piece} for piece in stream]
    except LineError as error:
        return error.codes


async def streamed_events(export, values):
    line = export.module.Line(export.module.INPUTS)
    try:
        events = [event async for event in export.module.stream_line(values, line=line)]
    except LineError as error:
        return error.codes
    return line.streamed, events


@pytest.mark.parametrize("names", [("flow_inputs", "flow_outputs"), ("start", "finish")])
def test_nodes_may_have_the_names_of_beginning_and_end(names, form, tmp_path):
    flow = write_stream_flow(tmp_path / "flow", x="${first.output}", y="${second.output}")
    file = flow / "flow.dag.yaml"
    text = file.read_text()
    for old, new in zip(("first", "second"), names):
        text = text.replace(f'"name": "{old}"', f'"name": "{new}"')
        text = text.replace(f"${{{old}.", f"${{{new}.")
    file.write_text(text)
    with exported(flow, form, tmp_path / "out") as export:
        assert export.run({"first": "a", "second": "iterator"}) == {"x": "a", "y": "ab3"}
