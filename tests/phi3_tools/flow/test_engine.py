"""Lines at once, nodes at once, streams, cancellation, and what a line costs."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from echo_endpoint import KEY, echo_endpoint
from engine_parity import assert_parity, write_flow
from phi3_ops import paths
from phi3_tools.flow import Engine, LineError, load_flow

HANG_S = 30
TOOL = "from phi3_tools.flow import tool\n"


def node(name, path, inputs=None, **more):
    source = {"type": "code", "path": path}
    return {"name": name, "type": "python", "source": source, "inputs": inputs or {}, **more}


def flow_of(folder, nodes, output, inputs=("text",), **files):
    definition = {
        "inputs": {name: {"type": "string"} for name in inputs},
        "outputs": {"answer": {"type": "string", "reference": output}},
        "nodes": nodes,
    }
    return load_flow(write_flow(folder, definition, **files))


@pytest.fixture
def server():
    with echo_endpoint() as server:
        server.may_finish.set()
        yield server


@pytest.fixture
def chat(server):
    connection = {"endpoint": server.url, "key": KEY, "max_attempts": "1"}
    with Engine(load_flow(paths.FLOWS / "chat"), {"phi3": connection}) as engine:
        yield engine


def test_many_lines_run_at_once(chat):
    texts = [f"question {n}" for n in range(64)]
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda text: chat.run({"question": text}), texts))
    assert [result.outputs["answer"] for result in results] == texts

    async def at_once():
        return await asyncio.gather(*(chat.arun({"question": text}) for text in texts))

    assert [result.outputs["answer"] for result in asyncio.run(at_once())] == texts


MEETING = TOOL + (
    "import threading\n"
    "meeting = threading.Barrier(2, timeout=20)\n"
    "@tool\n"
    "def meet(text: str) -> str:\n"
    "    meeting.wait()\n"
    "    return text\n"
)


def test_nodes_that_are_ready_run_at_once(tmp_path):
    """Each of two nodes of one file would wait for the other one for ever."""
    shared = (
        TOOL + "import shared\n@tool\ndef meet(text: str) -> str:\n    return shared.meet(text)\n"
    )
    nodes = [
        node("a", "a.py", {"text": "${inputs.text}"}),
        node("b", "a.py", {"text": "${inputs.text}"}),
        node("join", "join.py", {"a": "${a.output}", "b": "${b.output}"}),
    ]
    join = TOOL + "@tool\ndef join(a, b):\n    return a + b\n"
    flow = flow_of(
        tmp_path, nodes, "${join.output}", a__py=shared, shared__py=MEETING, join__py=join
    )
    with Engine(flow) as engine:
        result = engine.run({"text": "x"})
        assert result.outputs == {"answer": "xx"}, result.error
        assert asyncio.run(engine.arun({"text": "y"})).outputs == {"answer": "yy"}


def test_async_nodes_and_functions_run_at_once(tmp_path):
    wait = TOOL + (
        "import asyncio, shared\n@tool\nasync def a(text: str):\n"
        "    return await asyncio.to_thread(shared.meet, text)\n"
    )
    block = TOOL + "import shared\n@tool\ndef b(text: str):\n    return shared.meet(text)\n"
    nodes = [
        node("a", "a.py", {"text": "${inputs.text}"}),
        node("b", "b.py", {"text": "${inputs.text}"}),
    ]
    flow = flow_of(tmp_path, nodes, "${b.output}", a__py=wait, b__py=block, shared__py=MEETING)
    with Engine(flow) as engine:
        assert engine.run({"text": "x"}).outputs == {"answer": "x"}
        assert asyncio.run(engine.arun({"text": "y"})).outputs == {"answer": "y"}


def test_the_result_has_the_run_of_each_node(chat):
    result = chat.run({"question": "hello", "unknown": 1})
    run = result.node_runs["chat"]
    assert result.inputs["chat_history"] == []
    assert (run.status, run.output) == ("Completed", "hello")
    assert run.inputs["question"] == "hello"
    assert 0 < run.seconds <= result.seconds
    assert result.started <= run.started
    assert result.node_outputs == {"chat": "hello"} and result.skipped == []


def test_a_failed_line_says_why(chat):
    result = chat.run({"question": "fail"})
    assert result.outputs == {}
    assert result.error.node == "chat" and result.error.is_user_error
    assert result.node_runs["chat"].status == "Failed"
    assert result.error.as_dict()["innerError"]["innerError"]["code"] == "BadRequestError"
    missing = Engine(load_flow(paths.FLOWS / "eval")).run({"answer": "x"})
    assert str(missing.error) == "the input 'ground_truth' is missing, and it has no default"


# -- streams ---------------------------------------------------------------------------------------


def test_an_answer_streams_piece_by_piece(chat, server):
    server.may_finish.clear()
    with chat.stream({"question": "one two three"}) as stream:
        first = next(stream)
        assert stream.name == "answer" and "answer" not in stream.result.outputs
        server.may_finish.set()  # the last word is held back until here
        pieces = [first, *stream]
    assert pieces == ["one", "two", "three"]
    assert stream.result.outputs == {"answer": "onetwothree"}
    assert not server.waited_in_vain


def test_an_answer_streams_in_an_event_loop(chat):
    async def read():
        async with await chat.astream({"question": "one two three"}) as stream:
            return [piece async for piece in stream], stream.result

    pieces, result = asyncio.run(read())
    assert pieces == ["one", "two", "three"]
    assert result.outputs == {"answer": "onetwothree"}


def test_a_line_that_fails_before_its_first_piece_has_an_empty_stream(chat):
    stream = chat.stream({"question": "fail"})
    assert list(stream) == [] and stream.name is None
    assert stream.result.error.code == "BadRequestError"


def test_a_node_that_fails_within_its_stream_ends_it_with_an_error(tmp_path):
    words = TOOL + "@tool\ndef words(text):\n    yield text\n    raise ValueError('broke off')\n"
    nodes = [node("words", "words.py", {"text": "${inputs.text}"})]
    flow = flow_of(tmp_path, nodes, "${words.output}", words__py=words)
    stream = Engine(flow).stream({"text": "x"})
    assert next(stream) == "x"
    with pytest.raises(LineError, match="broke off"):
        next(stream)
    assert stream.result.error.codes == ("SystemError", "ValueError")
    assert list(stream) == []


def test_a_node_that_another_node_needs_does_not_stream(tmp_path, server):
    definition = (paths.FLOWS / "chat" / "flow.dag.yaml").read_text()
    definition += (
        "- name: shout\n  type: python\n  source: {type: code, path: shout.py}\n"
        "  inputs: {text: '${chat.output}'}\n"
    )
    shout = TOOL + "@tool\ndef shout(text: str):\n    return text.upper()\n"
    folder = write_flow(tmp_path, definition, shout__py=shout)
    connection = {"endpoint": server.url, "key": KEY}
    with Engine(load_flow(folder), {"phi3": connection}) as engine:
        stream = engine.stream({"question": "hello"})
        assert stream.name is None and stream.result.outputs == {"answer": "hello"}


# -- cancellation ----------------------------------------------------------------------------------


SLOW = TOOL + (
    "from phi3_tools import Phi3Client\n"
    "@tool\n"
    "def ask(text: str) -> str:\n"
    "    client = Phi3Client.from_connection({'endpoint': text, 'key': 'k', 'max_attempts': '1'})\n"
    "    return client.chat('hello').text\n"
)


def test_a_cancelled_line_closes_its_connection(tmp_path, new_server):
    server = new_server()
    asked = threading.Event()
    server.play(lambda exchange: (asked.set(), exchange.until_client_leaves()))
    never = TOOL + "@tool\ndef never(text: str):\n    raise AssertionError('it was cancelled')\n"
    nodes = [
        node("ask", "ask.py", {"text": "${inputs.text}"}),
        node("never", "never.py", {"text": "${ask.output}"}),
    ]
    flow = flow_of(tmp_path, nodes, "${never.output}", ask__py=SLOW, never__py=never)

    async def cancel(engine):
        task = asyncio.create_task(engine.arun({"text": server.url}))
        assert await asyncio.to_thread(asked.wait, HANG_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with Engine(flow) as engine:
        asyncio.run(cancel(engine))
        assert server.client_left.wait(HANG_S)


def test_a_failed_node_ends_the_calls_of_the_others(tmp_path, new_server):
    server = new_server()
    server.play(lambda exchange: exchange.until_client_leaves())
    fail = TOOL + (
        "import time\n@tool\ndef fail(text: str):\n    time.sleep(0.3)\n    raise ValueError(text)\n"
    )
    nodes = [
        node("ask", "ask.py", {"text": "${inputs.text}"}),
        node("fail", "fail.py", {"text": "${inputs.text}"}),
    ]
    flow = flow_of(tmp_path, nodes, "${ask.output}", ask__py=SLOW, fail__py=fail)
    with Engine(flow) as engine:
        result = engine.run({"text": server.url})
        assert result.error.node == "fail" and result.error.cause_class == "ValueError"
        assert server.client_left.wait(HANG_S)


def test_a_stream_that_is_left_closes_its_connection(chat, new_server):
    server = new_server()

    def drip(exchange):
        exchange.begin_events()
        exchange.event({"output": "one "})
        exchange.until_client_leaves()

    server.play(drip)
    connection = {"endpoint": server.url, "key": KEY, "contract": "chat"}
    with Engine(load_flow(paths.FLOWS / "chat"), {"phi3": connection}) as engine:
        with engine.stream({"question": "hello"}) as stream:
            assert next(stream) == "one "
        assert server.client_left.wait(HANG_S)


# -- what flows may rely on ------------------------------------------------------------------------


def test_a_module_gets_nothing_but_what_it_imports(tmp_path):
    names = TOOL + "METRICS = 'mine'\n@tool\ndef names(text):\n    return sorted(globals())\n"
    nodes = [node("names", "names.py", {"text": "${inputs.text}"})]
    flow = flow_of(tmp_path, nodes, "${names.output}", names__py=names)
    answer = Engine(flow).run({"text": "x"}).outputs["answer"]
    assert [name for name in answer if not name.startswith("__")] == ["METRICS", "names", "tool"]


def test_flows_with_modules_of_one_name_do_not_mix(tmp_path):
    ask = TOOL + "import helper\n@tool\ndef ask(text):\n    return helper.NAME\n"
    for name in ("one", "two"):
        nodes = [node("ask", "ask.py", {"text": "${inputs.text}"})]
        helper = f"NAME = {name!r}\n"
        flow = flow_of(tmp_path / name, nodes, "${ask.output}", ask__py=ask, helper__py=helper)
        assert Engine(flow).run({"text": ""}).outputs == {"answer": name}


def test_the_environment_variables_of_a_flow_are_set(tmp_path, monkeypatch):
    monkeypatch.setenv("FLOW_A", "")
    monkeypatch.setenv("FLOW_B", "")
    definition = {
        "environment_variables": {"FLOW_A": [1], "FLOW_B": "${phi3.key}"},
        "inputs": {},
        "outputs": {"answer": {"type": "string", "reference": "${read.output}"}},
        "nodes": [node("read", "read.py")],
    }
    read = (
        TOOL
        + "import os\n@tool\ndef read():\n    return os.environ['FLOW_A'] + os.environ['FLOW_B']\n"
    )
    flow = load_flow(write_flow(tmp_path, definition, read__py=read))
    engine = Engine(flow, {"phi3": {"endpoint": "http://127.0.0.1:1", "key": "k"}})
    assert engine.run({}).outputs == {"answer": "[1]k"}


def test_a_thread_of_an_aggregation_can_log_metrics(tmp_path):
    log = (
        "import threading\nfrom phi3_tools.flow import log_metric, tool\n@tool\ndef log(texts):\n"
        "    thread = threading.Thread(target=log_metric, args=('lines', len(texts)))\n"
        "    thread.start()\n    thread.join()\n"
    )
    echo = TOOL + "@tool\ndef echo(text):\n    return text\n"
    nodes = [
        node("echo", "echo.py", {"text": "${inputs.text}"}),
        node("log", "log.py", {"texts": "${echo.output}"}, aggregation=True),
    ]
    engine = Engine(flow_of(tmp_path, nodes, "${echo.output}", echo__py=echo, log__py=log))
    lines = [engine.run({"text": text}) for text in "ab"] + [engine.run({})]
    assert engine.aggregate(lines).metrics == {"lines": 2}


def test_a_value_that_cannot_be_compared_fails_the_line(tmp_path):
    array = TOOL + "import numpy\n@tool\ndef array(text):\n    return numpy.zeros(3)\n"
    condition = {"when": "${first.output}", "is": [0]}
    nodes = [
        node("first", "zeros.py", {"text": "${inputs.text}"}),
        node("second", "zeros.py", {"text": "x"}, activate=condition),
    ]
    flow_of(tmp_path, nodes, "${second.output}", zeros__py=array)
    outcome = assert_parity(tmp_path, [{"text": "x"}])
    assert outcome.lines == [["SystemError", "ValueError", None]]


def test_an_image_is_refused_with_the_name_of_the_input(chat):
    image = {"data:image/png;base64": "AAAA"}
    history = [{"inputs": {"question": [image]}, "outputs": {"answer": "a"}}]
    result = chat.run({"question": "hello", "chat_history": history})
    assert str(result.error) == (
        "the input 'chat_history' has an image; only promptflow's engine supports images"
    )


def test_a_default_that_a_tool_changes_is_new_in_each_line(tmp_path):
    grow = TOOL + "@tool\ndef grow(items: list):\n    items.append(1)\n    return len(items)\n"
    definition = {
        "inputs": {"items": {"type": "list", "default": []}},
        "outputs": {"answer": {"type": "int", "reference": "${grow.output}"}},
        "nodes": [node("grow", "grow.py", {"items": "${inputs.items}"})],
    }
    with Engine(load_flow(write_flow(tmp_path, definition, grow__py=grow))) as engine:
        assert [engine.run({}).outputs["answer"] for _ in range(2)] == [1, 1]
