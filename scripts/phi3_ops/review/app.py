"""The page of a review as an ASGI app. Its address contains a random token."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from phi3_tools.evaluation import RUBRICS
from phi3_tools.serving import RefusedRequest, read_body, require_well_formed

from ..chat import Guard
from ..errors import OpsError
from ..pf import App, Scope
from .session import RefusedJudgementError, ReviewSession

PAGE = Path(__file__).resolve().parent / "page"
STATIC_FILES = {
    "": ("index.html", "text/html"),
    "page.js": ("page.js", "text/javascript"),
    "page.css": ("page.css", "text/css"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
NO_STORE = {"cache-control": "no-store"}


def make_review_app(
    session: ReviewSession, token: str, summary: Callable[[], dict[str, Any]]
) -> App:
    """Return the app of a review. Every path of it begins with the token.

    Args:
        session: the review.
        token: secret part of the page's address. It keeps out other users of this machine.
        summary: returns the summary that the page shows at the end.
    """
    from starlette.applications import Starlette
    from starlette.requests import Request as HttpRequest
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def overview(request: HttpRequest) -> JSONResponse:
        rubric = asdict(RUBRICS[session.settings.rubric])
        return JSONResponse({**session.overview(), "rubric": rubric}, headers=NO_STORE)

    def line(request: HttpRequest) -> JSONResponse:
        with_scores = request.query_params.get("scores") == "1"
        content = session.line(request.path_params["position"], with_scores=with_scores)
        return JSONResponse(content, headers=NO_STORE)

    async def judge(request: HttpRequest) -> JSONResponse:
        from starlette.concurrency import run_in_threadpool

        content = _parse(await read_body(request.scope, request.receive))
        position = request.path_params["position"]
        await run_in_threadpool(session.judge, position, content)
        answer = {**session.line(position), "progress": session.overview()}
        return JSONResponse(answer, headers=NO_STORE)

    def end(request: HttpRequest) -> JSONResponse:
        session.end()
        return JSONResponse(summary(), headers=NO_STORE)

    routes = [
        Route("/overview", overview),
        Route("/lines/{position:int}", line),
        Route("/lines/{position:int}", judge, methods=["POST"]),
        Route("/end", end, methods=["POST"]),
        *(Route(f"/{path}", _static_file(*file)) for path, file in STATIC_FILES.items()),
    ]
    handlers = {
        RefusedJudgementError: _answer_with(400),
        RefusedRequest: _refuse,
        OpsError: _answer_with(500),
    }
    app = Starlette(routes=routes, exception_handlers=handlers)
    return Guard(_TokenPath(app, token), None)


def new_token() -> str:
    """Return a random token for the address of a page."""
    return secrets.token_urlsafe(24)


class _TokenPath:
    """ASGI middleware that passes on only the requests whose path begins with the token."""

    def __init__(self, app: App, token: str) -> None:
        self._app, self._prefix = app, f"/{token}/"

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            start = path[: len(self._prefix)].encode("utf-8", "surrogatepass")
            if not secrets.compare_digest(start, self._prefix.encode()):
                refused = RefusedRequest(404, "open the address that `phi3 review` printed")
                await refused.send(send)
                return
            rest = path[len(self._prefix) - 1 :]
            scope = {**scope, "path": rest, "raw_path": rest.encode("utf-8", "surrogatepass")}
            require_well_formed(scope)
        await self._app(scope, receive, send)


def _parse(body: bytes | None) -> dict[str, Any]:
    try:
        content = json.loads(body or b"")
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise RefusedJudgementError("the body is not a JSON object")
    return content


def _static_file(name: str, media_type: str) -> Any:
    """Return an endpoint that answers with a file of the page, which is read once."""
    content = (PAGE / name).read_bytes()

    async def answer(request: Any) -> Any:
        from starlette.responses import Response

        return Response(content, media_type=media_type, headers={"cache-control": "no-cache"})

    return answer


def _answer_with(status: int) -> Any:
    async def answer(request: Any, error: Exception) -> Any:
        from starlette.responses import JSONResponse

        return JSONResponse({"error": {"message": str(error)}}, status, NO_STORE)

    return answer


async def _refuse(request: Any, refused: Any) -> Any:
    from starlette.responses import JSONResponse

    return JSONResponse(refused.content, refused.status, refused.headers)
