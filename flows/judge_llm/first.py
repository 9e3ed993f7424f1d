"""Read the first reply of the judge, and make the prompt of the second attempt."""

from phi3_tools.evaluation import SCORE, read_verdict
from phi3_tools.flow import tool


@tool
def read_first(prompt: str, reply: str = None) -> dict:
    # Without a reply, a field is missing and the judge was not asked.
    is_readable = reply is None or read_verdict(reply, SCORE).value is not None
    retry = f"{prompt}\n\n{SCORE.retry_request}"
    return {"reply": reply, "is_readable": is_readable, "retry": retry}
