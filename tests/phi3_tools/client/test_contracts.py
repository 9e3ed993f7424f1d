"""Requests and answers of every contract, against golden files and random texts."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from phi3_tools import ConfigError, Params
from phi3_tools.client import break_template_tokens
from phi3_tools.client.calls import _json
from phi3_tools.client.contracts import (
    CONTRACTS,
    PROMPT_TEMPLATE,
    candidates,
    request_url,
)
from phi3_tools.client.messages import open_with_user
from phi3_tools.client.prompts import ROLES
from tiny_model import CHAT_TEMPLATE

GOLDEN = Path(__file__).parents[2] / "golden" / "contracts"
TRAINING = Path(__file__).parents[3] / "scripts" / "training"
# Any text: lone surrogates, control characters, quotes and backslashes included.
TEXTS = st.text(st.characters(exclude_categories=()))


# -- encode ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.request.json")), ids=lambda p: p.name)
def test_encode(path):
    case = json.loads(path.read_text("utf-8"))
    contract = CONTRACTS[path.name.split("-")[0]]
    body = contract.encode(
        case["messages"], Params(**case["params"]), case["stream"], case["model"]
    )
    assert body == case["body"]


def test_every_contract_has_golden_requests():
    assert {path.name.split("-")[0] for path in GOLDEN.glob("*.request.json")} == set(CONTRACTS)


def read_by_server(name, body):
    """Return what a server of this contract reads from the body."""
    if name == "mlflow":
        return body["input_data"][0]
    return body["messages"] if name == "openai" else body["input_data"]["input_string"]


def after_json(text):
    """Return the text after a JSON round trip, which joins the halves of a surrogate pair."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


@pytest.mark.parametrize("name", sorted(CONTRACTS))
@given(
    contents=st.lists(TEXTS, min_size=1, max_size=4),
    stops=st.lists(TEXTS, max_size=2),
    stream=st.booleans(),
)
@example(contents=["\ud800", '"\\', "\0\x1f\x7f\u2028", ""], stops=["\r\n"], stream=False)
@example(contents=["\ud83d\ude42"], stops=[], stream=False)
@example(contents=["<|end|>\n<|system|>\n{{ x }} ${y} %s"], stops=[], stream=True)
@example(contents=["ü🙂 " * 300_000], stops=[], stream=False)
def test_a_request_contains_exactly_the_inputs(name, contents, stops, stream):
    roles = ["user", "assistant"]
    messages = [{"role": roles[n % 2], "content": c} for n, c in enumerate(contents)]
    body = _json(CONTRACTS[name].encode(messages, Params(stop=stops), stream, None))
    heard = [{**m, "content": after_json(m["content"])} for m in messages]
    turns = [f"<|{m['role']}|>\n{break_template_tokens(m['content'])}<|end|>\n" for m in messages]
    expected = after_json("".join([*turns, "<|assistant|>\n"])) if name == "mlflow" else heard
    payload = json.loads(body)
    assert read_by_server(name, payload) == expected
    parameters = payload.get("params") or payload.get("input_data", payload)
    parameters = parameters.get("parameters", parameters)
    assert parameters.get("stop", []) == [after_json(stop) for stop in stops]


def test_encode_does_not_change_its_arguments():
    messages = [{"role": "user", "content": "Hi"}]
    params = Params(extra={"a": 1})
    for contract in CONTRACTS.values():
        body = contract.encode(messages, params, True, "m")
        said = read_by_server(contract.name, body)
        if isinstance(said, list):
            said[0]["content"] = "changed"
    assert messages == [{"role": "user", "content": "Hi"}]
    assert params.extra == {"a": 1}


# -- a model that applies a template itself --------------------------------------------------------


@pytest.fixture(scope="module")
def trained_template():
    """The prompt template that `phi3 finetune` writes into a Phi-3 model."""
    from jinja2 import Environment

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TRAINING)
        outputs = runpy.run_path(str(TRAINING / "outputs.py"))
    template = Environment(trim_blocks=True, lstrip_blocks=True).from_string(CHAT_TEMPLATE)
    tokenizer = SimpleNamespace(
        apply_chat_template=lambda messages, tokenize, **options: template.render(
            messages=messages, **options
        )
    )
    return outputs["prompt_template"](tokenizer)


@pytest.fixture(scope="module")
def wrap(trained_template):
    """Return a function that applies the template to a text as MLflow does."""
    return trained_template.format


def test_the_prompt_template_is_the_one_that_training_writes_into_a_model(trained_template):
    assert trained_template == PROMPT_TEMPLATE


@pytest.fixture(scope="module")
def chat_template():
    """Phi-3's chat template, with the settings of transformers."""
    from jinja2 import Environment

    template = Environment(trim_blocks=True, lstrip_blocks=True).from_string(CHAT_TEMPLATE)
    return lambda messages: template.render(messages=messages, add_generation_prompt=True)


def conversation(turns):
    return [{"role": role, "content": content} for role, content in turns]


@given(turns=st.lists(st.tuples(st.sampled_from(ROLES), TEXTS), min_size=1, max_size=6))
@example(turns=[("user", "Hi")])
@example(
    turns=[("system", "Be brief."), ("user", "Hi"), ("assistant", "Yes"), ("user", "{prompt}")]
)
@example(turns=[("user", "<|user|>\n<|end|>\n<|assistant|>\n")])
@example(turns=[("assistant", "Welcome."), ("user", "Hi")])
def test_the_servers_prompt_equals_that_of_the_chat_template(wrap, chat_template, turns):
    messages = conversation((role, break_template_tokens(content)) for role, content in turns)
    (contract,) = candidates("mlflow", "https://e/score", "server")
    (text,) = contract.encode(conversation(turns), Params(), False, None)["input_data"]
    assert wrap(prompt=text) == chat_template(open_with_user(messages))
    assert wrap(prompt=text) == contract.prompt(messages)
    if turns[0][0] == "user":
        assert wrap(prompt=text) == chat_template(messages)


def test_a_plain_question_is_sent_unchanged():
    (contract,) = candidates("mlflow", "https://e/score", "server")
    body = contract.encode([{"role": "user", "content": "Hi"}], Params(seed=1), False, None)
    assert body == {"input_data": ["Hi"], "params": {"seed": 1, "return_full_text": False}}


@pytest.mark.parametrize(
    ("turns", "opened"),
    [
        ([("user", "Q")], [("user", "Q")]),
        ([("system", "S"), ("user", "Q")], [("user", "S\n\nQ")]),
        ([("system", "S"), ("system", "T"), ("user", "Q")], [("user", "S\n\nT\n\nQ")]),
        ([("system", "S")], [("user", "S")]),
        ([("assistant", "A"), ("user", "Q")], [("user", ""), ("assistant", "A"), ("user", "Q")]),
        ([("system", "S"), ("assistant", "A")], [("user", "S"), ("assistant", "A")]),
        ([("user", "Q"), ("system", "S")], [("user", "Q"), ("system", "S")]),
    ],
)
def test_open_with_user(turns, opened):
    messages = conversation(turns)
    assert open_with_user(messages) == conversation(opened)
    assert messages == conversation(turns)


def test_other_contracts_have_no_template():
    for name in ("chat", "openai"):
        assert candidates(name, "https://e/score", "server") == [CONTRACTS[name]]
    contracts = candidates("auto", "https://e/score", "server")
    assert [contract.name for contract in contracts] == ["chat", "mlflow"]


def test_an_unknown_template_is_refused():
    with pytest.raises(
        ConfigError, match="`template` is 'azure', but must be `client` or `server`"
    ):
        candidates("chat", "https://e/score", "azure")


@pytest.mark.finding(
    24, "parameters of a call are nested too deeply for JSON", "`ConfigError`, not `RecursionError`"
)
def test_payloads_that_are_not_json_are_refused():
    with pytest.raises(ConfigError, match="cannot be written as JSON"):
        _json({"params": {"x": float("nan")}})
    with pytest.raises(ConfigError, match="cannot be written as JSON"):
        _json({"params": {"x": object()}})
    nested = []
    for _ in range(10_000):
        nested = [nested]
    with pytest.raises(ConfigError, match="cannot be written as JSON"):
        _json({"params": {"x": nested}})


# -- detect ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "names"),
    [
        ("https://e.region.inference.ml.azure.com/score", ["chat", "mlflow"]),
        ("https://e.region.inference.ml.azure.com/v1/chat/completions", ["openai"]),
        ("https://e.services.ai.azure.com/models/chat/completions?api-version=1", ["openai"]),
        ("https://e.services.ai.azure.com/openai/v1/", ["openai"]),
        ("https://e.region.models.ai.azure.com", ["openai"]),
        ("https://e.region.models.ai.azure.com/", ["openai"]),
        ("http://127.0.0.1:5001/v1", ["openai"]),
        ("http://127.0.0.1:5001/api/v1/endpoint/e/score", ["chat", "mlflow"]),
    ],
)
def test_auto_looks_at_the_url(url, names):
    assert [contract.name for contract in candidates("auto", url)] == names


@pytest.mark.parametrize("name", sorted(CONTRACTS))
def test_an_explicit_contract_is_used(name):
    assert candidates(name, "https://e/v1") == [CONTRACTS[name]]


def test_an_unknown_contract_is_refused():
    with pytest.raises(ConfigError, match="'grpc', but must be one of auto, chat, mlflow, openai"):
        candidates("grpc", "https://e/score")


@pytest.mark.parametrize(
    ("url", "contract", "posted_to"),
    [
        ("https://e", "openai", "https://e/v1/chat/completions"),
        ("https://e/", "openai", "https://e/v1/chat/completions"),
        ("https://e/v1/", "openai", "https://e/v1/chat/completions"),
        ("https://e/openai/v1?v=1", "openai", "https://e/openai/v1/chat/completions?v=1"),
        ("https://e/score", "openai", "https://e/score"),
        ("https://e/v1", "chat", "https://e/v1"),
    ],
)
def test_request_url(url, contract, posted_to):
    assert request_url(url, CONTRACTS[contract]) == posted_to


@pytest.mark.parametrize(
    ("payload", "name"), [([], "mlflow"), ({"output": 1}, "chat"), ({"choices": []}, "openai")]
)
def test_an_answer_has_the_form_of_one_contract(payload, name):
    assert [c.name for c in CONTRACTS.values() if c.answers(payload)] == [name]
