"""Ask an agent one or several questions in one conversation, and print its answers as they arrive.

PHI3_ENDPOINT=… PHI3_KEY=… python agent.py "Who founded Microsoft?" "And when?"
"""

from __future__ import annotations

import asyncio
import sys

from phi3_tools.agent_framework import Phi3ChatClient


async def main(questions: list[str]) -> None:
    agent = Phi3ChatClient(context_window=4096).as_agent(
        name="phi3",
        instructions="Answer in one sentence.",
        default_options={"max_tokens": 128, "temperature": 0},
    )
    session = agent.create_session()  # it keeps the conversation
    for question in questions:
        print(f"> {question}")
        async for update in agent.run(question, session=session, stream=True):
            print(update.text, end="", flush=True)
        print()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["Who founded Microsoft?"]))
