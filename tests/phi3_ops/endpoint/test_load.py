"""`phi3 endpoint` under mixed load from 32 clients, and with its model's process killed in the middle.

`PHI3_LOAD_SECONDS=600` makes it the full run; `pytest -s` shows the figures.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import statistics
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil
import pytest
import requests

from phi3_ops.endpoint.background import ENDPOINT_KEY_VARIABLE
from phi3_ops.endpoint.registration import find_endpoint
from phi3_tools import Limits, Params, Phi3Client, Phi3Error
from processes import BIN
from tiny_endpoint import HANG_S, KEY

pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("PHI3_LOAD_SECONDS", "20"))
CLIENTS = 32
TOKENS = 24
WINDOW = 512  # of the tiny model
HEADERS = {"authorization": f"Bearer {KEY}"}
QUESTIONS = [f"Question {n}: who founded company number {n * 7}?" for n in range(24)]


@contextmanager
def endpoint(model, folder):
    """`phi3 endpoint` as a user starts it: its URL and its process."""
    log = folder / "log"
    command = [BIN / "phi3", "endpoint", "--model", model, "--port", "0", "--no-connect"]
    environment = {**os.environ, ENDPOINT_KEY_VARIABLE: KEY}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--workdir", folder], env=environment, stdout=output, stderr=output
        )
    try:
        until(lambda: find_endpoint(folder, "tuned") or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        running = find_endpoint(folder, "tuned")
        yield running.url.removesuffix("/score"), psutil.Process(process.pid)
        process.terminate()
        assert process.wait(HANG_S) == 0, log.read_text()
        assert KEY not in log.read_text()
    finally:
        process.kill()
        process.wait()


def until(condition):
    end = time.monotonic() + 2 * HANG_S
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


# --- kinds of requests: each raises AssertionError for a wrong answer ----------------------------


@dataclass
class Client:
    """One of many clients; `alone` has the answer to each question when it is the only request."""

    url: str
    alone: dict[str, str] = field(default_factory=dict)
    session: requests.Session = field(default_factory=requests.Session)

    def post(self, route, payload, **options):
        return self.session.post(
            self.url + route, json=payload, headers=HEADERS, timeout=2 * HANG_S, **options
        )

    def text(self, question):
        payload = chat(question)
        answer = self.post("/v1/chat/completions", payload)
        assert answer.status_code == 200, answer.text
        return answer.json()["choices"][0]["message"]["content"]

    def plain(self, question):
        assert self.text(question) == self.alone[question]

    def listed(self, question):
        params = {"max_new_tokens": TOKENS, "return_full_text": True}
        answer = self.post("/score", {"input_data": [question], "params": params})
        assert answer.status_code == 200, answer.text
        assert answer.json() == [question + self.alone[question]]

    def streamed(self, question):
        with self.post("/score", chat(question, stream=True), stream=True) as answer:
            assert answer.status_code == 200, answer.text
            assert streamed_text(answer.content) == self.alone[question]

    def cancelled(self, question):
        payload = chat(question, stream=True, max_tokens=WINDOW - 100)
        with self.post("/score", payload, stream=True) as answer:
            assert answer.status_code == 200, answer.text
            assert next(answer.iter_content(16)).startswith(b"data: ")

    def oversized(self, question):
        answer = self.session.post(
            f"{self.url}/score", data=b"x" * (11 * 2**20), headers=HEADERS, timeout=2 * HANG_S
        )
        assert answer.status_code == 413, answer.text

    def too_long(self, question):
        answer = self.post("/score", chat(question, max_tokens=WINDOW))
        assert answer.status_code == 424, answer.text
        assert answer.headers["ms-azureml-model-error-statuscode"] == "400"
        assert "context window" in answer.json()["error"]["message"]

    def malformed(self, question):
        for body in (b"", b"[", b'{"messages": 1}', b"\xff\xfe", b'{"input_data": {}}'):
            answer = self.session.post(
                f"{self.url}/score", data=body, headers=HEADERS, timeout=2 * HANG_S
            )
            assert answer.status_code == 424, answer.text
            assert answer.headers["ms-azureml-model-error-statuscode"] == "400"

    def no_http(self, question):
        host, port = self.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=2 * HANG_S) as sock:
            sock.sendall(b"NONSENSE\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 400 ")


# How often each, of 100.
MIX = {
    Client.plain: 30,
    Client.listed: 15,
    Client.streamed: 25,
    Client.cancelled: 12,
    Client.malformed: 8,
    Client.too_long: 5,
    Client.no_http: 3,
    Client.oversized: 2,
}


def chat(question, **more):
    return {"messages": [{"role": "user", "content": question}], "max_tokens": TOKENS, **more}


def streamed_text(body):
    *events, done, rest = body.decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    deltas = [json.loads(event.removeprefix("data: "))["choices"][0]["delta"] for event in events]
    return "".join(delta.get("content", "") for delta in deltas)


# --- the load -----------------------------------------------------------------------------------


def family(process):
    """The endpoint's process and its model's."""
    return [process, *process.children(recursive=True)]


def open_files(process):
    return sum(each.num_fds() for each in family(process))


def drive(url, alone, end, seed):
    """Run one client until the end; return the number of requests of each kind, and the errors."""
    chance, client = random.Random(seed), Client(url, alone)
    counts, wrong = Counter(), []
    with client.session:
        while time.monotonic() < end:
            kind = chance.choices(list(MIX), list(MIX.values()))[0]
            try:
                kind(client, chance.choice(QUESTIONS))
            except (AssertionError, OSError, ValueError) as error:
                wrong.append(f"{kind.__name__}: {error!r}"[:300])
            counts[kind.__name__] += 1
    return counts, wrong


def test_mixed_load(tiny_model_dir, tmp_path):
    with endpoint(tiny_model_dir, tmp_path) as (url, process):
        with requests.Session() as session:
            reference = Client(url, {}, session)
            alone = {question: reference.text(question) for question in QUESTIONS}
        assert len(set(alone.values())) > len(QUESTIONS) / 2  # a crossed answer would show
        before, start = open_files(process), time.monotonic()
        end = start + SECONDS
        memory = []
        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(drive, url, alone, end, seed) for seed in range(CLIENTS)]
            while time.monotonic() < end:
                memory.append(sum(each.memory_info().rss for each in family(process)) / 2**20)
                time.sleep(SECONDS / 100)
        results = [client.result() for client in clients]
        until(lambda: not process.net_connections() or idle(process))
        counts = sum((counts for counts, _ in results), Counter())
        wrong = [line for _, lines in results for line in lines]
        show(counts, wrong, memory, time.monotonic() - start)
        assert not wrong
        assert set(counts) == {kind.__name__ for kind in MIX}
        quarter = len(memory) // 4
        warm, last = memory[quarter : 2 * quarter], memory[-quarter:]
        assert statistics.median(last) <= 1.1 * statistics.median(warm)
        until(lambda: open_files(process) <= before)
        assert requests.get(url).text == "Healthy"


def idle(process):
    return all(each.status == psutil.CONN_LISTEN for each in process.net_connections())


def show(counts, wrong, memory, seconds):
    print(f"\n{sum(counts.values())} rounds in {seconds:.0f} s: {dict(counts.most_common())}")
    print(f"wrong: {len(wrong)} {wrong[:3]}")
    tenth = max(1, len(memory) // 10)
    parts = [memory[at : at + tenth] for at in range(0, len(memory), tenth)]
    print("MiB:", *(f"{statistics.median(part):.0f}" for part in parts))


# --- a process killed in the middle ------------------------------------------------------------


def test_a_model_killed_under_load_comes_back(tiny_model_dir, tmp_path):
    params = Params(max_new_tokens=TOKENS, temperature=0)
    errors: Counter[str] = Counter()
    again = threading.Semaphore(0)  # released by each client that got an answer after the death
    killed = threading.Event()
    stop = threading.Event()

    def client(number):
        """Ask until `stop` is set; even clients try once, odd ones until they get an answer."""
        limits = Limits(max_attempts=1 if number % 2 == 0 else 100)
        streams = number % 4 == 0
        with Phi3Client.from_connection(
            {"endpoint": f"{url}/score", "key": KEY}, limits=limits
        ) as phi3:
            done = False
            while not stop.is_set():
                dead = killed.is_set()
                try:
                    question = QUESTIONS[number % len(QUESTIONS)]
                    if streams:
                        text = "".join(phi3.stream(question, params))
                    else:
                        text = phi3.chat(question, params).text
                except Phi3Error as error:
                    errors[
                        f"{'once' if number % 2 == 0 else 'patient'} {type(error).__name__}"
                    ] += 1
                    time.sleep(0.1)
                else:
                    assert text == alone[question]
                    if dead and not done:
                        done = True
                        again.release()

    with endpoint(tiny_model_dir, tmp_path) as (url, process):
        reference = Client(url)
        alone = {question: reference.text(question) for question in QUESTIONS}
        reference.session.close()
        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(client, number) for number in range(CLIENTS)]
            try:
                time.sleep(3)
                (model,) = process.children()
                model.send_signal(signal.SIGKILL)
                until(lambda: requests.get(url).status_code == 503)
                killed.set()
                for _ in range(CLIENTS):
                    assert again.acquire(timeout=2 * HANG_S), errors
            finally:
                stop.set()
        for each in clients:
            each.result()  # no other exceptions than Phi3Error
        print("\n", dict(errors))
        assert {"once ScoringFailedError", "once ModelNotReadyError"} & set(errors)
        assert not any(name.startswith("patient") for name in errors)
        (other,) = process.children()
        assert other.pid != model.pid
