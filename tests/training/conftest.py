"""Import the training code as Azure does: from its own folder."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "scripts" / "training")]

from training_run import ROWS, TINY_RECIPE, command, environment, write_rows  # noqa: E402

Run = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JSONL file with ROWS and a column that training ignores."""
    rows = [{**row, "prompt": "a column to ignore"} for row in ROWS]
    return write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", rows)


@pytest.fixture(scope="session")
def train_cli(rows_file: Path) -> Run:
    """A function that runs the real command line in its own process."""

    def run(out: Path, *extra: str, recipe: Path = TINY_RECIPE) -> subprocess.CompletedProcess:
        return subprocess.run(
            command(rows_file, out, *extra, recipe=recipe),
            capture_output=True,
            text=True,
            timeout=300,
            env=environment(),
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def trained(train_cli: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that knows four capitals; the run's output is in output.txt beside it."""
    out = tmp_path_factory.mktemp("trained") / "out"
    finished = train_cli(out, "--epochs", "60")
    assert finished.returncode == 0, finished.stderr
    output = finished.stdout + finished.stderr
    (out.parent / "output.txt").write_text(output, encoding="utf-8")
    return out
