"""Measures how fast score.py serves a model, compared with the tutorials' deployment.

    python tests/benchmarks/serving.py --json bench/serving.json

The peer is MLflow's pyfunc of the same model, which answers one request at a time. Azure runs it
for an MLflow model that is deployed without a scoring script. Both run in
azureml-inference-server-http on the same cores, and the same clients (threads that keep their
connections) call them in turns, so that other load on the machine affects both. There are two
models: the quickstart's model, which is trained here, and a model with 100 million random weights
(32 prompt tokens, 64 answer tokens). Exits with 1 if a limit is missed.
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
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "scripts" / "serving")]

from bench_rows import Row, report  # noqa: E402
from inference_server import Server, started  # noqa: E402
from phi3_tools.client.contracts import PROMPT_TEMPLATE  # noqa: E402

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

# The deployment's settings on a CPU. The number of workers is set for each model.
OURS = {"PHI3_ENGINE": "onnx", "GUNICORN_CMD_ARGS": "--threads 16 --keep-alive 75"}
# The server's default settings, as in the tutorials. Waiting threads give up their core, as ours do;
# otherwise torch is many times slower on a busy machine.
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

# -- models ------------------------------------------------------------------------------------


@dataclass
class Model:
    """A model to measure.

    Attributes:
        hf: the model as a Hugging Face folder.
        mlflow: the same model as an MLflow model.
        questions: texts to send.
        params: parameters of the requests.
    """

    hf: Path
    mlflow: Path
    questions: list[str]
    params: dict[str, Any]


def train(home: Path, epochs: int) -> Model:
    """Train the quickstart's model with its recipe. Its questions are those that it has learned."""
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
    return Model(out / "model", _save_mlflow(out / "model", home / "mlflow"), questions, params)


def random_weights(home: Path) -> Model:
    """Make a model of about 100 million random weights that never generates an end token."""
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
    # Zero weights make the end tokens unlikely, so every answer has its full length.
    with torch.no_grad():
        for token in (0, *range(1, 5)):
            model.lm_head.weight[token] = 0
    model.generation_config = GenerationConfig(eos_token_id=0, pad_token_id=0, bos_token_id=0)
    model.save_pretrained(hf)
    tokenizer.save_pretrained(hf)
    text = "x" * (PROMPT_TOKENS - len(tokenizer.encode(PROMPT_TEMPLATE.format(prompt=""))))
    params = {"max_new_tokens": ANSWER_TOKENS}
    return Model(hf, _save_mlflow(hf, home / "mlflow-100m"), [text], params)


def _save_mlflow(hf: Path, folder: Path) -> Path:
    """Save the model as the tutorials do, but with a signature and a prompt template."""
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
        str(folder),
        task="text-generation",
        signature=mlflow.models.infer_signature(["q"], ["a"], params=params),
        prompt_template=PROMPT_TEMPLATE,
        pip_requirements=["transformers"],
    )
    return folder


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
    """Return the requests per second of all clients together. Each keeps one connection."""
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
    """Return the latencies of requests that are sent one at a time."""
    latencies = []
    with contextlib.closing(server.connect()) as connection:
        for number in range(times):
            start = time.perf_counter()
            ask(model, connection, number)
            latencies.append((time.perf_counter() - start) * 1000)
    return latencies


def stream_milliseconds(model: Model, server: Server) -> tuple[float, float]:
    """Return the time until the first text and until the end of a streamed answer."""
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
    """Return the memory of all of the server's processes. Shared pages count once (PSS)."""
    import psutil

    process = psutil.Process(server.process.pid)
    processes = [process, *process.children(recursive=True)]
    return sum(process.memory_full_info().pss for process in processes) / 2**20


@contextlib.contextmanager
def both(model: Model, home: Path, workers: int) -> Iterator[tuple[dict[str, Server], Any]]:
    """Start our server, then the peer's. Yield both, and the seconds that their starts took."""
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
    """Return one result per server and round. The first round is a warm-up and is not counted."""
    results: dict[str, list[Any]] = {name: [] for name in servers}
    for number in range(rounds + 1):
        for name, server in servers.items():
            result = measure(server)
            if number:
                results[name].append(result)
    return results


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
            equal = sum(ask(model, ours, n) == ask(model, peer, n) for n in questions)
        yield Row(f"{label}, equal answers", "of them", equal, len(questions), PYFUNC, 0.9, True)
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
            first, full = (statistics.median(column) for column in zip(*pairs))
            yield Row(f"{label}, first text", "ms", first, full, "the full answer", 0.2)
        yield Row(f"{label}, cold start", "s", *cold.values(), PYFUNC)
        memory = [memory_mib(server) for server in servers.values()]
        yield Row(f"{label}, memory", "MiB", *memory, PYFUNC)


def export(model: Model, precision: str) -> tuple[Path, float]:
    """Export the model as its first start does. Return the folder and the seconds that it took."""
    from model_files import ModelFiles
    from onnx_export import ensure_export

    start = time.perf_counter()
    folder = ensure_export(ModelFiles(model.hf, model.hf), precision)
    return folder, time.perf_counter() - start


def int4_row(model: Model) -> Row:
    """Count the answers of int4 that match those of fp32, with the eval flow's metric."""
    from engine import BatchingEngine
    from engine_onnx import OnnxBackend
    from sampling import GenerationParams

    from phi3_tools.evaluation.metrics import exact_match

    answers = []
    for precision in ("int4", "fp32"):
        engine = BatchingEngine(OnnxBackend(export(model, precision)[0]))
        prompts = [engine.render([{"role": "user", "content": q}]) for q in model.questions]
        completions = []
        for start in range(0, len(prompts), 100):
            ids = [engine.encode(prompt) for prompt in prompts[start : start + 100]]
            completions += engine.generate(ids, GenerationParams(max_new_tokens=64))
        answers.append([completion.text for completion in completions])
        engine.close()
    matches = sum(exact_match(int4, fp32) for int4, fp32 in zip(*answers))
    return Row("quickstart, int4", "matches", matches, len(model.questions), "fp32's answers")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the rows to this file"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="measured rounds (default: %(default)s)"
    )
    parser.add_argument(
        "--epochs", type=int, default=14, help="training epochs (default: %(default)s)"
    )
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
            print(f"{label}: exported in {export(model, 'fp32')[1]:.0f} s", file=sys.stderr)
            if label == "quickstart":
                rows.append(int4_row(model))
            rows += rows_of(model, label, home, workers, args.rounds)
    return report(rows, args.json)


if __name__ == "__main__":
    sys.exit(main())
