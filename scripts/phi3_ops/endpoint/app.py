"""The endpoint as an ASGI application: routes, errors, injected faults and the request log.

This module needs fastapi; `server` imports it when the endpoint starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.routing import BaseRoute, Route

from .checks import check_key, check_traffic
from .container import Container
from .fault_table import TRANSPORT
from .front import Front, FrontError, RequestLog, refusal

if TYPE_CHECKING:
    from .fault_rules import Rule


class App(FastAPI):
    """FastAPI with the connection's transport in the scope, which faults use to break a connection."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        # uvicorn's `send` is a method of the object that has the connection.
        scope[TRANSPORT] = getattr(getattr(send, "__self__", None), "transport", None)
        await super().__call__(scope, receive, send)


def create_app(
    containers: Sequence[Container], *, key: str, faults: Sequence[Rule] | None = None
) -> FastAPI:
    """Return the application for containers that the caller starts and closes.

    Args:
        containers: the deployments.
        key: key that clients send as `Bearer`.
        faults: rules by which requests fail on purpose (see `fault_rules`). With None, the fault header
            has no effect either.

    Raises:
        EndpointError: the key is empty, or the weights sum to neither 0 nor 100.
    """
    check_key(key)
    check_traffic([container.deployment for container in containers])
    app = App(
        routes=_routes(Front(containers, key)),
        exception_handlers={FrontError: refusal},
        openapi_url=None,  # FastAPI's own document does not describe what the scoring script accepts
    )
    if faults is not None:
        from .faults import FaultMiddleware

        app.add_middleware(FaultMiddleware, rules=faults)
    app.add_middleware(RequestLog)
    return app


def _routes(front: Front) -> list[BaseRoute]:
    return [
        Route("/", front.health, methods=["GET"]),
        Route("/score", front.score, methods=["POST"]),
        Route("/v1/chat/completions", front.chat, methods=["POST"]),
        Route("/v1/models", front.models, methods=["GET"]),
        Route("/swagger.json", front.document, methods=["GET"]),  # the path on Azure
        Route("/openapi.json", front.document, methods=["GET"]),
    ]
