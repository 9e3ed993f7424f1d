"""Journeys of a real pretrained model, SmolLM2-135M-Instruct, through several rooms at once.

All tests share one conversion, one export for OpenVINO and one GGUF file. These stay in the
checkout, see `tests/support/smollm2.py`. All answers are greedy.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("scripts/serving", "tests/benchmarks", "tests/training")
sys.path += [str(ROOT / folder) for folder in FOLDERS]

from smollm2 import SMOLLM2_CACHE  # noqa: E402
from tiny_endpoint import KEY, running  # noqa: E402

CONNECTION = "smollm2"


@pytest.fixture(scope="session")
def prompts() -> list[str]:
    """Thirty everyday prompts."""
    return (Path(__file__).parent / "prompts.txt").read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="session")
def tokenizer(smollm2_folder: Path) -> Any:
    """The model's tokenizer, as transformers loads it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smollm2_folder)


@contextmanager
def openvino_fp32() -> Iterator[None]:
    """Inside the block, a model that is loaded runs in OpenVINO as fp32, or is not loaded at all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHI3_ENGINE", "openvino")
        patch.setenv("PHI3_PRECISION", "fp32")
        yield


@pytest.fixture(scope="module")
def engine(smollm2_folder: Path) -> Iterator[Any]:
    """The model in OpenVINO, fp32."""
    import score

    with openvino_fp32():
        scorer = score.load(smollm2_folder)
    yield scorer.engine
    scorer.close()


@pytest.fixture(scope="session")
def endpoint(smollm2_folder: Path) -> Iterator[str]:
    """The base URL of a local endpoint that serves the model with OpenVINO, fp32."""
    with ExitStack() as stack:
        with openvino_fp32():
            url = stack.enter_context(running(smollm2_folder))
        yield url


@pytest.fixture(scope="session")
def connection(endpoint: str) -> Iterator[str]:
    """The name of a connection to the endpoint, in Prompt flow's store."""
    from phi3_ops.pf.connections import delete_connection, save_connection

    save_connection(CONNECTION, {"endpoint": f"{endpoint}/score", "contract": "chat"}, KEY)
    yield CONNECTION
    delete_connection(CONNECTION)


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """The original GGUF file, with all weights as float32."""
    from _serving.models import Models

    return Models(SMOLLM2_CACHE / "gguf").gguf("F32")
