from promptflow.core import ToolProvider, tool


class Greeter(ToolProvider):
    def __init__(self, greeting: str, times: int = 1):
        super().__init__()
        self.greeting = greeting * times

    @tool
    def ask(self, text: str, end: str = ".") -> str:
        return f"{self.greeting}, {text}{end}"
