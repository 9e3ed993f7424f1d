"""llguidance's errors in other words; tests/serving/test_structured.py tests them through score.py."""

import pytest
from answer_formats import AnswerFormat, Tool
from constraints import GrammarCompiler
from schema_errors import find_cause

FINE, WRONG = {"type": "string"}, {"type": "strin"}


@pytest.fixture(scope="module")
def compiler(tokenizer):
    return GrammarCompiler(tokenizer.backend_tokenizer.to_str(), len(tokenizer), [0])


@pytest.mark.parametrize(
    ("schemas", "field"),
    [
        ((WRONG, FINE, FINE), "answer"),
        ((FINE, WRONG, WRONG), "tools[0]"),
        ((FINE, FINE, WRONG), "tools[1]"),
    ],
)
def test_the_first_wrong_schema_is_named(compiler, schemas, field):
    tools = tuple(Tool("f", schema, {}, f"tools[{n}]") for n, schema in enumerate(schemas[1:]))
    answer_format = AnswerFormat(schemas[0], "answer", tools)
    reason = "the keyword type has the unknown type strin"
    assert find_cause(answer_format, compiler, "all of them") == (field, reason)


@pytest.mark.parametrize(
    ("schema", "part"),
    [
        ({"type": "number", "minimum": -1e308, "maximum": 1e308}, "keywords minimum, maximum"),
        ({"type": "integer", "minimum": 10**300}, "keywords minimum, maximum"),
        ({"type": "number", "multipleOf": 1e-300}, "the keyword multipleOf has too many digits"),
        ({"type": "number", "multipleOf": 0}, "multipleOf must be a number above 0"),
        ({"type": "integer", "multipleOf": 1_000_000_007}, "a large multipleOf"),
        ({"type": "string", "pattern": "("}, "the keyword pattern"),
    ],
)
def test_the_keyword_that_is_the_cause_is_named(compiler, schema, part):
    field, reason = find_cause(AnswerFormat(schema, "answer"), compiler, "an error")
    assert field == "answer" and part in reason


def test_schemas_that_are_too_large_together_are_named_together(compiler):
    answer_format = AnswerFormat(tools=(Tool("f", FINE, {}, "tools[0]"),))
    assert find_cause(answer_format, compiler, "grammar too big") == ("tools", "it is too large")


def test_an_unknown_error_is_quoted_in_one_line(compiler):
    answer_format = AnswerFormat(FINE, "answer")
    error = f"something\n   ^^^\nelse {'x' * 900}"
    field, reason = find_cause(answer_format, compiler, error)
    assert field == "response_format"
    assert reason.startswith("something; else x") and len(reason) < 250
