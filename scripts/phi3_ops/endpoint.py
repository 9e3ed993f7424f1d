"""The local endpoint: Azure ML's documented front end before the deployment's own scoring code.

Sources: "Troubleshoot online endpoints deployment and scoring" (statuses, request ids, how a
container's errors are wrapped) and "OpenAI API reference: chat completions" (/v1). It reads the
contract by itself and shares nothing with the client, so that a mistake in one of them shows.
"""

from __future__ import annotations

import functools
import hmac
import importlib.util
import ipaddress
import logging
import re
import socket
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response

    from phi3_ops.faults import Rule

log = logging.getLogger("phi3.endpoint")

INSTALL = "pip install 'phi3-promptflow[serve]'"
DEPLOYMENTS = ("local", "blue")
MAX_BODY = 10 * 2**20  # bytes
MAX_THREADS = 256  # requests that wait for the model at once
KEEP_ALIVE_S = 75  # longer than a client's pool keeps an idle connection
GRACE_S = 30  # what is in flight when the process is told to stop
CLIENT_ID = "x-ms-client-request-id"
# Azure takes letters, digits, dashes and underscores, and cuts at 40 characters.
NOT_IN_CLIENT_ID = re.compile(r"[^A-Za-z0-9_-]")
EVERY_ADDRESS = ("", "0.0.0.0", "::")  # noqa: S104 - named, not bound
NOT_IN_LOG = re.compile(r"[^\x21-\x7e]")
# The reasons that the front end gives for a container's status; for the rest it is model_error.
REASONS = {429: "too_many_pending_request"}


class EndpointError(Exception):
    """The endpoint cannot be started; the message says why, in one line."""


class FrontError(Exception):
    """A request that the front end refuses before the scoring code sees it."""

    def __init__(self, status: int, code: str, message: str):
        super().__init__(message)
        self.status = status
        kind = "invalid_request_error"
        self.body = {"error": {"message": message, "type": kind, "param": None, "code": code}}


def create_app(
    model_dir: Path,
    *,
    key: str,
    model_name: str | None = None,
    faults: Sequence[Rule] | None = None,
) -> FastAPI:
    """The endpoint as an ASGI application, with the model loaded.

    model_dir: a Hugging Face or MLflow model folder. key: what clients send as `Bearer`.
    model_name: how answers call the model, by default the folder's name. faults: rules by which
    requests fail on purpose (see `phi3_ops.faults`); None switches the fault header off too.
    Raises EndpointError: an empty key, no model in the folder, or one that cannot be loaded.
    """
    _check_key(key)
    try:
        from fastapi import FastAPI
        from starlette.routing import Route
    except ImportError as error:
        raise EndpointError(f"fastapi is missing: {INSTALL}") from error

    scoring, scorer = _load(model_dir, model_name)
    front = _Front(scoring, scorer, key)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        scorer.close()

    class App(FastAPI):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            # uvicorn's own send is a method of what holds the connection; faults break it.
            scope["phi3.transport"] = getattr(getattr(send, "__self__", None), "transport", None)
            await super().__call__(scope, receive, send)

    app = App(
        routes=[
            Route("/", front.health, methods=["GET"]),
            Route("/score", front.score, methods=["POST"]),
            Route("/v1/chat/completions", front.chat, methods=["POST"]),
            Route("/v1/models", front.models, methods=["GET"]),
        ],
        exception_handlers={FrontError: _refused},
        lifespan=lifespan,
        openapi_url=None,
    )
    if faults is not None:
        from phi3_ops.faults import FaultMiddleware

        app.add_middleware(FaultMiddleware, rules=faults)
    app.add_middleware(_RequestLog)
    return app


def serve(
    model_dir: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8710,
    key: str,
    model_name: str | None = None,
    faults: Sequence[Rule] | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve the model until SIGTERM or SIGINT, finish what is in flight, and return.

    port 0 picks a free one. ready: called once, in a thread of its own, with the endpoint's base
    URL (`http://127.0.0.1:8710`) as soon as it answers; what it raises ends the endpoint and is
    raised here. The rest as in `create_app`.
    Raises EndpointError, also when the port is in use or the address is not this machine's.
    """
    _check_key(key, host)
    sock = _bind(host, port)
    try:
        app = create_app(model_dir, key=key, model_name=model_name, faults=faults)
        _run(app, sock, _url(host, sock), ready)
    finally:
        sock.close()


def _run(app: FastAPI, sock: socket.socket, url: str, ready: Callable[[str], None] | None) -> None:
    import asyncio

    import uvicorn

    failures: list[BaseException] = []

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            if ready is not None:
                # In a thread: it may well send the endpoint a first request.
                self.ready = asyncio.create_task(asyncio.to_thread(ready, url))
                self.ready.add_done_callback(self.after_ready)

        def after_ready(self, task: asyncio.Task[None]) -> None:
            error = None if task.cancelled() else task.exception()
            if error is not None:
                failures.append(error)
                self.should_exit = True

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            with super().capture_signals():
                try:
                    yield
                finally:
                    # uvicorn would raise them again, which kills a process that stopped cleanly.
                    self._captured_signals.clear()

    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )
    Server(config).run(sockets=[sock])
    if failures:
        raise failures[0]


class _Front:
    """The routes. A handler takes a Starlette request and returns a response."""

    def __init__(self, scoring: ModuleType, scorer: Any, key: str):
        import anyio

        self._scoring = scoring
        self._scorer = scorer
        self._expected = f"Bearer {key}".encode()
        self._started = int(time.time())
        self._limiter = anyio.CapacityLimiter(MAX_THREADS)

    async def health(self, request: Request) -> Response:
        from starlette.responses import PlainTextResponse

        return PlainTextResponse("Healthy")

    async def models(self, request: Request) -> Response:
        self._authorize(request)
        model = {"id": self._scorer.name, "object": "model", "created": self._started}
        return _json({"object": "list", "data": [{**model, "owned_by": "local"}]})

    async def score(self, request: Request) -> Response:
        return await self._answer(request, _wrapped)

    async def chat(self, request: Request) -> Response:
        return await self._answer(request, _plain)

    def _authorize(self, request: Request) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        given = f"{scheme.capitalize()} {token.strip()}".encode("latin-1")
        if not hmac.compare_digest(given, self._expected):
            raise FrontError(401, "Unauthorized", "The key or token is missing, wrong or expired.")
        deployment = request.headers.get("azureml-model-deployment", DEPLOYMENTS[0])
        if deployment not in DEPLOYMENTS:
            raise FrontError(404, "NotFound", "The endpoint has no deployment of this name.")

    async def _answer(self, request: Request, on_error: Callable[..., Response]) -> Response:
        from starlette.responses import StreamingResponse

        self._authorize(request)
        body = await _read(request)
        try:
            payload = self._scoring.parse(body)
            if self._scorer.wants_stream(payload):
                events = self._scoring.sse(self._scorer.stream(payload))
                return StreamingResponse(
                    self._in_threads(events),
                    media_type="text/event-stream",
                    headers={"cache-control": "no-cache"},
                )
            return _json(await self._in_thread(self._scorer.answer, payload))
        except self._scoring.ScoringError as error:
            return on_error(error)
        except Exception:
            log.exception("the scoring code failed")
            return on_error(self._scoring.ScoringError(500, "The scoring code failed."))

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        from anyio import to_thread

        return await to_thread.run_sync(function, *arguments, limiter=self._limiter)

    async def _in_threads(self, events: Any) -> AsyncIterator[str]:
        try:
            while (event := await self._in_thread(next, events, None)) is not None:
                yield event
        finally:
            events.close()  # a client that went away ends the generation


class _RequestLog:
    """Gives every request an id and writes one line about it: never a body, never a key."""

    def __init__(self, app: Any):
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        from starlette.datastructures import Headers, MutableHeaders

        request_id = str(uuid.uuid4())
        client_id = NOT_IN_CLIENT_ID.sub("", Headers(scope=scope).get(CLIENT_ID, ""))[:40]
        status = "none"

        async def send_with_ids(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
                headers = MutableHeaders(scope=message)
                headers["x-ms-request-id"] = request_id
                if client_id:
                    headers[CLIENT_ID] = client_id
            await send(message)

        start = time.perf_counter()
        try:
            await self._app(scope, receive, send_with_ids)
        finally:
            took = (time.perf_counter() - start) * 1000
            path = NOT_IN_LOG.sub("?", scope["path"])[:100]
            ids = f"{request_id} client={client_id or '-'}"
            log.info("%s %s %s %s %.0f ms", ids, scope["method"], path, status, took)


async def _read(request: Request) -> bytes:
    """The request's body. Raises FrontError: 413, or 400 when the client goes away."""
    from starlette.requests import ClientDisconnect

    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                limit = f"The request is larger than {MAX_BODY // 2**20} MiB."
                raise FrontError(413, "RequestTooLarge", limit)
    except ClientDisconnect as error:
        raise FrontError(400, "BadRequest", "The request was cut off.") from error
    return bytes(body)


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    from starlette.responses import JSONResponse

    return JSONResponse(body, status, headers)


async def _refused(request: Request, error: Any) -> Response:
    # The body may not have been read: the connection is of no more use.
    return _json(error.body, error.status, {"connection": "close"})


def _plain(error: Any) -> Response:
    """A scoring error as OpenAI's API has it."""
    return _json(error.body, error.status)


def _wrapped(error: Any) -> Response:
    """A scoring error as Azure's front end passes it on: 424, the real status in a header."""
    headers = {
        "ms-azureml-model-error-statuscode": str(error.status),
        "ms-azureml-model-error-reason": REASONS.get(error.status, "model_error"),
    }
    return _json(error.body, 424, headers)


def _load(model_dir: Path, name: str | None) -> tuple[ModuleType, Any]:
    try:
        scoring = _scoring_module()
        return scoring, scoring.load(Path(model_dir), name)
    except ImportError as error:
        missing = error.name or "a package"
        raise EndpointError(f"{missing} is missing: {INSTALL}") from error
    except Exception as error:
        # Whatever the loaders raise: to the user it is one thing, a model that cannot be served.
        line = (str(error).splitlines() or [type(error).__name__])[0]
        if type(error).__name__ == "ModelNotFoundError":
            raise EndpointError(line) from error
        raise EndpointError(f"the model in {model_dir} cannot be loaded: {line}") from error


@functools.cache
def _scoring_module() -> ModuleType:
    """score.py, imported from its file as Azure's inference server does."""
    here = Path(__file__).resolve().parent
    places = (here.parent / "serving", here / "_assets" / "scripts" / "serving")
    path = next((p / "score.py" for p in places if (p / "score.py").is_file()), None)
    spec = path and importlib.util.spec_from_file_location("phi3_score", path)
    if not spec or not spec.loader:
        raise EndpointError("the scoring code (serving/score.py) is not installed")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _check_key(key: str, host: str = "127.0.0.1") -> None:
    if key and key.strip():
        return
    if _is_loopback(host):
        raise EndpointError("the key is empty: give the endpoint one")
    raise EndpointError(f"{host} can be reached from outside: it is not served without a key")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet: until the model is loaded nobody can connect."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, or asyncio leaves Nagle's algorithm on and every answer takes 40 ms longer.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except (OSError, OverflowError) as error:
        sock.close()
        why = getattr(error, "strerror", None) or str(error)
        raise EndpointError(f"cannot listen on {host}, port {port}: {why}") from error
    return sock


def _url(host: str, sock: socket.socket) -> str:
    # "Every address" is none that a client could call.
    name = "localhost" if host in EVERY_ADDRESS else host
    bracketed = f"[{name}]" if ":" in name else name
    return f"http://{bracketed}:{sock.getsockname()[1]}"
