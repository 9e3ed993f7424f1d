"""The environment of every test: a Prompt flow store of its own, no telemetry, no hub."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from stores import make_store

# This must happen before anything imports promptflow, which reads these variables at import. Each test
# process has one store, and one folder for code that leaves files in the system's temporary folder.
OWN = Path(tempfile.mkdtemp(prefix="phi3-tests-"))
atexit.register(shutil.rmtree, OWN, ignore_errors=True)
HOME, TEMP = make_store(OWN / "home"), OWN / "tmp"
TEMP.mkdir()
tempfile.tempdir = str(TEMP)
os.environ.update(
    {
        "TMPDIR": str(TEMP),
        "PF_HOME_DIRECTORY": str(HOME),
        "PHI3_CACHE": str(OWN / "cache"),
        "PHI3_HOME": str(OWN / "phi3"),
        "PF_TRACING_SKIP_LOCAL_SETUP": "true",
        "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED": "true",
        "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL": "true",
        "HF_HUB_OFFLINE": "1",
        "ORT_DISABLE_TELEMETRY": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
)
for name in ("PHI3_ENDPOINT", "PHI3_KEY", "PHI3_ENDPOINT_KEY", "PHI3_KEYRING"):
    os.environ.pop(name, None)

# A shell's background job ignores SIGINT, and so would all that the tests start and then interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
HANDLERS = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

import pytest  # noqa: E402

from browser import chromium  # noqa: E402, F401 - a fixture for every folder
from smollm2 import smollm2_folder  # noqa: E402, F401 - a fixture for every folder
from tiny_model import tiny_model_dir  # noqa: E402, F401 - likewise


@pytest.fixture(autouse=True)
def _signal_handlers():
    """Restore the handlers of signals before and after each test.

    Prompt flow's executor leaves one behind that ends the process, with exit code 0, three seconds after
    the next interrupt. A test that interrupts its own process would so end a worker of pytest-xdist in
    the middle of another test.
    """
    _restore_handlers()
    yield
    _restore_handlers()


def _restore_handlers() -> None:
    for number, handler in HANDLERS.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _import_path():
    """Restore `sys.path`: a flow's folder stays first on it, and may have a module named `json`."""
    before = list(sys.path)
    yield
    sys.path[:] = before
