"""The root page of a served flow that is not a chat: what the flow takes, and how to ask it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from ..flows import FlowDefinition

CHAT_INPUTS = frozenset({"question", "chat_history"})  # what the chat page sends
_EXAMPLES = {"int": 1, "double": 0.5, "bool": True, "list": [], "object": {}}


def is_chat_flow(flow: FlowDefinition) -> bool:
    """Return whether the chat page can ask a flow: it sends `question` and `chat_history`."""
    needed = {name for name, item in flow.inputs.items() if item.get("default") is None}
    return "question" in flow.inputs and needed <= CHAT_INPUTS


def flow_page(
    flow: FlowDefinition, host: str, store_file: Path | None, *, has_password: bool
) -> str:
    """Return the page as HTML.

    Args:
        flow: the flow.
        host: the Host header of the request.
        store_file: path of the store of feedback, or None if feedback is not stored.
        has_password: whether a request needs a password.
    """
    name, version = flow.folder.resolve().name, flow.version or ""
    rows = "\n".join(_row(each, item) for each, item in flow.inputs.items())
    outputs = ", ".join(f"<code>{escape(each)}</code>" for each in flow.outputs)
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{escape(name)}</title></head>
<body>
<h1>The flow {escape(name)} {escape(str(version))}</h1>
<p>It answers at <code>/score</code>. It is not a chat, so it has no chat page.</p>
<table>
<tr><th>input</th><th>type</th><th>default</th><th>description</th></tr>
{rows}
</table>
<p>Outputs: {outputs}</p>
<pre>{escape(curl_command(flow, host, has_password=has_password))}</pre>
<p><a href="swagger.json">swagger.json</a> describes requests and answers.</p>
{_feedback_notice(store_file)}</body>
</html>
"""


def _feedback_notice(store_file: Path | None) -> str:
    if store_file is None:
        return ""
    file = escape(str(store_file))
    return f"""<p>Feedback that is sent to <code>/feedback</code> is stored in <code>{file}</code>.</p>
"""


def curl_command(flow: FlowDefinition, host: str, *, has_password: bool) -> str:
    """Return a command that asks the flow, with the defaults of its inputs."""
    values = {
        name: _EXAMPLES.get(str(item.get("type")), "text")
        if item.get("default") is None
        else item["default"]
        for name, item in flow.inputs.items()
    }
    password = ' -u ":$PHI3_SERVE_TOKEN"' if has_password else ""
    body = shlex.quote(json.dumps(values, ensure_ascii=False, default=str))
    url = shlex.quote(f"http://{host}/score")
    return f"curl{password} -H 'content-type: application/json' -d {body} {url}"


def _row(name: str, item: Mapping[str, Any]) -> str:
    default = item.get("default")
    texts = [
        name,
        str(item.get("type")),
        "" if default is None else json.dumps(default, default=str),
    ]
    cells = [*texts, str(item.get("description") or "")]
    return f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in cells)}</tr>"
