"""Azure ML's parallel driver, one process: python parallel_run.py FLOW DATA OUTPUT SIZE TRIES ARGUMENT…

It cuts the data into mini-batches and gives each one to promptflow-parallel, Microsoft's own package,
as the nodes of a cluster do. The further arguments are that package's. A mini-batch that raises is
repeated until it has been tried TRIES times. If every mini-batch succeeded, the files of the processes
are joined into one; otherwise the exit code is 1.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

FILE = "parallel_run_step.jsonl"


def main(flow: Path, data: Path, output: Path, size: int, tries: int, arguments: list[str]) -> int:
    from promptflow.parallel.processor import create_processor

    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    processor = create_processor(
        flow, [*arguments, "--input_asset_data", str(data), "--output", str(output)]
    )
    processor.init()
    part, failed = output / f"temp_0_0_{FILE}", 0
    part.touch()
    for index, start in enumerate(range(0, len(rows), size)):
        context = SimpleNamespace(minibatch_index=index, global_row_index_lower_bound=start)
        for left in reversed(range(tries)):
            try:
                answers = processor.process(rows[start : start + size], context)
            except Exception as error:
                print(f"mini-batch {index} failed: {error}", file=sys.stderr)
                failed += not left
            else:
                with part.open("a", encoding="utf-8") as file:
                    file.writelines(f"{answer}\n" for answer in answers)
                break
    if failed:
        return 1
    processor.finalize()
    part.rename(output / FILE)
    return 0


if __name__ == "__main__":
    paths, numbers = map(Path, sys.argv[1:4]), map(int, sys.argv[4:6])
    sys.exit(main(*paths, *numbers, sys.argv[6:]))
