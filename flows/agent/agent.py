"""Answer a question with the functions of functions.py. Each call of a function is traced."""

from functions import calculate, days_between, find_order

from phi3_tools import from_chat_history
from phi3_tools.agents import run_agent
from phi3_tools.flow import CustomConnection, tool

SYSTEM_PROMPT = "You answer questions about orders. Use the tools for facts, dates and numbers."


@tool
def agent(connection: CustomConnection, question: str, chat_history: list, max_steps: int) -> dict:
    messages = [
        {"role": "system", "content": SYSTEM_PROMPT},
        *from_chat_history(chat_history),
        {"role": "user", "content": question},
    ]
    functions = [find_order, days_between, calculate]
    answer = run_agent(connection, messages, functions, max_steps=max_steps)
    return answer.as_dict()
