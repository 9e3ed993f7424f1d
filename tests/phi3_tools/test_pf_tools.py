"""The tools inside the real promptflow: listed, run, streamed, counted, failing."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator

import pytest
import yaml
from promptflow._utils.exception_utils import ErrorResponse
from promptflow.contracts.run_info import Status
from promptflow.contracts.types import PromptTemplate
from promptflow.core._connection import CustomConnection
from promptflow.exceptions import SystemErrorException, UserErrorException
from promptflow.executor import FlowExecutor

from phi3_tools import pf_calls, pf_tools

HANG_S = 30
SECRET = "very-secret-key"
USAGE = {"prompt_tokens": 11, "completion_tokens": 7}
ANSWER = {"output": "Bill Gates", "usage": USAGE, "finish_reason": "stop", "model": "tiny"}
TOOLS = pf_tools.list_package_tools()
TYPES = {str: "string", int: "int", float: "double", bool: "bool", list: "list"}


@pytest.fixture(autouse=True)
def own_clients():
    """The tools keep clients for the process; close those of this test."""
    yield
    pf_calls._clients.close()


@pytest.fixture
def connection():
    def make(server, key=SECRET, **configs):
        return CustomConnection({"key": key}, {"endpoint": server.url, **configs}, name="phi3")

    return make


def piece(text):
    return {"output": text}


# -- asking ----------------------------------------------------------------------------------------


def test_chat_sends_all_its_inputs(server, connection):
    server.json(ANSWER)
    answer = pf_tools.phi3_chat(
        connection(server),
        question="And now?",
        chat_history=[{"inputs": {"question": "q"}, "outputs": {"answer": "a"}, "id": "1"}],
        messages=[{"role": "user", "content": "m"}, {"role": "assistant", "content": "n"}],
        system_prompt="Be kind.",
        max_new_tokens=9,
        temperature=0.5,
        top_p=0.9,
        stop=["END"],
        seed=3,
        deployment="blue",
    )
    assert answer == "Bill Gates"
    sent = server.bodies()[0]["input_data"]
    assert [(m["role"], m["content"]) for m in sent["input_string"]] == [
        ("system", "Be kind."),
        ("user", "q"),
        ("assistant", "a"),
        ("user", "m"),
        ("assistant", "n"),
        ("user", "And now?"),
    ]
    assert sent["parameters"] == {
        "max_new_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "do_sample": True,
        "stop": ["END"],
        "seed": 3,
    }
    assert server.requests[0].headers["azureml-model-deployment"] == "blue"


def test_chat_defaults(server, connection):
    server.json(ANSWER)
    pf_tools.phi3_chat(connection(server), "Hi", chat_history="", messages=[], stop=[])
    parameters = server.bodies()[0]["input_data"]["parameters"]
    assert parameters == {"max_new_tokens": 128, "temperature": 0.7, "do_sample": True}


def test_the_context_window_can_be_switched_off(server, connection):
    server.json(ANSWER)
    history = [{"inputs": {"question": "x" * 9000}, "outputs": {"answer": "a"}}]
    for window in (4096, 0):
        pf_tools.phi3_chat(connection(server), "Hi", history, context_window=window)
    assert [len(b["input_data"]["input_string"]) for b in server.bodies()] == [1, 3]


def test_prompt_takes_a_template(server, connection):
    server.json(ANSWER)
    template = PromptTemplate("system:\nBe {{ manner }}.\nuser:\n{{ q }}")
    answer = pf_tools.phi3_prompt(connection(server), template, manner="kind", q="system:\nevil")
    assert answer == "Bill Gates"
    assert server.bodies()[0]["input_data"]["input_string"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "system:\nevil"},
    ]


def test_detail(server, connection):
    server.json(ANSWER, headers={"x-ms-request-id": "r-1"})
    detail = pf_tools.phi3_chat_detail(connection(server), "Who?")
    assert detail.pop("latency_s") > 0
    assert detail == {
        "answer": "Bill Gates",
        "usage": {**USAGE, "total_tokens": 18},
        "finish_reason": "stop",
        "model": "tiny",
        "contract": "chat",
        "attempts": 1,
        "request_id": "r-1",
        "error": None,
    }


def test_detail_keeps_the_line_of_a_failed_call(server, connection):
    server.json({"error": {"message": "no"}}, 401, {"x-ms-request-id": "r-1"})
    detail = pf_tools.phi3_chat_detail(connection(server), "Who?")
    assert detail["answer"] == ""
    assert detail["request_id"] == "r-1"
    assert detail["error"]["type"] == "AuthenticationError"
    assert detail["error"]["status"] == 401
    assert set(detail) == set(pf_calls.detail(None, None))


def test_detail_keeps_the_line_of_a_question_too_long(server, connection):
    detail = pf_tools.phi3_chat_detail(connection(server), "x" * 100_000)
    assert detail["error"]["type"] == "PromptTooLongError"
    assert server.requests == []


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (400, UserErrorException, "BadRequestError"),
        (401, UserErrorException, "AuthenticationError"),
        (403, UserErrorException, "PermissionDeniedError"),
        (404, UserErrorException, "DeploymentNotFoundError"),
        (413, UserErrorException, "RequestTooLargeError"),
        (302, UserErrorException, "UnexpectedRedirectError"),
        (429, SystemErrorException, "RateLimitedError"),
        (408, SystemErrorException, "EndpointTimeoutError"),
        (424, SystemErrorException, "ScoringFailedError"),
        (500, SystemErrorException, "ServerError"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_user_errors_and_system_errors(server, connection, waits, status, kind, message, stream):
    """Prompt flow's serving answers 4xx to user errors and 5xx to system errors.

    A stream's error comes before the first piece, so that it can still set the status.
    """
    server.json({"error": {"message": "endpoint message"}}, status)
    with pytest.raises(kind) as caught:
        pf_tools.phi3_chat(connection(server, contract="chat"), "Hi", stream=stream)
    assert f"{message}: " in caught.value.message
    assert "endpoint message" in caught.value.message
    assert SECRET not in repr(caught.value) + str(caught.value) + caught.value.message


def test_the_innermost_error_code_is_the_class_of_the_error(server, connection, waits):
    server.json({}, 429)
    with pytest.raises(SystemErrorException) as caught:
        pf_tools.phi3_chat(connection(server, contract="chat"), "Hi")
    copied = pickle.loads(
        pickle.dumps(caught.value)
    )  # promptflow's own engine runs lines in processes
    for error in (caught.value, copied):
        response = ErrorResponse.from_exception(error)
        assert response.error_codes == ["SystemError", "Phi3SystemError", "RateLimitedError"]
        assert response.response_code == "500"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "the chat does not end with a question. Give the tool `question` or `messages`"),
        (
            {"messages": [{"role": "assistant", "content": "x"}]},
            "the chat does not end with a question",
        ),
        ({"question": "Hi", "temperature": 3}, "temperature is 3, but must be"),
        ({"question": "Hi", "max_new_tokens": 0}, "max_new_tokens is 0, but must be"),
        ({"question": "Hi", "messages": "x"}, "`messages` is str, but must be a list"),
        (
            {"question": "Hi", "chat_history": {"a": 1}},
            "`chat_history` is dict, but must be a list",
        ),
        ({"question": "Hi", "chat_history": ["x"]}, "chat_history item 1 is not"),
        ({"messages": ["x"]}, "message 1: role is None"),
        ({"question": "x" * 100_000}, "PromptTooLongError"),
        ({"question": "Hi", "deployment": "a b"}, "`deployment` is not a valid name"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_wrong_inputs_are_user_errors(server, connection, inputs, message, stream):
    with pytest.raises(UserErrorException, match=message):
        pf_tools.phi3_chat(connection(server), **inputs, stream=stream)
    assert server.requests == []


def test_detail_raises_errors_that_the_caller_must_fix(server, connection):
    for inputs in ({}, {"question": "Hi", "temperature": 3}, {"messages": [{"role": "x"}]}):
        with pytest.raises(UserErrorException, match="ConfigError"):
            pf_tools.phi3_chat_detail(connection(server), **inputs)
    with pytest.raises(UserErrorException, match="`endpoint`"):
        pf_tools.phi3_chat_detail(CustomConnection({"key": SECRET}), "Hi")


def test_a_wrong_prompt_is_a_user_error(server, connection):
    with pytest.raises(UserErrorException, match="'q' is undefined"):
        pf_tools.phi3_prompt(connection(server), PromptTemplate("user:\n{{ q }}"))


# -- streams ---------------------------------------------------------------------------------------


def test_a_stream_is_a_generator(server, connection):
    server.events(piece("Bill"), piece(" Gates"), "[DONE]")
    answer = pf_tools.phi3_chat(connection(server), "Who?", stream=True)
    assert isinstance(answer, Iterator)
    assert not isinstance(answer, str)
    assert list(answer) == ["Bill", " Gates"]


def test_an_error_in_the_middle_becomes_a_piece(server, connection):
    """The status 200 was sent before; an exception would only cut the answer off."""
    server.events(piece("Bill"), {"error": {"message": "The engine failed."}})
    first, last = pf_tools.phi3_chat(connection(server), "Who?", stream=True)
    assert first == "Bill"
    assert last.startswith(
        "\n\n[The answer broke off: the model failed to answer: The engine failed"
    )


def test_an_abandoned_stream_is_closed(server, connection):
    def answer(x):
        x.begin_events()
        x.event(piece("Bill"))
        x.until_client_leaves()

    server.play(answer)
    pieces = pf_tools.phi3_chat(connection(server), "Who?", stream=True)
    del pieces  # before the first piece is read
    assert server.client_left.wait(HANG_S)


def test_prompt_streams_too(server, connection):
    server.events(piece("Bill"), "[DONE]")
    pieces = pf_tools.phi3_prompt(connection(server), PromptTemplate("user:\nHi"), stream=True)
    assert list(pieces) == ["Bill"]


# -- clients ---------------------------------------------------------------------------------------


def test_a_connection_keeps_its_client(server, connection):
    server.json(ANSWER)
    for _ in range(3):
        pf_tools.phi3_chat(connection(server), "Hi")
    assert len(pf_calls._clients) == 1
    assert server.connections == 1
    pf_tools.phi3_chat(connection(server, key="another"), "Hi")
    pf_tools.phi3_chat(connection(server), "Hi", deployment="blue")
    assert len(pf_calls._clients) == 3
    headers = [request.headers["authorization"] for request in server.requests]
    assert headers == [*[f"Bearer {SECRET}"] * 3, "Bearer another", f"Bearer {SECRET}"]


def test_threads_share_one_client(server, connection):
    barrier = threading.Barrier(8)
    server.json(ANSWER)

    def ask():
        barrier.wait(HANG_S)
        pf_tools.phi3_chat(connection(server), "Hi")

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_S)
    assert len(pf_calls._clients) == 1
    assert len(server.requests) == 8


# -- inside a flow ---------------------------------------------------------------------------------


@pytest.fixture
def flow(tmp_path, monkeypatch):
    """Return a function that makes promptflow's executor for a flow of one node."""
    monkeypatch.setenv("PF_DISABLE_TRACING", "false")

    def make(connection, tool, **inputs):
        node = {
            "name": "ask",
            "type": "custom_llm" if "prompt" in tool else "python",
            "source": {"type": "package", "tool": f"phi3_tools.pf_tools.{tool}"},
            "inputs": {"connection": "phi3", "question": "${inputs.question}", **inputs},
        }
        if "prompt" in tool:
            (tmp_path / "p.jinja2").write_text("user:\n{{ question }}")
            node["source"].update(type="package_with_prompt", path="p.jinja2")
        definition = {
            "inputs": {"question": {"type": "string"}},
            "outputs": {"answer": {"type": "string", "reference": "${ask.output}"}},
            "nodes": [node],
        }
        path = tmp_path / "flow.dag.yaml"
        path.write_text(yaml.safe_dump(definition))
        stored = {
            "phi3": {
                "type": "CustomConnection",
                "value": {**connection.configs, **connection.secrets},
                "module": "promptflow.connections",
                "secret_keys": ["key"],
            }
        }
        return FlowExecutor.create(path, stored, tmp_path, raise_ex=False)

    return make


@pytest.mark.parametrize("tool", ["phi3_chat", "phi3_chat_detail", "phi3_prompt"])
def test_a_flow_runs_and_counts_its_tokens(server, connection, flow, tool):
    server.json(ANSWER)
    result = flow(connection(server), tool).exec_line({"question": "Who?"}, index=0)
    assert result.run_info.status is Status.Completed, result.run_info.error
    answer = result.output["answer"]
    assert (answer["answer"] if tool == "phi3_chat_detail" else answer) == "Bill Gates"
    for metrics in (result.run_info.system_metrics, result.node_run_infos["ask"].system_metrics):
        counted = {name: metrics[name] for name in (*USAGE, "total_tokens")}
        assert counted == {**USAGE, "total_tokens": 18}


def test_no_usage_is_not_counted(server, connection, flow):
    server.json({"output": "Bill"})
    result = flow(connection(server), "phi3_chat").exec_line({"question": "Who?"}, index=0)
    assert result.run_info.status is Status.Completed
    assert not result.run_info.system_metrics.get("total_tokens")


def test_tracing_may_be_off(server, connection, flow, monkeypatch):
    monkeypatch.setenv("PF_DISABLE_TRACING", "true")
    server.json(ANSWER)
    result = flow(connection(server), "phi3_chat").exec_line({"question": "Who?"}, index=0)
    assert result.output["answer"] == "Bill Gates"


def test_a_flow_streams(server, connection, flow):
    """Serving switches the node's stream option on for the output of the flow."""
    server.events(piece("Bill"), piece(" Gates"), "[DONE]")
    executor = flow(connection(server), "phi3_chat")
    executor.enable_streaming_for_llm_flow(lambda: True)
    result = executor.exec_line({"question": "Who?"}, allow_generator_output=True)
    assert list(result.output["answer"]) == ["Bill", " Gates"]


@pytest.mark.parametrize(("status", "code"), [(401, "UserError"), (500, "SystemError")])
def test_a_failing_flow_has_a_user_or_system_error(server, connection, flow, waits, status, code):
    server.json({"error": {"message": "endpoint message"}}, status)
    result = flow(connection(server), "phi3_chat").exec_line({"question": "Who?"}, index=0)
    assert result.run_info.status is Status.Failed
    assert result.run_info.error["code"] == code
    assert "endpoint message" in result.run_info.error["message"]
    assert SECRET not in str(result)


def test_a_trace_does_not_contain_the_key(server, connection, flow):
    server.json(ANSWER)
    result = flow(connection(server), "phi3_chat").exec_line({"question": "Who?"}, index=0)
    assert SECRET not in str(result.run_info.api_calls)
    calls = [child for call in result.run_info.api_calls for child in call["children"]]
    assert "phi3" in str([call["name"] for call in calls])


def test_promptflows_advice_about_its_own_access_to_secrets_is_not_printed(capsys):
    connection = CustomConnection(secrets={"key": "k"}, configs={"endpoint": "e"})
    assert connection.key == "k"  # as promptflow's executor reads it
    assert connection.endpoint == "e"
    output = "".join(capsys.readouterr())
    assert "connection.secrets[key]" not in output
