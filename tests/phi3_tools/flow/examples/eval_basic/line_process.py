from promptflow.core import tool


@tool
def line_process(groundtruth: str, prediction: str):
    """Compare two texts without regard to case."""
    return "Correct" if groundtruth.lower() == prediction.lower() else "Incorrect"
