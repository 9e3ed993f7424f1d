"""The serving code stands alone: it is imported as Azure does, from its own folder."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
# Not tests/ itself: tests/phi3_ops would then be found in place of the package phi3_ops.
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "scripts" / "serving")]

from tiny_model import tiny_model_dir  # noqa: E402, F401


@pytest.fixture(scope="session")
def scorer(tiny_model_dir):  # noqa: F811
    import score

    scorer = score.load(tiny_model_dir)
    yield scorer
    scorer.close()


@pytest.fixture(scope="session")
def tokenizer(scorer):
    return scorer.engine._backend.tokenizer
