"""The serving code stands alone: it is imported as Azure does, from its own folder."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "serving"))


@pytest.fixture(scope="session")
def scorer(tiny_model_dir):
    import score

    scorer = score.load(tiny_model_dir)
    yield scorer
    scorer.close()


@pytest.fixture(scope="session")
def tokenizer(scorer):
    return scorer.engine._backend.tokenizer
