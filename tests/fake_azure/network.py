"""The TLS certificates, the CONNECT proxy and the server that replace Azure's hosts on loopback."""

import asyncio
import json
import re
import socket
import threading

import anyio.to_thread
import trustme
import uvicorn
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as WebRequest
from starlette.responses import JSONResponse, Response

from .messages import Request

SCORING = ".inference.ml.azure.com"  # the model reads requests to it, so they are not parsed
BLOB, SHARE = ".blob.core.windows.net", ".file.core.windows.net"
NAMES = ["management.azure.com", "login.microsoftonline.com", "*.api.azureml.ms"]
NAMES += ["*.experiments.azureml.net", f"*{BLOB}", f"*{SHARE}"]
REGIONAL = ["*.{}.api.azureml.ms", "*.{}" + SCORING]
SERVER = {"interface": "asgi3", "proxy_headers": False, "lifespan": "off", "log_level": "error"}
SERVER |= {"timeout_graceful_shutdown": 2}  # s
THREADS = 256  # concurrent requests: each scoring request waits in one


def names(region):
    return [*NAMES, *(name.format(region) for name in REGIONAL)]


def certificates(folder, region):
    """Write a certificate authority, and a certificate with its key; return the two files."""
    authority = trustme.CA()
    leaf = authority.issue_cert(*names(region), "127.0.0.1")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    leaf.private_key_and_cert_chain_pem.write_to_path(str(folder / "leaf.pem"))
    return folder / "ca.pem", folder / "leaf.pem"


class Network:
    """The server and the proxy, in an event loop in a thread."""

    def __init__(self, answer, certificate, region, blob_port):
        self.refused_hosts, self._answer, self._blob_port = [], answer, blob_port
        known = "|".join(re.escape(name).replace(r"\*", "[^:/]+") for name in names(region))
        self._known, self._open = re.compile(known), set()
        tls = dict.fromkeys(("ssl_certfile", "ssl_keyfile"), str(certificate))
        self._server = uvicorn.Server(uvicorn.Config(self._app, **SERVER, **tls))
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self._thread.start()
        if not self._started.wait(30):
            raise RuntimeError("the fake's server did not start in 30 s")

    async def _main(self):
        self._loop = asyncio.get_running_loop()
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        proxy = await asyncio.start_server(self._proxy, "127.0.0.1", 0)
        self.proxy_port = proxy.sockets[0].getsockname()[1]
        bound = socket.create_server(("127.0.0.1", 0))
        # create_server sets proto=0, with which asyncio does not set TCP_NODELAY: 40 ms per answer.
        tcp = {"proto": socket.IPPROTO_TCP, "fileno": bound.detach()}
        with socket.socket(bound.family, bound.type, **tcp) as listening:
            self._port = listening.getsockname()[1]
            self._started.set()
            await self._server.serve([listening])
        proxy.close()

    def close(self):
        self._loop.call_soon_threadsafe(lambda: [writer.close() for writer in list(self._open)])
        self._server.should_exit = True
        self._thread.join(10)

    async def _app(self, scope, receive, send):
        web = WebRequest(scope, receive)
        raw, host = await web.body(), web.url.hostname or ""
        is_json = raw and "json" in web.headers.get("content-type", "") and SCORING not in host
        request = Request(
            method=web.method,
            path="/" + web.url.path.lstrip("/"),
            body=json.loads(raw) if is_json else None,
            host=host,
            query=dict(web.query_params),
            headers=dict(web.headers),
            raw=raw,
        )
        answer = await run_in_threadpool(self._answer, request)
        if answer is None:  # a planned fault breaks the connection
            return send.__self__.transport.abort()
        if not isinstance(answer, Response):
            kind = Response if answer.body is None else JSONResponse
            answer = kind(answer.body, answer.status, answer.headers)
        await answer(scope, receive, send)

    async def _proxy(self, reader, writer):
        self._open.add(writer)
        try:
            line = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[0]
            method, target, _ = line.split(" ", 2)
            host = target.split("://")[-1].split("/")[0].rsplit(":", 1)[0].lower()
            if method != "CONNECT" or not self._known.fullmatch(host):
                self.refused_hosts.append(host)
                writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                return
            port = self._blob_port if host.endswith(BLOB) else self._port
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        except (OSError, EOFError, ValueError, asyncio.CancelledError):
            pass  # the client left, or the fake ends
        finally:
            self._open.discard(writer)
            writer.close()


async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # either end may close first
    finally:
        writer.close()
