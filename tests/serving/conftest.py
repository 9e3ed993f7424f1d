"""Imports the serving code as Azure does, from its own folder, and loads the tiny model with it."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "serving"))


def load(model_dir, engine):
    """Load the model with one engine; a test must not fall back to the other one unnoticed."""
    import score

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHI3_ENGINE", engine)
        return score.load(model_dir)


@pytest.fixture
def make_engine():
    """Makes engines over a `ByteBackend`."""
    from engine import BatchingEngine

    from byte_backend import ByteBackend

    engines = []

    def make(*args, max_waiting=256, **backend_options):
        engines.append(BatchingEngine(ByteBackend(*args, **backend_options), max_waiting))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture(scope="session")
def scorer(tiny_model_dir):
    scorer = load(tiny_model_dir, "openvino")
    yield scorer
    scorer.close()


@pytest.fixture(scope="session", params=["openvino", "transformers"])
def each_engine(request, tiny_model_dir):
    """The tiny model in an engine, once with each backend."""
    scorer = load(tiny_model_dir, request.param)
    yield scorer.engine
    scorer.close()


@pytest.fixture(scope="session")
def tokenizer(tiny_model_dir):
    from engine_transformers import load_tokenizer

    return load_tokenizer(tiny_model_dir)
