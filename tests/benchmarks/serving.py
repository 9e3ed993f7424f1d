"""Measures how fast score.py serves a real model, beside the best other servers.

    python tests/benchmarks/serving.py --json bench/serving.json
    python tests/benchmarks/serving.py --quick --only int4 --work /tmp/serving --scenarios short
    python tests/benchmarks/serving.py --only fp16 --ours   # only our server, without peers

The model is SmolLM2-135M-Instruct as a Phi-3 (`phi3 models`). Azure's inference server runs score.py.
The peers are llama.cpp's server, OpenVINO GenAI, transformers' continuous batching, and MLflow's
pyfunc, which Azure runs for a model that is deployed without a scoring script. All servers run on the
same cores, get the same prompts over HTTP, and generate 64 tokens per answer, greedily and without
regard to end tokens; the number of prompt tokens and of generated tokens is checked. They are measured
in turns. A precision class has one row per figure, beside the best peer of the class. The class
`schema` compares answers in JSON with free ones, both of our server. The servers' settings are in
_serving/servers.py. Exits with 1 if a limit is missed.

Keep `--work` between runs: the GGUF files and our exports are made only once.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "support")]

from _serving import servers  # noqa: E402
from _serving.measure import SCENARIOS, Entry, measure  # noqa: E402
from _serving.models import Models  # noqa: E402
from _serving.results import print_table, rows_of  # noqa: E402

from bench_rows import Row, report  # noqa: E402

SHORT = [scenario.name for scenario in SCENARIOS if scenario.name.startswith("short")]
CLASSES = {
    "fp16": [
        Entry(servers.ours("fp16")),
        Entry(servers.ours("fp32"), rounds=1),
        Entry(servers.llama_cpp("F16")),
        Entry(servers.openvino("F16", "INFERENCE_PRECISION_HINT=f32")),
        Entry(servers.transformers(), SHORT, rounds=1),
        Entry(servers.pyfunc(), ["short, 1 client", "short, 4 clients"], rounds=1),
    ],
    "int8": [
        Entry(servers.ours("int8")),
        Entry(servers.ours("int8", "bf16")),
        Entry(servers.llama_cpp("Q8_0")),
        Entry(servers.openvino("Q8_0")),
    ],
    "int4": [
        Entry(servers.ours("int4")),
        Entry(servers.ours("int4", "bf16")),
        Entry(servers.llama_cpp("Q4_1")),
        Entry(servers.openvino("Q4_1")),
    ],
    "schema": [Entry(servers.ours("fp16")), Entry(servers.ours("fp16", with_schema=True))],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the rows to this file"
    )
    parser.add_argument("--quick", action="store_true", help="measure one round of each scenario")
    parser.add_argument(
        "--only", choices=CLASSES, action="append", help="precision class; may be repeated"
    )
    parser.add_argument(
        "--scenarios", default="", metavar="TEXT", help="measure only scenarios that contain it"
    )
    parser.add_argument("--ours", action="store_true", help="measure our server only")
    parser.add_argument(
        "--work", type=Path, metavar="FOLDER", help="folder for the models, kept between runs"
    )
    args = parser.parse_args()
    # An ended benchmark stops its servers.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    names = [item.name for item in SCENARIOS if args.scenarios in item.name]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        models = Models(args.work or Path(folder) / "models")
        for precision in args.only or CLASSES:
            entries: Sequence[Entry] = CLASSES[precision]
            if args.ours and precision != "schema":
                entries = entries[:1]
            home = Path(folder) / precision
            figures = measure(entries, models, home, 1 if args.quick else 99, names)
            if figures:
                print_table(precision, figures)
            rows += rows_of(precision, figures)
    return report(rows, args.json)


if __name__ == "__main__":
    sys.exit(main())
