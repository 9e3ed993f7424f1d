"""Agents: the loop over local functions, its bound, its traces, and the definitions of functions."""

from __future__ import annotations

import json
from typing import Literal

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from promptflow.exceptions import SystemErrorException, UserErrorException

from phi3_tools import ConfigError, ToolCall, pf_calls
from phi3_tools.agents import AgentAnswer, Step, run_agent, tool_definition
from phi3_tools.client import spans
from phi3_tools.connections import Connection

QUESTION = [{"role": "user", "content": "Weather?"}]


def weather(city: str, days: int = 1) -> dict:
    """Return the weather
    of a city.

    Not for the model.
    """
    if city == "Atlantis":
        raise LookupError("no such city")
    return {"city": city, "days": days}


@pytest.fixture
def connection(server):
    yield Connection("phi3", {"endpoint": server.url, "contract": "openai"}, {"key": "k"})
    pf_calls._clients.close()


def calls(*named):
    items = [ToolCall(f"c{n}", name, json.dumps(a)).as_dict() for n, (name, a) in enumerate(named)]
    message = {"role": "assistant", "content": None, "tool_calls": items}
    return {"choices": [{"message": message, "finish_reason": "tool_calls"}]}


def says(text):
    return {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}


def test_an_agent_calls_functions_until_it_answers(server, connection):
    server.json(calls(("weather", {"city": "Vienna"}), ("weather", {"city": "Graz", "days": 2})))
    server.json(calls(("weather", {"city": "Atlantis"}))).json(says("Sunny."))
    answer = run_agent(connection, QUESTION, [weather])
    assert answer == AgentAnswer(
        "Sunny.",
        "answered",
        (
            Step(1, "weather", {"city": "Vienna"}, '{"city": "Vienna", "days": 1}', False),
            Step(1, "weather", {"city": "Graz", "days": 2}, '{"city": "Graz", "days": 2}', False),
            Step(2, "weather", {"city": "Atlantis"}, "LookupError: no such city", True),
        ),
    )
    roles = [message["role"] for message in server.bodies()[-1]["messages"]]
    assert roles == ["user", "assistant", "tool", "tool", "assistant", "tool"]
    assert json.loads(json.dumps(answer.as_dict()))["steps"][2]["failed"] is True


def test_after_the_last_step_the_model_has_to_answer(server, connection):
    server.json(calls(("weather", {"city": "Vienna"}))).json(calls(("weather", {"city": "Graz"})))
    server.json(says("I stop here."))
    answer = run_agent(connection, QUESTION, [weather], max_steps=2)
    assert (answer.answer, answer.ended, len(answer.steps)) == ("I stop here.", "max_steps", 2)
    assert [body.get("tool_choice") for body in server.bodies()] == [None, None, "none"]


def test_after_the_last_call_the_model_has_to_answer(server, connection):
    server.json(calls(*[("weather", {"city": "Vienna"})] * 20))
    server.json(calls(*[("weather", {"city": "Graz"})] * 20)).json(says("I stop here."))
    answer = run_agent(connection, QUESTION, [weather], context_window=30_000)
    assert (answer.answer, answer.ended, len(answer.steps)) == ("I stop here.", "max_steps", 32)
    last = server.bodies()[-1]
    results = [item["content"] for item in last["messages"] if item["role"] == "tool"]
    assert last["tool_choice"] == "none" and len(results) == 40
    assert [result.startswith("The function was not called") for result in results[31:34]] == [
        False,
        True,
        True,
    ]


def test_the_oldest_steps_are_left_out_to_fit(server, connection):
    for _ in range(4):
        server.json(calls(("weather", {"city": "Vienna" * 40})))
    server.json(says("Done."))
    run_agent(connection, QUESTION, [weather], context_window=2600)
    roles = [message["role"] for message in server.bodies()[-1]["messages"]]
    assert roles[0] == "user" and 2 < len(roles) < 9 and roles.count("tool") == len(roles) // 2


def test_each_step_is_a_span(server, connection, monkeypatch):
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(spans.trace, "get_tracer", provider.get_tracer)
    server.json(calls(("weather", {"city": "Vienna"}), ("weather", {"city": "Atlantis"})))
    server.json(says("Sunny."))
    run_agent(connection, QUESTION, [weather])
    tools = [span for span in exporter.get_finished_spans() if "tool" in span.name]
    assert [span.name for span in tools] == ["execute_tool weather"] * 2
    assert [span.attributes.get("error.type") for span in tools] == [None, "LookupError"]
    assert "Vienna" not in str([dict(span.attributes) for span in tools])


def test_wrong_arguments_end_the_agent_after_one_repair(server, connection):
    server.json(calls(("weather", {"days": "two"})))
    with pytest.raises(SystemErrorException, match="the arguments of weather: ") as caught:
        run_agent(connection, QUESTION, [weather])
    assert caught.value.error_codes[-1] == "InvalidAnswerError"
    assert len(server.requests) == 2


@pytest.mark.parametrize("number", [0, -1, 1.5, None])
@pytest.mark.parametrize("limit", ["max_steps", "max_calls"])
def test_a_wrong_limit_is_refused(connection, limit, number):
    with pytest.raises(UserErrorException, match=f"{limit} is"):
        run_agent(connection, QUESTION, [weather], **{limit: number})


# -- definitions -----------------------------------------------------------------------------------


def test_a_function_is_a_tool():
    definition = tool_definition(weather)["function"]
    assert definition["name"] == "weather"
    assert definition["description"] == "Return the weather of a city."
    assert definition["parameters"]["properties"]["days"] == {"type": "integer"}
    assert definition["parameters"]["required"] == ["city"]


def test_annotations_become_schemas():
    def find(
        kind: Literal["a", "b"], tags: list[str], more: dict, size: float | None = None
    ) -> None: ...

    assert tool_definition(find)["function"]["parameters"]["properties"] == {
        "kind": {"enum": ["a", "b"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "more": {"type": "object"},
        "size": {"anyOf": [{"type": "number"}, {"type": "null"}]},
    }


def no_annotation(city): ...


def odd_annotation(city: bytes): ...


def odd_items(city: list[bytes]): ...


def odd_option(city: bytes | None): ...


def any_number(*cities: str): ...


@pytest.mark.parametrize(
    "function", [no_annotation, odd_annotation, odd_items, odd_option, any_number]
)
def test_a_parameter_without_a_schema_is_refused(function):
    with pytest.raises(ConfigError, match=r"the parameter 'cit(y|ies)' of \w+ cannot be"):
        tool_definition(function)


def test_annotations_that_cannot_be_evaluated_are_refused():
    def unknown(city): ...

    unknown.__annotations__ = {"city": "Undefined"}
    with pytest.raises(ConfigError, match="of unknown cannot be evaluated: name 'Undefined'"):
        tool_definition(unknown)
    unknown.__annotations__ = {"city": "'a' | 'b'"}
    with pytest.raises(ConfigError, match="of unknown cannot be evaluated: unsupported operand"):
        tool_definition(unknown)
