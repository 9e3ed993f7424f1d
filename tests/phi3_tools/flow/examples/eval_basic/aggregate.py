from promptflow.core import tool


@tool
def aggregate(processed_results: list[str]):
    from promptflow.core import log_metric

    log_metric(key="results_num", value=len(processed_results))
    log_metric("accuracy", round(processed_results.count("Correct") / len(processed_results), 2))
    return processed_results
