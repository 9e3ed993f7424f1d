from promptflow.core import tool


@tool
def match(answer: list[str], ground_truth: list[str]):
    wanted = {word.lower() for word in ground_truth}
    return {"exact": sum(word.lower() in wanted for word in answer), "total": len(answer)}
