"""Measures what a line costs in the engine itself, compared with promptflow's executor.

    python tests/benchmarks/line_overhead.py --json bench/line_overhead.json

Both engines run in one process and in turns, so that other load on the machine affects both. The flows
call no endpoint: flows/eval, and a chain of three nodes that return their input. Exits with 1 if a limit
is missed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = ROOT / "tests" / "support"
sys.path.insert(0, str(SUPPORT))

from bench_rows import Row, report  # noqa: E402
from stores import make_store  # noqa: E402

ROUNDS, WARM_UP = 300, 30
MAX_RATIO = 0.5
ECHO = """\
from phi3_tools.flow import tool


@tool
def echo(text: str) -> str:
    return text
"""
CHAIN = """\
inputs: {text: {type: string}}
outputs: {text: {type: string, reference: "${third.output}"}}
nodes:
- name: first
  type: python
  source: {type: code, path: echo.py}
  inputs: {text: "${inputs.text}"}
- name: second
  type: python
  source: {type: code, path: echo.py}
  inputs: {text: "${first.output}"}
- name: third
  type: python
  source: {type: code, path: echo.py}
  inputs: {text: "${second.output}"}
"""
EVAL_INPUTS = {"answer": "It was Bill Gates.", "ground_truth": "Bill Gates and Paul Allen."}


def timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(name: str, folder: Path, inputs: Mapping[str, Any]) -> Row:
    """Return the median milliseconds of a line in both engines."""
    from phi3_ops.pf.executor import PromptflowExecutor
    from phi3_tools.flow import Engine, load_flow

    theirs = PromptflowExecutor(folder, {}.__getitem__)
    samples: tuple[list[float], list[float]] = ([], [])
    with Engine(load_flow(folder)) as engine:
        assert engine.run(inputs).outputs == theirs.run(inputs).outputs
        for number in range(ROUNDS + WARM_UP):
            pair = timed(lambda: engine.run(inputs)), timed(lambda: theirs.run(inputs))
            if number >= WARM_UP:
                for sample, seconds in zip(samples, pair):
                    sample.append(seconds * 1000)
    ours, peer = map(statistics.median, samples)
    return Row(f"a line of {name}", "ms", ours, peer, "promptflow's executor", MAX_RATIO)


def rows(folder: Path) -> Iterator[Row]:
    chain = folder / "chain"
    chain.mkdir()
    (chain / "flow.dag.yaml").write_text(CHAIN)
    (chain / "echo.py").write_text(ECHO)
    yield measure("three nodes", chain, {"text": "x"})
    yield measure("flows/eval", ROOT / "flows" / "eval", EVAL_INPUTS)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the rows to this file"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PF_HOME_DIRECTORY"] = str(make_store(Path(folder) / "store"))
        measured = list(rows(Path(folder)))
    return report(measured, args.json)


if __name__ == "__main__":
    sys.exit(main())
