"""Score one line."""

import json

from phi3_tools.evaluation import structured_scores, tool_call_match
from phi3_tools.flow import tool

SCORES = ("valid_json", "schema_match", "field_exact", "field_f1", "tool_call_match")


@tool
def score(
    answer: object, ground_truth: object, schema: object, tool_calls: object, expected_calls: object
) -> dict:
    # A line has an object or calls as its reference; the scores of the other kind are missing.
    if expected_calls is None or expected_calls == "":
        scores = structured_scores(text_of(answer), text_of(ground_truth), schema)
    else:
        scores = {"tool_call_match": tool_call_match(tool_calls, expected_calls)}
    return {name: scores.get(name) for name in SCORES}


def text_of(value: object) -> object:
    """Return the text that Prompt flow has parsed because the input's type is `object`.

    A text that it could not parse stays as it is; a JSON string without its quotes looks the same, and
    counts as text that is not JSON.
    """
    try:
        if isinstance(value, str):
            json.loads(value)  # else it was not JSON
        return json.dumps(value)
    except (ValueError, RecursionError):
        return value
