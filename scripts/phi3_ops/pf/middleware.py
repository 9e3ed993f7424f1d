"""promptflow's two middlewares, without Starlette's BaseHTTPMiddleware under them.

That one runs what is behind it in a task of its own and hands every piece of a body over a queue, here
twice for each request: a quarter of what an answer costs. These do what promptflow 1.18's do
(promptflow.core._serving.v2.middleware) in the request's own task.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextvars import ContextVar
from importlib.metadata import version
from typing import Any

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]
KNOWN = "1.18."  # another promptflow-core keeps its own


def use_inline_middleware(app: Any) -> None:
    """Put these in the place of promptflow's.

    Args:
        app: promptflow's FastAPI app, before its first request.
    """
    if not version("promptflow-core").startswith(KNOWN):
        return
    from promptflow.core._serving.v2.middleware import middleware as stock
    from starlette.middleware import Middleware

    monitored = {"monitor": app.flow_monitor, "context": stock._request_ctx_var}
    ours = {
        "MonitorMiddleware": Middleware(Monitor, **monitored),
        "ExceptionHandlingMiddleware": Middleware(Errors, answer=stock.error_to_response),
    }
    app.user_middleware = [
        ours.get(each.cls.__name__, each) if each.cls.__module__ == stock.__name__ else each
        for each in app.user_middleware
    ]


class Monitor:
    """What promptflow's monitor and its flow learn of a request to `/score`.

    Args:
        app: what stands behind.
        monitor: promptflow's `FlowMonitor`.
        context: where the app behind looks for the request's data.
    """

    def __init__(self, app: App, monitor: Any, context: ContextVar[Any]) -> None:
        self._app, self._monitor, self._context = app, monitor, context

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/score":
            await self._app(scope, receive, send)
            return

        async def watched(message: Mapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self._monitor.finish_monitoring(message["status"])
            await send(message)

        self._context.set(_asked(scope))  # in the request's own task: it ends with that
        self._monitor.start_monitoring()
        await self._app(scope, receive, watched)


def _asked(scope: Scope) -> dict[str, Any]:
    from starlette.datastructures import Headers

    headers = Headers(scope=scope)
    request = headers.get("x-request-id")
    client = headers.get("x-ms-client-request-id", request)
    return {
        "start_time": time.time(),
        "req_id": request or client,
        "client_req_id": client,
        "streaming": any("text/event-stream" in each for each in headers.getlist("accept")),
    }


class Errors:
    """promptflow's answer to an exception of its app.

    Args:
        app: what stands behind.
        answer: promptflow's (exception, logger) -> the body and the status.
    """

    def __init__(self, app: App, answer: Callable[..., tuple[Any, int]]) -> None:
        self._app, self._answer = app, answer

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        from starlette.responses import JSONResponse

        begun = False

        async def noted(message: Mapping[str, Any]) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:
            if begun:  # too late for another status
                raise
            body, status = self._answer(error, scope["app"].logger)
            scope["app"].flow_monitor.handle_error(error, status)
            await JSONResponse(body, status)(scope, receive, send)
