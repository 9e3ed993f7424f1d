"""OpenVINO does not report its use."""

import os
import subprocess
import sys
from pathlib import Path

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


def test_usage_is_not_reported(scorer, tiny_model_dir, tmp_path):
    """OpenVINO keeps an identifier in the home folder when it reports its use.

    scorer: the model has been exported.
    """
    # The rest of this environment is left out: a variable that tells of a CI disables reports, too.
    environment = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    environment |= {"HOME": str(tmp_path), "PHI3_ENGINE": "openvino", "HF_HUB_OFFLINE": "1"}
    # This proxy does not exist, so that a report of a test is never sent.
    environment["HTTPS_PROXY"] = "http://127.0.0.1:9"
    command = [sys.executable, "-c", ANSWER, str(SERVING), str(tiny_model_dir)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "1"
    assert not [path for path in tmp_path.rglob("*") if "intel" in str(path).lower()]


SIGNAL = """
import gc, signal, sys, threading
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from score import load
signal.signal(signal.SIGTERM, lambda number, frame: print("handled"))
first, second = load(Path(sys.argv[2])), load(Path(sys.argv[2]))
first.close()
del first
gc.collect()
closing = threading.Thread(target=second.close)
closing.start()
closing.join()
del second
gc.collect()
signal.raise_signal(signal.SIGTERM)
"""


def test_a_signal_is_handled_after_models_are_closed(scorer, tiny_model_dir):
    """scorer: the model has been exported."""
    environment = {**os.environ, "PHI3_ENGINE": "openvino"}
    command = [
        sys.executable,
        "-X",
        "faulthandler",
        "-c",
        SIGNAL,
        str(SERVING),
        str(tiny_model_dir),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
