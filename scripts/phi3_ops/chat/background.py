"""A chat page that is served in the background."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..endpoint import RunningEndpoint, start_background


def start_page(
    connections: Sequence[str],
    workdir: Path,
    name: str,
    *,
    port: int = 0,
    questions: Path | None = None,
) -> RunningEndpoint:
    """Start `phi3 serve` in the background and wait until its page can be opened.

    It is registered like an endpoint, so `phi3 endpoint --stop` stops it.

    Args:
        connections: one connection, or two whose answers are displayed side by side.
        workdir: folder for its log and its registration.
        name: its name in the workdir; a running page or endpoint of that name is stopped first.
        port: port to listen on; 0 picks a free one.
        questions: JSONL file with `question`, whose first questions the page suggests.

    Returns:
        The page's process; its `url` is the address of the page.

    Raises:
        OpsError: the page did not start, or its files would replace files of others.
    """
    words = ["serve", "--connection", connections[0], "--port", str(port)]
    for other in connections[1:]:
        words += ["--against", other]
    words += ["--questions", str(questions)] if questions else []
    return start_background(words, workdir, name)
