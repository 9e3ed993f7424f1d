"""Make the prompt of the judge: that of flows/judge, in the form of promptflow-tools."""

import re

from phi3_tools.evaluation import RUBRICS, grading_prompt, missing_fields, select_rubric
from phi3_tools.flow import tool

# promptflow-tools begins a message at such a line, also inside a text that is judged.
ROLE_LINE = re.compile(
    r"^(\s*#?\s*)(?=(?:system|user|assistant|function|tool)\s*:\s*(?:\n|\Z))", re.I | re.M
)
# promptflow-tools takes the text between these words as the name of the message, and drops the text
# before them.
NAME = re.compile(r"(name\s*):(?=\s*\n+\s*\S+\s*\n*#{0,2}\s*content\s*:)")


@tool
def make_prompt(question: str, answer: str, ground_truth: str, context: str, rubric: str) -> dict:
    criterion = select_rubric(rubric)
    texts = {"question": question, "answer": answer}
    texts |= {"ground_truth": ground_truth, "context": context}
    fields = {name: "" if text is None else str(text) for name, text in texts.items()}
    if missing_fields(RUBRICS[criterion.name], fields):
        return {"text": "", "is_complete": False}
    text = str(grading_prompt(criterion, fields)[0]["content"])
    return {"text": NAME.sub(r"\1;", ROLE_LINE.sub(r"\1> ", text)), "is_complete": True}
