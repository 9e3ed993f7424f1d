from promptflow.core import tool


def to_number(text: str):
    numerator, slash, denominator = text.partition("/")
    try:
        return float(numerator) / float(denominator) if slash else float(numerator)
    except ValueError:
        return None


@tool
def line_process(groundtruth: str, prediction: str) -> int:
    predicted, expected = to_number(prediction), to_number(groundtruth)
    if predicted is None or expected is None:
        return -1
    return 1 if round(predicted, 10) == round(expected, 10) else 0


if __name__ == "__main__":
    print(line_process("3/5", "6/10"))
