from promptflow.core import tool


@tool
def shout(prompt: str, deployment_name: str, max_tokens: int = 10, **kwargs) -> str:
    return f"{prompt.upper()} {max_tokens + 1} {deployment_name}"
