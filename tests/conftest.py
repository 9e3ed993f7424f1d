"""The environment of every test: a Prompt flow store of its own, no telemetry, no hub."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
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

from smollm2 import smollm2_folder  # noqa: E402, F401 - a fixture for every folder
from tiny_model import tiny_model_dir  # noqa: E402, F401 - likewise
