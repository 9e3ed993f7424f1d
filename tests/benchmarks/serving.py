"""What serving costs: score.py against the tutorials' way, behind the same inference server.

    python tests/benchmarks/serving.py --json bench/serving.json

The peer is MLflow's pyfunc of the same model, one `predict` after another: what Azure runs for an
MLflow model that is deployed without a script. Both are run by azureml-inference-server-http on
the same cores and asked by the same clients (threads with connections kept), in turns, so that
what else the machine does meets both. Two models: the quickstart's own, trained here, and one of
100 million random weights (32 tokens in, 64 out). Exits 1 where a limit is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from bench_rows import Row, report  # noqa: E402
from inference_server import Server, started  # noqa: E402

CLIENTS = 16
WINDOW = 256
SHAPE_100M = {
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 14,
    "num_attention_heads": 12,
    "num_key_value_heads": 12,
}
PROMPT_TOKENS, ANSWER_TOKENS = 32, 64
TRAIN_ROWS = 300

# How the deployment runs it on a CPU: as many workers as small models gain from.
OURS = {"PHI3_ENGINE": "onnx", "GUNICORN_CMD_ARGS": "--threads 16 --keep-alive 75"}
# The server's own settings, as the tutorials leave them; but threads that wait give up their core,
# as ours do, without which a busy machine slows torch down many times.
PEER = {"WORKER_COUNT": "1", "GUNICORN_CMD_ARGS": "", "OMP_WAIT_POLICY": "PASSIVE"}
PEER_SCRIPT = """
import json, os
import mlflow

def init():
    global model
    model = mlflow.pyfunc.load_model(os.environ["AZUREML_MODEL_DIR"])

def run(body):
    request = json.loads(body)
    return model.predict(request["input_data"], params=request.get("params"))
"""

Ask = Callable[[http.client.HTTPConnection, int], int]  # a connection, a number -> tokens

# -- models ------------------------------------------------------------------------------------


@dataclass
class Model:
    """A model folder, its MLflow twin, and what to ask it."""

    hf: Path
    mlflow: Path
    questions: list[str]
    params: dict[str, Any]


def train(home: Path, epochs: int) -> Model:
    """The quickstart's model, by its own training code, and the questions that it learnt."""
    data = ROOT / "scripts" / "phi3_ops" / "samples" / "facts.jsonl"
    training = ROOT / "scripts" / "training"
    out = home / "out"
    command = [training / "train.py", "--recipe", training / "recipes" / "tiny-cpu.yaml"]
    command += ["--train-file", data, "--eval-file", data, "--output-dir", out]
    command += ["--epochs", epochs, "--rows", TRAIN_ROWS]
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=home, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"training failed:\n{done.stderr[-2000:]}")
    lines = data.read_text(encoding="utf-8").splitlines()[:TRAIN_ROWS]
    questions = [json.loads(line)["messages"][0]["content"] for line in lines]
    params = {"max_new_tokens": 128}
    return Model(out / "model", _log(out / "model", home / "mlflow"), questions, params)


def random_weights(home: Path) -> Model:
    """About 100 million random weights behind the tiny tokenizer; it never ends by itself."""
    import torch
    from transformers import GenerationConfig, Phi3Config, Phi3ForCausalLM

    from tiny_model import _tokenizer

    tokenizer = _tokenizer()
    torch.manual_seed(0)
    hf = home / "phi3-100m"
    config = Phi3Config(
        vocab_size=len(tokenizer),
        max_position_embeddings=WINDOW,
        original_max_position_embeddings=WINDOW,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        **SHAPE_100M,
    )
    model = Phi3ForCausalLM(config)
    # The end tokens' weights are the smallest there can be, so every answer has its full length.
    with torch.no_grad():
        for token in (0, *range(1, 5)):
            model.lm_head.weight[token] = 0
    model.generation_config = GenerationConfig(eos_token_id=0, pad_token_id=0, bos_token_id=0)
    model.save_pretrained(hf)
    tokenizer.save_pretrained(hf)
    text = "x" * (PROMPT_TOKENS - len(tokenizer.encode("<|user|>\n<|end|>\n<|assistant|>\n")))
    params = {"max_new_tokens": ANSWER_TOKENS}
    return Model(hf, _log(hf, home / "mlflow-100m"), [text], params)


def _log(hf: Path, to: Path) -> Path:
    """The model as the tutorials log it, with what they forget: a signature and the template."""
    os.environ.update(HF_HUB_OFFLINE="1", MLFLOW_DISABLE_TELEMETRY="true")
    import mlflow
    from transformers import AutoModelForCausalLM, AutoTokenizer

    parts = {
        "model": AutoModelForCausalLM.from_pretrained(hf),
        "tokenizer": AutoTokenizer.from_pretrained(hf),
    }
    params = {"max_new_tokens": 128, "do_sample": False, "return_full_text": False}
    mlflow.transformers.save_model(
        parts,
        str(to),
        task="text-generation",
        signature=mlflow.models.infer_signature(["q"], ["a"], params=params),
        prompt_template="<|user|>\n{prompt}<|end|>\n<|assistant|>\n",
        pip_requirements=["transformers"],
    )
    return to


# -- measurements ------------------------------------------------------------------------------


def post(connection: http.client.HTTPConnection, payload: Any) -> http.client.HTTPResponse:
    body = json.dumps(payload).encode()
    connection.request("POST", "/score", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"{response.status}: {response.read()[:500]!r}")
    return response


def ask(model: Model, connection: http.client.HTTPConnection, number: int) -> Any:
    question = model.questions[number % len(model.questions)]
    return json.loads(post(connection, {"input_data": [question], "params": model.params}).read())


def requests_per_second(model: Model, server: Server, clients: int, seconds: float) -> float:
    """Requests that so many clients get through together, each on its own connection."""
    end = time.perf_counter() + seconds
    counts = [0] * clients

    def work(number: int) -> None:
        with contextlib.closing(server.connect()) as connection:
            while time.perf_counter() < end:
                ask(model, connection, number * 7 + counts[number])
                counts[number] += 1

    start = time.perf_counter()
    threads = [threading.Thread(target=work, args=(n,)) for n in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - start)


def milliseconds(model: Model, server: Server, times: int) -> list[float]:
    """The latency of one request after another."""
    found = []
    with contextlib.closing(server.connect()) as connection:
        for number in range(times):
            start = time.perf_counter()
            ask(model, connection, number)
            found.append((time.perf_counter() - start) * 1000)
    return found


def stream_milliseconds(model: Model, server: Server) -> tuple[float, float]:
    """Until the first text and until the end of a streamed answer."""
    messages = [{"role": "user", "content": model.questions[0]}]
    payload = {"messages": messages, "max_tokens": ANSWER_TOKENS, "stream": True}
    first = 0.0
    with contextlib.closing(server.connect()) as connection:
        start = time.perf_counter()
        for line in post(connection, payload):
            if not first and line.startswith(b"data: {") and _text(line):
                first = time.perf_counter() - start
        return first * 1000, (time.perf_counter() - start) * 1000


def _text(line: bytes) -> str:
    choices = json.loads(line.removeprefix(b"data: "))["choices"]
    return choices[0]["delta"].get("content", "") if choices else ""


def memory_mib(server: Server) -> float:
    """Resident memory of the server's processes, shared pages counted once each (PSS)."""
    import psutil

    process = psutil.Process(server.process.pid)
    family = [process, *process.children(recursive=True)]
    return sum(member.memory_full_info().pss for member in family) / 2**20


@contextlib.contextmanager
def both(model: Model, home: Path, workers: int) -> Iterator[tuple[dict[str, Server], Any]]:
    """Our server and the peer's, started one after the other; and their cold starts in seconds."""
    script = home / "peer.py"
    script.write_text(PEER_SCRIPT)
    homes = [home / f"{model.hf.name}-{name}" for name in ("ours", "peer")]
    for folder in homes:
        folder.mkdir()
    with contextlib.ExitStack() as stack:
        servers, cold = {}, {}
        for name, context in (
            ("ours", lambda: started(model.hf, homes[0], WORKER_COUNT=str(workers), **OURS)),
            ("peer", lambda: started(model.mlflow, homes[1], script, **PEER)),
        ):
            start = time.perf_counter()
            servers[name] = stack.enter_context(context())
            servers[name].wait()
            with contextlib.closing(servers[name].connect()) as connection:
                ask(model, connection, 0)
            cold[name] = time.perf_counter() - start
        yield servers, cold


def in_turns(servers: dict[str, Server], rounds: int, measure: Callable[[Server], Any]) -> Any:
    """Each round's figure of each server; the first round warms them up and does not count."""
    found: dict[str, list[Any]] = {name: [] for name in servers}
    for number in range(rounds + 1):
        for name, server in servers.items():
            figure = measure(server)
            if number:
                found[name].append(figure)
    return found


# -- report ------------------------------------------------------------------------------------


PYFUNC = "MLflow pyfunc, one by one"


def rows_of(model: Model, label: str, home: Path, workers: int, rounds: int) -> Iterator[Row]:
    big = label != "quickstart"
    with both(model, home, workers) as (servers, cold):
        questions = range(1 if big else 30)
        with (
            contextlib.closing(servers["ours"].connect()) as ours,
            contextlib.closing(servers["peer"].connect()) as peer,
        ):
            same = sum(ask(model, ours, n) == ask(model, peer, n) for n in questions)
        yield Row(f"{label}, equal answers", "of them", same, len(questions), PYFUNC, 0.9, True)
        seconds = 4.0
        rates = in_turns(servers, rounds, lambda s: requests_per_second(model, s, CLIENTS, seconds))
        rate = {name: statistics.median(values) for name, values in rates.items()}
        if big:
            rate = {name: value * ANSWER_TOKENS for name, value in rate.items()}
            yield Row(f"{label}, {CLIENTS} clients", "tokens/s", *rate.values(), PYFUNC, 8, True)
        else:
            yield Row(f"{label}, {CLIENTS} clients", "req/s", *rate.values(), PYFUNC, 15, True)
        times = in_turns(servers, rounds, lambda s: milliseconds(model, s, 3 if big else 20))
        p50 = {name: statistics.median(sum(values, [])) for name, values in times.items()}
        yield Row(f"{label}, 1 client, p50", "ms", *p50.values(), PYFUNC, 0.5)
        if big:
            pairs = [stream_milliseconds(model, servers["ours"]) for _ in range(2 * rounds + 1)][1:]
            first, whole = (statistics.median(column) for column in zip(*pairs))
            yield Row(f"{label}, first text", "ms", first, whole, "the full answer", 0.2)
        yield Row(f"{label}, cold start", "s", *cold.values(), PYFUNC)
        memory = [memory_mib(server) for server in servers.values()]
        yield Row(f"{label}, memory", "MiB", *memory, PYFUNC)


def export(model: Model, precision: str) -> tuple[Path, float]:
    """Export as the first start does; the folder, and how long it took in seconds."""
    sys.path.insert(0, str(ROOT / "scripts" / "serving"))
    from model_files import ModelFiles
    from onnx_export import ensure_export

    start = time.perf_counter()
    folder = ensure_export(ModelFiles(model.hf, model.hf), precision)
    return folder, time.perf_counter() - start


def int4_row(model: Model) -> Row:
    """Exact matches of int4's answers with fp32's, by the eval flow's own metric."""
    from engine import BatchingEngine
    from engine_onnx import OnnxBackend
    from generation import GenerationParams

    from phi3_tools.evaluation.metrics import exact_match

    answers = []
    for precision in ("int4", "fp32"):
        engine = BatchingEngine(OnnxBackend(export(model, precision)[0]))
        prompts = [engine.render([{"role": "user", "content": q}]) for q in model.questions]
        done = []
        for at in range(0, len(prompts), 100):
            ids = [engine.encode(prompt) for prompt in prompts[at : at + 100]]
            done += engine.generate(ids, GenerationParams(max_new_tokens=64))
        answers.append([completion.text for completion in done])
        engine.close()
    matches = sum(exact_match(four, full) for four, full in zip(*answers))
    return Row("quickstart, int4", "matches", matches, len(model.questions), "fp32's answers")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (%(default)s)")
    parser.add_argument("--epochs", type=int, default=14, help="of training (%(default)s)")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for label, make, workers in (
            ("quickstart", lambda: train(home, args.epochs), 2),
            ("100M", lambda: random_weights(home), 1),
        ):
            print(f"{label}: making the model …", file=sys.stderr)
            model = make()
            print(f"{label}: exported in {export(model, 'fp32')[1]:.0f} s, once", file=sys.stderr)
            if label == "quickstart":
                rows.append(int4_row(model))
            rows += rows_of(model, label, home, workers, args.rounds)
    return report(rows, args.json)


if __name__ == "__main__":
    sys.exit(main())
