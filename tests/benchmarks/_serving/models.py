"""Prepares the model in the formats that the servers load."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from phi3_ops.models import SHORT_NAMES, resolve_model
from phi3_ops.models.wheel import model_file

from .gguf_files import convert

NAME = "smollm2"
NEVER_GENERATED = "<|endoftext|>"


@dataclass(frozen=True)
class Models:
    """The real model, SmolLM2 as Phi-3, in several formats. Files that exist are used again.

    The copy that is served has another end token, one that the model does not generate, so that all
    answers have the same length.

    Attributes:
        folder: folder for all files.
    """

    folder: Path

    @cached_property
    def hf(self) -> Path:
        """The model as a Hugging Face folder."""
        target = self.folder / NAME
        source = resolve_model(NAME)
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for file in source.iterdir():
            if file.suffix == ".safetensors":
                os.symlink(file.resolve(), target / file.name)
            elif file.suffix in (".json", ".jinja"):
                shutil.copyfile(file, target / file.name)
        tokens = json.loads((target / "tokenizer.json").read_text("utf-8"))["added_tokens"]
        end = next(token["id"] for token in tokens if token["content"] == NEVER_GENERATED)
        _update(target / "tokenizer_config.json", eos_token=NEVER_GENERATED)
        _update(target / "config.json", eos_token_id=end)
        _update(target / "generation_config.json", eos_token_id=end)
        return target

    def gguf(self, kind: str) -> Path:
        """Return the model as a GGUF file: F32, F16, Q8_0, or Q4_1, which is the published file."""
        source = self.folder / "model-Q4_1.gguf"
        if not source.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            with model_file(SHORT_NAMES[NAME], self.folder / ".download") as file:
                shutil.copyfile(file, source)
        return (
            source if kind == "Q4_1" else convert(source, self.folder / f"model-{kind}.gguf", kind)
        )

    @cached_property
    def mlflow(self) -> Path:
        """The model as an MLflow model, saved as the tutorials do, but with a signature."""
        os.environ.update(HF_HUB_OFFLINE="1", MLFLOW_DISABLE_TELEMETRY="true")
        import mlflow
        from transformers import AutoModelForCausalLM, AutoTokenizer

        target = self.folder / "mlflow"
        shutil.rmtree(target, ignore_errors=True)
        parts = {
            "model": AutoModelForCausalLM.from_pretrained(self.hf),
            "tokenizer": AutoTokenizer.from_pretrained(self.hf),
        }
        params = {
            "max_new_tokens": 64,
            "min_new_tokens": 64,
            "do_sample": False,
            "return_full_text": False,
        }
        mlflow.transformers.save_model(
            parts,
            str(target),
            task="text-generation",
            signature=mlflow.models.infer_signature(["q"], ["a"], params=params),
            pip_requirements=["transformers"],
        )
        return target


def _update(file: Path, **values: object) -> None:
    settings = json.loads(file.read_text("utf-8"))
    settings.update(values)
    file.write_text(json.dumps(settings, indent=2), "utf-8")
