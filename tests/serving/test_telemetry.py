"""The runtime reports to Microsoft how it is used, unless it is told not to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SERVING = Path(__file__).resolve().parents[2] / "scripts" / "serving"
ANSWER = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from score import load
scorer = load(Path(sys.argv[2]))
print(len(scorer.answer({"input_data": ["a"], "params": {"max_new_tokens": 2}})))
scorer.close()
"""


@pytest.mark.parametrize(("chosen", "reports"), [(None, False), ("0", True)])
def test_nothing_is_reported_but_by_choice(scorer, tiny_model_dir, tmp_path, chosen, reports):
    """Its reports lie below the home folder until they are sent. scorer: the model is exported."""
    # Nothing of this environment: what says that it is a CI's keeps the runtime from it too.
    environment = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    environment |= {"HOME": str(tmp_path), "PHI3_ENGINE": "onnx", "HF_HUB_OFFLINE": "1"}
    # A proxy that nobody listens at: should it report, it is not from a test.
    environment["HTTPS_PROXY"] = "http://127.0.0.1:9"
    if chosen:
        environment["ORT_DISABLE_TELEMETRY"] = chosen
    command = [sys.executable, "-c", ANSWER, str(SERVING), str(tiny_model_dir)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "1"
    assert any("onnxruntime" in str(path) for path in tmp_path.rglob("*")) == reports
