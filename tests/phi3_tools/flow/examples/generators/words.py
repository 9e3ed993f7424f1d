from promptflow.core import tool


@tool
def words(text: str, count: int):
    for number, word in enumerate(text.split()[:count]):
        if word == "off":
            raise ValueError("the words broke off")
        yield f"{number}:{word} "
