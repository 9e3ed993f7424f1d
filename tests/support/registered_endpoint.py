"""A process that is registered as a local endpoint, without a model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CODE = """
import sys
from pathlib import Path
from phi3_ops.endpoint.registration import own_endpoint_name, register_endpoint
workdir, name, url = Path(sys.argv[3]), *sys.argv[4:]
with own_endpoint_name(workdir, name):
    register_endpoint(workdir, name, url, "a, b")
    print("registered", flush=True)
    input()
"""


@contextmanager
def registered_endpoint(
    workdir: Path, name: str = "tuned", url: str = "http://127.0.0.1:9/score"
) -> Iterator[subprocess.Popen[str]]:
    """Yield the process; its command line is like that of `phi3 endpoint`, and it ends with the block."""
    command = [sys.executable, "-c", CODE, "phi3_ops", "endpoint", str(workdir), name, url]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "registered\n"
            yield process
        finally:
            process.kill()
