"""Cancelling asynchronous calls and streams: the connection is closed, and the process can end."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import threading

import pytest

from async_calls import HANG_S, cancelled, endless, run, silent
from phi3_tools import Limits, Phi3Client, Settings
from phi3_tools.client.retry import Deadline


def half_an_answer(x):
    x.head(200, {"content-length": "100"})
    x.send(b'{"output": ')
    x.until_client_leaves()


# -- complete answers ------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [silent, half_an_answer, endless])
@pytest.mark.parametrize("contract", ["auto", "chat", "openai"])
def test_cancelling_a_call_closes_its_connection(server, connect, answer, contract):
    """The call continued in its thread before, until its answer or its time limit of 120 s."""
    server.play(answer)
    client = connect(server, contract=contract)

    async def ask():
        await cancelled(asyncio.create_task(client.achat("Hi")), server)
        # The endpoint sees it while the event loop runs on.
        assert await asyncio.to_thread(server.client_left.wait, HANG_S)

    run(ask())
    assert len(server.requests) == 1


def test_a_time_limit_of_asyncio_closes_the_connection(server, connect):
    server.play(silent)
    client = connect(server)

    async def ask():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.achat("Hi"), 0.1)
        assert await asyncio.to_thread(server.client_left.wait, HANG_S)

    run(ask())


def test_a_cancelled_call_over_tls_closes_its_connection(
    new_server, connect, tmp_path, monkeypatch
):
    import ssl

    import trustme

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    server = new_server(context)
    server.play(silent)
    client = connect(server)

    async def ask():
        await cancelled(asyncio.create_task(client.achat("Hi")), server)
        assert await asyncio.to_thread(server.client_left.wait, HANG_S)

    run(ask())


def test_a_cancelled_call_waits_for_no_further_attempt(server, connect):
    server.json({}, 429, {"retry-after": "50"})
    client = connect(server)

    async def ask():
        await cancelled(asyncio.create_task(client.achat("Hi")), server)

    run(ask())
    assert len(server.requests) == 1


def test_other_calls_of_the_client_go_on(server, connect):
    go_on = threading.Event()

    def late(x):
        assert go_on.wait(HANG_S)
        x.respond(b'{"output": "x"}')

    server.play(late, silent, late)
    client = connect(server, contract="chat")

    async def ask():
        first = asyncio.create_task(client.achat("1"))
        while not server.requests:
            await asyncio.sleep(0.01)
        await cancelled(asyncio.create_task(client.achat("2")), server, 2)
        go_on.set()
        return [await first, await client.achat("3")]

    assert [reply.text for reply in run(ask())] == ["x", "x"]


def test_a_kept_connection_is_not_closed_by_a_call_that_has_ended(server, connect):
    server.json({"output": "x"})
    client = connect(server, contract="chat")

    async def ask():
        for _ in range(5):
            await client.achat("Hi")

    run(ask())
    assert server.connections == 1


def test_a_call_that_waits_for_a_thread_is_dropped(server):
    server.play(silent)
    with Phi3Client.from_connection({"endpoint": server.url, "key": "k"}) as settings_of:
        settings = settings_of.settings
    client = Phi3Client(settings, pool_size=1)

    async def ask():
        first = asyncio.create_task(client.achat("1"))
        while not server.requests:
            await asyncio.sleep(0.01)
        second = asyncio.create_task(client.achat("2"))
        await asyncio.sleep(0.01)
        second.cancel()
        first.cancel()
        await asyncio.gather(first, second, return_exceptions=True)

    run(ask())
    client.close()
    assert server.client_left.wait(HANG_S)
    assert len(server.requests) == 1


def test_a_call_that_is_cancelled_before_its_request_sends_nothing(server):
    waiting, go_on = threading.Event(), threading.Event()

    class SlowKey:
        def header(self):
            waiting.set()
            assert go_on.wait(HANG_S)
            return "Bearer k"

    client = Phi3Client(Settings(server.url, SlowKey()), pool_size=1)

    async def ask():
        task = asyncio.create_task(client.achat("Hi"))
        await asyncio.to_thread(waiting.wait, HANG_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        await client._in_thread(lambda: None)  # the only thread has ended the call

    run(ask())
    client.close()
    assert server.connections == 0


def test_a_connection_of_a_cancelled_call_is_closed_when_it_is_made():
    """A thread that connects cannot be interrupted."""
    deadline = Deadline(HANG_S)
    deadline.cancel()
    closed = []
    deadline.interrupt = lambda: closed.append(True)
    assert closed == [True]


PROGRAM = """
import asyncio
from phi3_tools import Phi3Client

client = Phi3Client.from_connection({{"endpoint": {url!r}, "key": "k", "contract": "openai"}})

async def consume():
    async for piece in client.astream("Hi"):
        pass

async def main():
    for call in (client.achat("Hi"), consume()):
        try:
            await asyncio.wait_for(call, 0.3)
        except asyncio.TimeoutError:
            print("cancelled", flush=True)

asyncio.run(main())
{end}
"""


@pytest.mark.finding(
    21,
    "`achat` is cancelled while the endpoint is silent",
    "the connection is closed at once, and the process can end",
)
@pytest.mark.parametrize("answer", [silent, half_an_answer, endless])
@pytest.mark.parametrize("end", ["", "raise SystemExit(0)", "client.close()"])
def test_the_process_ends_after_a_cancelled_call(server, answer, end):
    """It could not end before: its threads waited up to 120 s for an answer."""
    server.play(answer)
    program = PROGRAM.format(url=server.url, end=end)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=2 * HANG_S
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "cancelled\ncancelled\n", "")


def test_a_process_can_end_while_a_call_cannot_be_interrupted(server):
    """The lookup of a host name, for example, cannot be interrupted."""
    program = f"""
import asyncio, threading, time
from phi3_tools import Phi3Client, Settings

class Slow:
    def header(self):
        print("waits", flush=True)
        time.sleep(600)

async def main():
    client = Phi3Client(Settings({server.url!r}, Slow()))
    try:
        await asyncio.wait_for(client.achat("Hi"), 0.3)
    except asyncio.TimeoutError:
        print("cancelled", flush=True)

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=2 * HANG_S
    )
    assert (done.returncode, done.stdout) == (0, "waits\ncancelled\n"), done.stderr


# -- signatures and threads ------------------------------------------------------------------------


def test_the_async_methods_have_the_parameters_of_the_others():
    def parameters(method):
        return list(inspect.signature(method).parameters.values())

    assert parameters(Phi3Client.achat) == parameters(Phi3Client.chat)
    assert parameters(Phi3Client.astream) == parameters(Phi3Client.stream)


def test_the_limits_of_an_async_call_are_its_own(server, connect):
    server.play(silent)
    client = connect(server)

    async def ask():
        with pytest.raises(Exception, match="within 0.2 s"):
            await client.achat("Hi", limits=Limits(deadline_s=0.2))

    run(ask())
