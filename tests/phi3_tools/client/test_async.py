"""Cancelling asynchronous calls and streams: the connection is closed, and the process can end."""

from __future__ import annotations

import asyncio
import gc
import inspect
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from phi3_tools import AsyncStream, ConfigError, Limits, Params, Phi3Client, Settings, Usage
from phi3_tools.client import workers as workers_module
from phi3_tools.client.retry import Deadline
from phi3_tools.client.workers import Workers

HANG_S = 30
USAGE = {"prompt_tokens": 5, "completion_tokens": 2}
END = {"choices": [{"delta": {}, "finish_reason": "stop"}]}


def delta(text):
    return {"choices": [{"delta": {"content": text}}]}


def endless(x):
    x.begin_events()
    x.event(delta("Bill"))
    x.until_client_leaves()


def silent(x):
    x.until_client_leaves()


def half_an_answer(x):
    x.head(200, {"content-length": "100"})
    x.send(b'{"output": ')
    x.until_client_leaves()


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, HANG_S))


async def cancelled(task, server, number=1):
    """Cancel a task after its request has arrived."""
    while len(server.requests) < number:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


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


# -- streams ---------------------------------------------------------------------------------------


def test_an_async_stream_ends_in_a_reply(server, connect):
    last = {"choices": [], "usage": USAGE, "model": "tiny"}
    server.events(delta("Bill "), delta("Gates"), END, last, "[DONE]")
    client = connect(server, contract="openai")

    async def ask():
        async with client.astream("Who?", Params(max_new_tokens=9)) as stream:
            assert isinstance(stream, AsyncStream)
            assert stream.reply is None
            pieces = [piece async for piece in stream]
        assert [piece async for piece in stream] == []
        return pieces, stream.reply

    pieces, reply = run(ask())
    assert pieces == ["Bill ", "Gates"]
    assert (reply.text, reply.finish_reason, reply.usage) == ("Bill Gates", "stop", Usage(5, 2))


@pytest.mark.parametrize("answer", [endless, silent])
def test_cancelling_an_async_stream_closes_its_connection(server, connect, answer):
    """This holds before the first piece and after it."""
    server.play(answer)
    client = connect(server, contract="openai")

    async def consume():
        async for _ in client.astream("Who?"):
            pass

    async def ask():
        await cancelled(asyncio.create_task(consume()), server)
        assert await asyncio.to_thread(server.client_left.wait, HANG_S)

    run(ask())


def test_leaving_an_async_stream_closes_its_connection(server, connect):
    server.play(endless)
    client = connect(server, contract="openai")

    async def leave():
        async with client.astream("Who?") as stream:
            async for piece in stream:
                assert piece == "Bill"
                break
        assert stream.reply is None
        assert [piece async for piece in stream] == []

    run(leave())
    assert server.client_left.wait(HANG_S)


def test_an_async_stream_can_be_closed_without_a_block(server, connect):
    server.play(endless)
    client = connect(server, contract="openai")

    async def leave():
        stream = client.astream("Who?")
        assert await anext(stream) == "Bill"
        await stream.aclose()
        await stream.aclose()

    run(leave())
    assert server.client_left.wait(HANG_S)


def test_an_async_stream_without_references_is_closed(server, connect):
    server.play(endless)
    client = connect(server, contract="openai")
    assert run(anext(client.astream("Who?"))) == "Bill"
    gc.collect()
    assert server.client_left.wait(HANG_S)


def test_a_wrong_argument_of_an_async_stream_is_an_error_at_once(server, connect):
    with pytest.raises(ConfigError, match="the list of messages is empty"):
        connect(server).astream([])


def test_halves_of_a_character_in_two_events_are_joined(server, connect):
    half = {"choices": [{"delta": {"content": "x\ud83d"}}]}
    other = {"choices": [{"delta": {"content": "\ude42y"}}]}
    server.events(half, other, half, END, "[DONE]").events(half, delta("z"), half, END)
    client = connect(server, contract="openai")
    for expected in (["x", "🙂y", "x", "\ufffd"], ["x", "\ufffdz", "x", "\ufffd"]):
        stream = client.stream("Who?")
        assert list(stream) == expected
        assert stream.reply.text == "".join(expected)
        stream.reply.text.encode("utf-8")


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


def test_workers_are_reused():
    workers = Workers(2)

    async def ask():
        threads = {await workers.run(threading.get_ident) for _ in range(50)}
        many = await asyncio.gather(*(workers.run(lambda: time.sleep(0.01)) for _ in range(20)))
        return threads, many

    threads, many = run(ask())
    # A thread may not be idle again yet when the next call comes, so that there may be two.
    assert len(threads) <= 2
    assert many == [None] * 20
    workers.close()


def test_workers_end_when_idle_and_start_again(monkeypatch):
    monkeypatch.setattr(workers_module, "IDLE_S", 0.05)
    workers = Workers(2)
    assert run(workers.run(lambda: 1)) == 1
    end = time.monotonic() + HANG_S
    while workers._threads:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert run(workers.run(lambda: 7)) == 7
    workers.close()


def test_an_error_of_the_work_reaches_the_caller():
    workers = Workers(1)
    with pytest.raises(ZeroDivisionError):
        run(workers.run(lambda: 1 / 0))
    workers.close()


def test_closed_workers_finish_what_is_waiting():
    workers, go_on, results = Workers(1), threading.Event(), []

    async def ask():
        tasks = [asyncio.create_task(workers.run(lambda: go_on.wait(HANG_S))) for _ in range(3)]
        await asyncio.sleep(0.01)
        workers.close()
        go_on.set()
        results.extend(await asyncio.gather(*tasks))

    with ThreadPoolExecutor(1) as pool:
        pool.submit(run, ask()).result(HANG_S)
    assert results == [True] * 3
