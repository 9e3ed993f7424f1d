from promptflow.core import log_metric, tool


@tool
def aggregate(scores: list[int], predictions: list[str]):
    accuracy = round(scores.count(1) / len(scores), 2)
    error = round(scores.count(-1) / len(scores), 2)
    log_metric(key="accuracy", value=accuracy)
    log_metric(key="error_rate", value=error, variant_id="v")
    return {"rates": {"accuracy": accuracy, "error": error}, "predictions": predictions}
