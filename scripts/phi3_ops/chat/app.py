"""A flow as an ASGI app: its serving app, with a page in front of it: a chat, or a description.

`/score`, `/health`, `/version` and `/swagger.json` are as under `pf flow serve`. The routes of the page
are added, and a second connection can be mounted for comparison. With `FeedbackOptions`, `/feedback`
stores what it gets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from phi3_tools import __version__
from phi3_tools.flow import Engine, FlowError, ScoreApp, load_flow, override_inputs
from phi3_tools.serving import CheckedRequests, RefusedRequest, read_body

from ..errors import OpsError, first_line
from ..flows import FlowDefinition, copy_flow, read_dag_file, write_dag_file
from ..pf import (
    PHI3,
    PROMPTFLOW,
    App,
    create_flow_app,
    require_connection,
    shared_tool_threads,
    wrap_line_execution,
)
from .feedback import FeedbackOptions, FeedbackReceiver
from .feedback_schema import FeedbackDescribed
from .flow_page import flow_page, is_chat_flow
from .guard import Guard, credentials
from .page_info import SAMPLES_FILE, connection_caption, suggested_questions
from .streams import FlowApp, with_detached_streams

PAGE = Path(__file__).resolve().parent / "page"
# A stream occupies a thread until it is complete; asyncio's own pool has cores + 4 threads.
THREADS = 64
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
READ = ("GET", "HEAD")
STATIC_FILES = {
    "/": ("index.html", "text/html"),
    "/static/page.js": ("page.js", "text/javascript"),
    "/static/asking.js": ("asking.js", "text/javascript"),
    "/static/feedback.js": ("feedback.js", "text/javascript"),
    "/static/page.css": ("page.css", "text/css"),
    "/static/feedback.css": ("feedback.css", "text/css"),
    "/static/icon.svg": ("icon.svg", "image/svg+xml"),
}
# Characters of one answer that are rendered. Some texts take 20 ms for a thousand characters.
MAX_MARKDOWN = 48 * 1024


@dataclass(frozen=True)
class Side:
    """A connection that the page can use.

    Attributes:
        connection: name of the connection; the name of a flow that uses none.
        path: path at which its app is mounted.
        caption: a word about its model, or nothing.
    """

    connection: str
    path: str
    caption: str = ""


def make_chat_app(
    flow: FlowDefinition,
    connections: Sequence[str],
    folder: Path,
    *,
    token: str | None,
    engine: str = PHI3,
    questions: Path | None = None,
    feedback: FeedbackOptions | None = None,
) -> App:
    """Return the app: the page at `/`, and below it the flow's app for the first connection.

    The page is a chat if the flow needs no other inputs than `question` and `chat_history`. Otherwise it
    describes the flow.

    Args:
        flow: the flow to serve.
        connections: names; the answers of a second connection are displayed next to the first ones. No
            names, if no node of the flow uses a connection.
        folder: gets one copy of the flow per connection for promptflow, in which the nodes use this
            connection.
        token: password that every request must contain, or None.
        engine: `PHI3`, or `PROMPTFLOW` for promptflow's own serving app.
        questions: JSONL file with `question`, whose first questions the page suggests; None takes the
            flow's `samples.jsonl`.
        feedback: where feedback is stored; None stores none.

    Raises:
        OpsError: a connection does not exist, the engine refuses the flow, or the store of feedback
            cannot be written.
    """
    from starlette.applications import Starlette
    from starlette.routing import BaseRoute, Mount

    for name in connections:
        flow.connections(name)
        require_connection(name)
    sides = _sides(flow, connections)
    store_file = feedback.file if feedback else None
    if is_chat_flow(flow):
        page_routes = _page_routes(flow, sides, questions, feedback)
        routes: list[BaseRoute] = [*page_routes, *_static_routes()]
    else:
        routes = [_description_route(flow, store_file, has_password=token is not None)]
    if feedback:
        receiver = FeedbackReceiver(feedback, flow, connections)
        routes += [_feedback_route(receiver, n, side) for n, side in enumerate(sides)]
    # The first side is mounted at the root. It comes last, because it matches every path.
    for number, side in reversed(list(enumerate(sides))):
        connection = side.connection if connections else None
        if engine == PROMPTFLOW:
            flow_app = make_flow_app(flow, connection, folder / str(number))
        else:
            flow_app = make_score_app(flow, connection)
        if feedback:
            flow_app = FeedbackDescribed(flow_app)
        routes.append(Mount(side.path.rstrip("/"), _checked(flow_app, flow)))
    handlers = {RefusedRequest: _refusal}
    app = Starlette(routes=routes, lifespan=_lifespan(engine), exception_handlers=handlers)
    return Guard(app, token)


def _lifespan(engine: str) -> Any:
    @asynccontextmanager
    async def lifespan(app: Any) -> Any:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
        with shared_tool_threads(THREADS) if engine == PROMPTFLOW else nullcontext():
            yield

    return lifespan


def _sides(flow: FlowDefinition, connections: Sequence[str]) -> list[Side]:
    return [
        Side(name, f"/side{n}/" if n else "/", connection_caption(name))
        for n, name in enumerate(connections)
    ] or [Side(flow.folder.resolve().name, "/")]


def _checked(flow_app: App, flow: FlowDefinition) -> App:
    """Return a flow's app that gets only requests that it can answer."""
    input_types = {name: str(each.get("type")) for name, each in flow.inputs.items()}
    return FlowApp(CheckedRequests(flow_app, input_types))


def make_score_app(flow: FlowDefinition, connection: str | None) -> App:
    """Return this project's app for a flow in which every node uses this connection, if it is not None.

    Raises:
        OpsError: the engine refuses the flow.
    """
    try:
        overrides = {} if connection is None else flow.connections(connection)
        overridden = override_inputs(load_flow(flow.folder), overrides)
        return ScoreApp(Engine(overridden, require_connection), __version__)
    except FlowError as error:
        raise OpsError(f"{flow.folder} cannot be served: {error}") from error


def make_flow_app(flow: FlowDefinition, connection: str | None, folder: Path) -> App:
    """Return promptflow's app for a copy of the flow; its nodes use this connection, if it is not None.

    Raises:
        OpsError: promptflow refuses the flow.
    """
    copy_flow(flow.folder, folder, follow_links=True)
    dag = folder / "flow.dag.yaml"
    content = read_dag_file(dag)
    for node in content["nodes"] if connection is not None else ():
        if "connection" in (node.get("inputs") or {}):
            node["inputs"]["connection"] = connection
        elif node.get("type") == "llm":
            node["connection"] = connection
    write_dag_file(dag, content)
    try:
        app = create_flow_app(folder)
    except Exception as error:  # whatever promptflow, or the flow's own code, raises
        what = f"{flow.folder} cannot be served: {first_line(error)}"
        raise OpsError(what, f"See `pf flow validate --source {flow.folder}`.") from error
    wrap_line_execution(app, with_detached_streams)
    return app  # type: ignore[no-any-return]


def _page_routes(
    flow: FlowDefinition,
    sides: Sequence[Side],
    questions: Path | None,
    feedback: FeedbackOptions | None,
) -> list[Any]:
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request as HttpRequest
    from starlette.responses import JSONResponse, Response

    markdown = _markdown()
    suggestions = suggested_questions(questions or flow.folder / SAMPLES_FILE)

    async def page_json(request: HttpRequest) -> JSONResponse:
        name = flow.folder.resolve().name
        content = {
            "flow": name,
            "version": flow.version,
            "questions": suggestions,
            "sides": [asdict(side) for side in sides],
            "feedback": str(feedback.file) if feedback else None,
            "start": feedback.start if feedback else None,
        }
        return JSONResponse(content)

    async def render_markdown(request: HttpRequest) -> Response:
        body = await read_body(request.scope, request.receive)
        text = (body or b"").decode("utf-8", "replace")
        if len(text) > MAX_MARKDOWN:
            return JSONResponse({"html": None})  # the page shows the text as it is
        return JSONResponse({"html": await run_in_threadpool(markdown.render, text)})

    return [
        _route("/page.json", page_json, *READ),
        _route("/markdown", render_markdown, "POST"),
    ]


def _feedback_route(receiver: FeedbackReceiver, number: int, side: Side) -> Any:
    """Return the route that stores feedback on the answers of one side."""
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request as HttpRequest
    from starlette.responses import JSONResponse, Response

    async def feedback(request: HttpRequest) -> Response:
        body = await read_body(request.scope, request.receive)
        user, _ = credentials(request.headers.get("authorization", ""))
        content = body or b""
        start = request.headers.get("x-phi3-start")
        answer = await run_in_threadpool(receiver.receive, content, user or None, number, start)
        return JSONResponse(answer)

    return _route(f"{side.path}feedback", feedback, "POST")


def _description_route(flow: FlowDefinition, store_file: Path | None, *, has_password: bool) -> Any:
    from starlette.requests import Request as HttpRequest
    from starlette.responses import HTMLResponse

    async def describe(request: HttpRequest) -> HTMLResponse:
        host = request.headers.get("host", "localhost")
        return HTMLResponse(flow_page(flow, host, store_file, has_password=has_password))

    return _route("/", describe, *READ)


def _static_routes() -> list[Any]:
    """Return a route for each file of the page.

    Starlette's StaticFiles opens whatever path a request names (CVE-2026-48818). Here, no request opens
    a file.
    """
    return [
        _route(path, _static_file((PAGE / name).read_bytes(), media_type), *READ)
        for path, (name, media_type) in STATIC_FILES.items()
    ]


def _static_file(content: bytes, media_type: str) -> Any:
    from starlette.requests import Request as HttpRequest
    from starlette.responses import Response

    async def answer(request: HttpRequest) -> Response:
        headers = {"cache-control": "no-cache"}
        return Response(content, media_type=media_type, headers=headers)

    return answer


def _route(path: str, endpoint: Any, *methods: str) -> Any:
    """Return a route that answers any other method with 405, instead of leaving it to promptflow."""
    from starlette.requests import Request as HttpRequest
    from starlette.routing import Route

    async def checked(request: HttpRequest) -> Any:
        if request.method not in methods:
            allowed = ", ".join(methods)
            raise RefusedRequest(405, f"{path} accepts only {allowed}", {"allow": allowed})
        return await endpoint(request)

    return Route(path, checked, methods=METHODS)


async def _refusal(request: Any, refused: Any) -> Any:
    from starlette.responses import JSONResponse

    return JSONResponse(refused.content, refused.status, refused.headers)


def _markdown() -> Any:
    """Return a renderer of CommonMark and tables, without HTML and images.

    markdown-it-py escapes HTML if `html` is off, and refuses javascript:, vbscript: and data: links.
    """
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
