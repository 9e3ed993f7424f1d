"""Prompt flow's two middlewares, without Starlette's `BaseHTTPMiddleware`.

`BaseHTTPMiddleware` runs the app in a task of its own and passes every part of a body through a queue.
Prompt flow does this twice per request, which takes a quarter of the time of an answer. These middlewares
do the same as Prompt flow's (promptflow.core._serving.v2.middleware), in the task of the request.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any

from .expectations import SERVING_APP, is_supported

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]


def use_inline_middleware(app: Any) -> None:
    """Replace Prompt flow's middlewares by those of this module, if Prompt flow is supported.

    Args:
        app: Prompt flow's FastAPI app, before its first request.
    """
    if not is_supported(SERVING_APP):
        return
    from promptflow.core._serving.v2.middleware import middleware as stock
    from starlette.middleware import Middleware

    replacements = {
        stock.MonitorMiddleware: Middleware(
            InlineMonitor, monitor=app.flow_monitor, context=stock._request_ctx_var
        ),
        stock.ExceptionHandlingMiddleware: Middleware(
            InlineErrors, error_response=stock.error_to_response
        ),
    }
    app.user_middleware = [replacements.get(each.cls, each) for each in app.user_middleware]


class InlineMonitor:
    """Tells Prompt flow's monitor and flow about each request to `/score`.

    Args:
        app: the app that answers.
        monitor: Prompt flow's `FlowMonitor`.
        context: variable in which the app reads the data of the request.
    """

    def __init__(self, app: App, monitor: Any, context: ContextVar[Any]) -> None:
        self._app, self._monitor, self._context = app, monitor, context

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/score":
            await self._app(scope, receive, send)
            return

        async def monitored_send(message: Mapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self._monitor.finish_monitoring(message["status"])
            await send(message)

        # This is the request's own task, so the value ends with the request.
        self._context.set(_request_data(scope))
        self._monitor.start_monitoring()
        await self._app(scope, receive, monitored_send)


def _request_data(scope: Scope) -> dict[str, Any]:
    """Return what Prompt flow's `MonitorMiddleware` puts into the context."""
    from starlette.datastructures import Headers

    headers = Headers(scope=scope)
    request_id = headers.get("x-request-id")
    client_request_id = headers.get("x-ms-client-request-id", request_id)
    return {
        "start_time": time.time(),
        "req_id": request_id or client_request_id,
        "client_req_id": client_request_id,
        "streaming": any("text/event-stream" in value for value in headers.getlist("accept")),
    }


class InlineErrors:
    """Answers an exception of the app as Prompt flow does.

    Args:
        app: the app that answers.
        error_response: Prompt flow's function from exception and logger to body and status.
    """

    def __init__(self, app: App, error_response: Callable[..., tuple[Any, int]]) -> None:
        self._app, self._error_response = app, error_response

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        from starlette.responses import JSONResponse

        has_begun = False

        async def noting_send(message: Mapping[str, Any]) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, noting_send)
        except Exception as error:
            if has_begun:  # the status has been sent already
                raise
            body, status = self._error_response(error, scope["app"].logger)
            scope["app"].flow_monitor.handle_error(error, status)
            await JSONResponse(body, status)(scope, receive, send)
