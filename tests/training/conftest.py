"""The training code stands alone: it is imported as Azure does, from its own folder."""

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
    extra = [{**row, "prompt": "a column to ignore"} for row in ROWS]
    return write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", extra)


@pytest.fixture(scope="session")
def train_cli(rows_file: Path) -> Run:
    """Runs the real command line in a process of its own."""

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
    """A tiny model that knows four capitals; what the run said is in said.txt beside it."""
    out = tmp_path_factory.mktemp("trained") / "out"
    done = train_cli(out, "--epochs", "60")
    assert done.returncode == 0, done.stderr
    (out.parent / "said.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    return out
