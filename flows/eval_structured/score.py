"""Score one line."""

from phi3_tools.evaluation import structured_scores, tool_call_match
from phi3_tools.flow import tool

SCORES = ("valid_json", "schema_match", "field_exact", "field_f1", "tool_call_match")


@tool
def score(
    answer: object, ground_truth: object, schema: object, tool_calls: object, expected_calls: object
) -> dict:
    # A line has an object or calls as its reference; the scores of the other kind are missing.
    if expected_calls is None or expected_calls == "":
        scores = structured_scores(answer, ground_truth, schema)
    else:
        scores = {"tool_call_match": tool_call_match(tool_calls, expected_calls)}
    return {name: scores.get(name) for name in SCORES}
