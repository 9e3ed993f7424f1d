"""Read the score from the judge's replies, as flows/judge does."""

from phi3_tools.evaluation import RUBRICS, read_replies, select_rubric
from phi3_tools.flow import tool


@tool
def read_score(
    question: str,
    answer: str,
    ground_truth: str,
    context: str,
    rubric: str,
    first: str = None,
    second: str = None,
) -> dict:
    criterion = select_rubric(rubric)
    texts = {"question": question, "answer": answer}
    texts |= {"ground_truth": ground_truth, "context": context}
    fields = {name: "" if text is None else str(text) for name, text in texts.items()}
    replies = [text for text in (first, second) if text is not None]
    verdict = read_replies(criterion, fields, replies)
    scores = {name: verdict["score"] if name == criterion.name else None for name in RUBRICS}
    return {"scores": scores, "verdicts": {criterion.name: verdict}}
