"""A worker of a parallel job: python worker.py ENTRY_SCRIPT ARGUMENT…

It works like the workers of Azure ML's parallel driver (documented: "Use parallel jobs in pipelines"): it
calls `init()` once, then `run(mini_batch)` for each mini-batch, and `shutdown()` at the end. A mini-batch
is a line of standard input, a JSON list of paths. The answer is a line of standard output: the number of
items that `run` returned, or the text of its exception.
"""

import json
import os
import runpy
import sys


def main(entry_script):
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the script prints goes to the log
    sys.argv = sys.argv[1:]
    sys.path.insert(0, os.path.dirname(entry_script))
    script = runpy.run_path(entry_script)
    script["init"]()
    for line in sys.stdin:
        mini_batch = json.loads(line)
        try:
            answer = {"items": len(script["run"](mini_batch))}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
    script.get("shutdown", lambda: None)()


if __name__ == "__main__":
    main(sys.argv[1])
