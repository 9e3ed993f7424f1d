"""Says which schema of a request cannot be compiled, and which keyword is the cause."""

from __future__ import annotations

import re

from answer_formats import AnswerFormat
from constraints import ConstraintError, GrammarCompiler
from grammars import schema_grammar
from parameters import shorten

MAX_REASON = 200  # characters of llguidance's text
# The keyword that causes an error of llguidance, by a pattern of the error's text.
CAUSES = (
    (r"Unimplemented keys: \[\"([^\"]+)\"", "the keyword {0} is not supported"),
    (r"(?i)oneOf", "the keyword oneOf is supported only where its schemas exclude each other;"
     " use anyOf"),
    (r"look-around", "the keyword pattern has a look-around, which is not supported"),
    (r"regex for (?:float|integer) range|number out of range", "a limit of a number is too large"
     " for the keywords minimum, maximum, exclusiveMinimum and exclusiveMaximum"),
    (r"regex parse error|(?i:invalid regex|regex)", "a regular expression of the keyword pattern is"
     " not valid or not supported"),
    (r"Pointer '([^']*)'", "the keyword $ref has the target {0}, which does not exist"),
    (r"Resource '([^']*)'", "the keyword $ref has the target {0}, which is not in the schema"),
    (r"'([^']+)' has too many digits", "the keyword {0} has too many digits"),
    (r"(?i)multiple ?of", "the keyword multipleOf must be a number above 0"),
    (r"Invalid type: (\S+)", "the keyword type has the unknown type {0}"),
    (r"Unknown format: (\S+)", "the keyword format has the unknown value {0}"),
    (r"for '([^']+)', got", "the keyword {0} has a value of the wrong type"),
    (r"anyOf is empty", "the keyword enum or anyOf allows no value"),
    (r"(?i)unsatisfiable", "no value matches it"),
    (r"fuel", "it is too complex; a large multipleOf or a repeated pattern can be the cause"),
    (r"(?i)too (large|big|many|complex)|limit", "it is too large"),
)  # fmt: skip


def find_cause(
    answer_format: AnswerFormat, grammars: GrammarCompiler, error: str
) -> tuple[str, str]:
    """Return the field of a request that cannot be compiled, and the reason.

    Args:
        answer_format: the form of the request's answer.
        grammars: compiles the schemas one by one.
        error: llguidance's error about all of them together.
    """
    schemas = [(tool.field, tool.schema) for tool in answer_format.tools]
    if answer_format.schema is not None:
        schemas.insert(0, (answer_format.schema_field, answer_format.schema))
    for field, schema in schemas:
        try:
            grammars.compile(schema_grammar(schema))
        except ConstraintError as schema_error:
            return field, _explain(str(schema_error))
    return "tools" if answer_format.tools else "response_format", _explain(error)


def _explain(error: str) -> str:
    """Return a text of llguidance in other words, with the keyword if it is known."""
    for pattern, reason in CAUSES:
        if match := re.search(pattern, error):
            return reason.format(*(shorten(group or "") for group in match.groups()))
    lines = [line.strip() for line in error.splitlines() if line.strip(" ^")]
    return shorten("; ".join(lines), MAX_REASON)
