"""Constrained decoding: every complete answer parses and validates, whatever the model prefers."""

import json
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import numpy as np
import pytest
from answer_formats import read_answer_format
from constraints import MAX_COMPILED, ConstraintError, GrammarCompiler
from generation import keep_marks
from grammars import schema_grammar, write_grammar
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLParserLimits
from schema_checks import MAX_OPTIONAL, check_schema
from tokenizers import Tokenizer, decoders, models, normalizers
from tool_calls import ToolCallReader
from tool_format import CALL_MARKS, GENERIC, PHI4_MINI

from random_schemas import random_tokens, schemas

END = 0


@pytest.fixture(scope="module")
def compiler(tokenizer):
    return GrammarCompiler(tokenizer.backend_tokenizer.to_str(), len(tokenizer), [END])


@settings(max_examples=60, deadline=None)
@given(schemas, st.integers(0, 2**32))
def test_every_complete_answer_validates(compiler, tokenizer, schema, seed):
    constraint = compiler.compile(schema_grammar(schema))
    tokens, is_complete = random_tokens(constraint, {END}, seed, limit=150)
    if is_complete:
        value = json.loads(tokenizer.decode(tokens, skip_special_tokens=True))
        jsonschema.Draft202012Validator(schema).validate(value)


TEXT = {"type": "string"}


def inside(schema):
    return {"type": "object", "properties": {"a": schema}, "required": ["a"]}


def alternating(depth):
    """A schema whose expansion has 2 to the power of `depth` parts."""
    parts = {
        f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}, {"$ref": f"#/$defs/d{i + 1}"}]}
        for i in range(depth)
    }
    return {"$defs": {**parts, f"d{depth}": TEXT}, "$ref": "#/$defs/d0"}


HOSTILE = {
    "counted": inside({"type": "string", "pattern": "^((a{0,1000}){0,1000}){0,1000}b$"}),
    "nested repeats": inside({"type": "string", "pattern": "^(a+)+$"}),
    "exponential states": inside({"type": "string", "pattern": ".*a.{24}$"}),
    "exponential states twice": inside({"type": "string", "pattern": "^(.*a.{200}){1,50}$"}),
    "long pattern": inside({"type": "string", "pattern": "a?" * 20_000 + "a" * 20_000}),
    "long string": inside({"type": "string", "minLength": 10**6, "maxLength": 10**9}),
    "long array": inside({"type": "array", "minItems": 10**6, "maxItems": 10**9}),
    "multiples": inside({"type": "integer", "multipleOf": 9973}),
    "wide range": inside({"type": "number", "minimum": -1e300, "maximum": 1e300}),
    "expansion": alternating(25),
    "product": {
        "allOf": [{"anyOf": [inside({"const": 100 * i + j}) for j in range(8)]} for i in range(12)]
    },
    "reference to itself": {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    "enum": inside({"enum": [f"value {i}" for i in range(9_000)]}),
    "optional properties": {"properties": {f"p{i}": TEXT for i in range(MAX_OPTIONAL)}},
    "patterns together": inside({"allOf": [{"pattern": f".*{c}.*"} for c in "abcdefgh"]}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_schema_ends_soon(compiler, name):
    """It is refused, or an answer to it is generated: neither takes long, see the test's timeout."""
    schema = HOSTILE[name]
    check_schema(schema, "schema")
    try:
        constraint = compiler.compile(schema_grammar(schema))
    except ConstraintError:
        return
    state = constraint.start()
    for _ in range(200):
        allowed = np.flatnonzero(state.allowed())
        if state.failed or state.ended:
            return
        state.add(int(allowed[-1]))


def test_a_grammar_that_becomes_too_complex_ends_the_answer_and_is_forgotten(tokenizer):
    with pytest.MonkeyPatch.context() as patch:
        limits = LLParserLimits(max_lexer_states=300, verbose_errors=False)
        patch.setattr("constraints.LIMITS", limits)
        compiler = GrammarCompiler(tokenizer.backend_tokenizer.to_str(), len(tokenizer), [END])
        grammar = schema_grammar({"type": "string", "pattern": "^(.*a.{200}){1,50}$"})
        constraint = compiler.compile(grammar)
        assert compiler.compile(grammar) is constraint
        state, chance = constraint.start(), np.random.default_rng(0)
        for _ in range(2_000):
            allowed = np.flatnonzero(state.allowed())
            if state.failed:
                break
            state.add(int(chance.choice(allowed)))
        assert state.failed and not state.ended
        assert compiler.compile(grammar) is not constraint


def fields(count, name="p"):
    return {"type": "object", "properties": {f"{name}{i}": TEXT for i in range(count)}}


@pytest.mark.parametrize(
    "schema",
    [
        fields(MAX_OPTIONAL),
        {**fields(MAX_OPTIONAL), "additionalProperties": False},
        {"anyOf": [fields(MAX_OPTIONAL // 2, "a"), fields(MAX_OPTIONAL // 2, "b")]},
        {**fields(1_000), "required": [f"p{i}" for i in range(0, 1_000 - MAX_OPTIONAL)]},
    ],
    ids=["open", "closed", "alternatives", "required"],
)
def test_an_object_can_have_as_many_keys_as_are_accepted(compiler, tokenizer, schema):
    check_schema(schema, "schema")
    state = compiler.compile(schema_grammar(schema)).start()
    for text in ("{", '"', "p"):
        allowed = state.allowed()
        (token,) = tokenizer.encode(text, add_special_tokens=False)
        if not allowed[token]:  # the keys start with another letter
            assert text == "p"
            break
        state.add(token)
    assert state.allowed().any() and not state.failed


def test_an_object_with_too_many_optional_keys_is_not_compiled(compiler):
    with pytest.raises(ConstraintError, match="too complex"):
        compiler.compile(schema_grammar(fields(600)))


def test_a_grammar_may_be_forgotten_while_it_is_read(tokenizer):
    class Forgetful(OrderedDict):
        def move_to_end(self, key, last=True):
            compiler.forget(key)
            super().move_to_end(key, last)

        def __setitem__(self, key, value):
            super().__setitem__(key, value)
            if forgets_at_once:
                compiler.forget(key)

    compiler = GrammarCompiler(tokenizer.backend_tokenizer.to_str(), len(tokenizer), [END])
    compiler._compiled, forgets_at_once = Forgetful(), False
    grammar = schema_grammar({"const": "x"})
    constraint = compiler.compile(grammar)
    assert compiler.compile(grammar) is constraint
    forgets_at_once = True
    assert compiler.compile(grammar) is not constraint


def test_compiled_grammars_are_kept_up_to_a_limit(compiler):
    first = compiler.compile(schema_grammar({"const": "first"}))
    for number in range(MAX_COMPILED - 1):
        compiler.compile(schema_grammar({"const": number}))
    assert compiler.compile(schema_grammar({"const": "first"})) is first
    for number in range(MAX_COMPILED):
        compiler.compile(schema_grammar({"const": number}))
    assert compiler.compile(schema_grammar({"const": "first"})) is not first


UNSATISFIABLE = [{"type": "integer", "minimum": 5, "maximum": 3}, HOSTILE["reference to itself"]]


@pytest.mark.parametrize("schema", UNSATISFIABLE)
def test_a_schema_that_no_value_matches_is_an_error(compiler, schema):
    with pytest.raises(ConstraintError, match="(?i)unsatisfiable|circular"):
        compiler.compile(schema_grammar(schema))


def test_a_tokenizer_that_is_not_supported_is_an_error_of_the_grammar():
    compiler = GrammarCompiler("{}", 10, [END])
    assert compiler.control_tokens(["<|tool_call|>"]) == {}
    with pytest.raises(ConstraintError, match="the model's tokenizer is not supported"):
        compiler.compile(schema_grammar(TEXT))


def test_a_client_cannot_change_how_its_schema_is_read(compiler):
    lenient = {"x-guidance": {"lenient": True}, "properties": {"a": {"contains": {}}}}
    with pytest.raises(ConstraintError, match="contains"):
        compiler.compile(schema_grammar(lenient))


# --- tool calls -------------------------------------------------------------------------------


def tool(name, schema):
    function = {"name": name, "parameters": schema}
    return {"type": "function", "function": function}


TOOLS = [tool("clock", None), tool("get-weather", inside({"enum": ["Rome", "Paris <tool_call>"]}))]
NEUTRAL = {"response_format": {"type": "text"}, "tools": TOOLS, "parallel_tool_calls": True}
MARKS = ("<|tool_call|>", "<|/tool_call|>")


@pytest.fixture(scope="module")
def marked_tokenizer(tokenizer):
    """A tokenizer in which Phi-4-mini's marks of calls are control tokens."""
    marked = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    marked.add_special_tokens(list(MARKS))
    return marked


@pytest.mark.parametrize("are_tokens", [False, True], ids=["text", "tokens"])
@pytest.mark.parametrize("tool_format", [PHI4_MINI, GENERIC])
@pytest.mark.parametrize("choice", ["auto", "required", "clock", "schema"])
def test_calls_are_read_from_every_answer(
    tokenizer, marked_tokenizer, tool_format, are_tokens, choice
):
    used = marked_tokenizer if are_tokens else tokenizer.backend_tokenizer
    compiler = GrammarCompiler(used.to_str(), used.get_vocab_size(), [END])
    request = {**NEUTRAL, "tool_choice": choice}
    if choice == "clock":
        request["tool_choice"] = {"type": "function", "function": {"name": "clock"}}
    if choice == "schema":
        json_schema = {
            "schema": {**inside({"const": "<tool_call>{"}), "additionalProperties": False}
        }
        request["response_format"] = {"type": "json_schema", "json_schema": json_schema}
        request["tool_choice"] = "auto"
    answer_format = read_answer_format(request)
    marks = compiler.control_tokens(CALL_MARKS[tool_format])
    assert bool(marks) == (are_tokens and tool_format == PHI4_MINI)
    constraint = compiler.compile(
        write_grammar(answer_format, tool_format, marks),
        {token: mark for mark, token in marks.items()},
    )
    for seed in range(12):
        tokens, is_complete = random_tokens(constraint, {END}, seed, limit=200)
        text = keep_marks(lambda ids: used.decode(ids), constraint.marks)(tokens)
        reader = ToolCallReader(tool_format, has_free_text=answer_format.schema is None)
        deltas = [*reader.add(text), *reader.flush()]
        names = {call.name for call in reader.calls}
        assert names <= ({"clock"} if choice == "clock" else {"clock", "get-weather"})
        if not is_complete:
            continue
        for call in reader.calls:
            schemas = {known.name: known.schema for known in answer_format.tools}
            jsonschema.validate(json.loads(call.arguments), schemas[call.name])
        if choice in ("required", "clock"):
            assert reader.calls and not reader.text
        if choice == "schema" and not reader.calls:
            assert json.loads(reader.text) == {"a": "<tool_call>{"}
        assert deltas or not text


def test_tokenizers_with_byte_tokens_and_word_starts():
    """As Phi-3's: pieces start with ▁, and characters without a piece are byte tokens."""
    pieces = [*(f"<0x{byte:02X}>" for byte in range(256)), *'▁{}"ab:,1[]']
    pieces += ["▁a", "▁{", '▁"', '{"', '":', "▁1", "</s>"]
    vocabulary = {piece: number for number, piece in enumerate(["<unk>", "<|end|>", *pieces])}
    model = models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    tokenizer = Tokenizer(model)
    parts = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    tokenizer.normalizer = normalizers.Sequence(parts)
    tokenizer.decoder = decoders.Sequence(
        [
            *(decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(["<unk>", "<|end|>"])
    tokenizer.add_tokens(["</s>"])
    compiler = GrammarCompiler(tokenizer.to_str(), tokenizer.get_vocab_size(), [1])
    values = {"enum": ["a b", "ü", "</s>", " a"]}
    schema = {"type": "array", "items": values, "minItems": 1, "maxItems": 3}
    constraint = compiler.compile(schema_grammar(schema))
    for seed in range(20):
        tokens, is_complete = random_tokens(constraint, {1}, seed, limit=100)
        assert is_complete
        jsonschema.validate(json.loads(tokenizer.decode(tokens)), schema)


def test_a_kept_grammar_does_not_wait_for_a_compilation(compiler):
    grammar = schema_grammar(inside(TEXT))
    constraint = compiler.compile(grammar)
    with ThreadPoolExecutor(1) as pool, compiler._lock:  # another thread compiles
        assert pool.submit(compiler.compile, grammar).result(timeout=10) is constraint
