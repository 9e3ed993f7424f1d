"""The model card: what a reader of the model's folder wants to know, written from the run itself."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inputs import HUB_ID, TINY, Recipe

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

TEMPLATE = Path(__file__).with_name("card.md.jinja")
NAME = "README.md"  # where the hub looks for it
MANIFEST = "manifest.json"  # what `phi3 data` writes beside the rows
# Every Phi-3, 3.5 and 4 of Microsoft's on the hub is under the MIT licence, as their cards say.
MICROSOFT_PHI = re.compile(r"microsoft/phi-[34]", re.IGNORECASE)
OWN = "There is no base whose licence would hold: the weights were random before this run."
UNKNOWN = "That of its base, which this run could not tell: see there before you pass it on."


def write(
    folder: Path,
    *,
    recipe: Recipe,
    metrics: dict[str, Any],
    train_file: Path,
    samples: Sequence[dict[str, Any]] = (),
    picture: str | None = None,
) -> None:
    """Write the model card into a model's folder.

    Args:
        folder: the model's; gets README.md.
        recipe: as it was run.
        metrics: what metrics.json holds.
        train_file: beside it may lie the data's manifest.json.
        samples: the sample answers of all epochs; no other row of the data is quoted.
        picture: the loss curve's file in `folder`.

    Source of the front matter: "Model Cards" of the Hugging Face Hub's documentation.
    """
    from jinja2 import Environment, StrictUndefined
    from yaml import safe_dump

    licence = base_licence(recipe.model)
    # A folder's path means nothing anywhere else; metrics have its name.
    settings = {key: value for key, value in asdict(recipe).items() if value is not None}
    settings["model"] = metrics["model"]
    environment = Environment(  # noqa: S701 - Markdown, not HTML
        undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        front=front_matter(recipe, licence).to_yaml().strip(),
        base="A tiny random Phi-3" if recipe.model == TINY else metrics["model"],
        licence=OWN if recipe.model == TINY else _sentence(licence),
        lora=recipe.lora is not None,
        metrics=metrics,
        settings=safe_dump(settings, sort_keys=False, allow_unicode=True).strip(),
        manifest=read_manifest(train_file),
        samples=before_and_after(samples),
        picture=picture,
    )
    (folder / NAME).write_text(text.lstrip(), encoding="utf-8")


def front_matter(recipe: Recipe, licence: str | None) -> ModelCardData:
    """What the hub reads. A base that is no hub id is left out: the hub would look for it."""
    from huggingface_hub import ModelCardData

    on_hub = bool(HUB_ID.fullmatch(recipe.model)) and not Path(recipe.model).is_dir()
    return ModelCardData(
        license=licence,
        base_model=recipe.model if on_hub else None,
        base_model_relation="finetune" if on_hub else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["phi3", "conversational", "sft", "trl", *(["lora"] if recipe.lora else [])],
    )


def base_licence(model: str) -> str | None:
    """The identifier of the base's licence: by its own card, or as Microsoft's; None if unknown."""
    card = Path(model) / NAME
    if card.is_file():
        from huggingface_hub import metadata_load

        return (metadata_load(card) or {}).get("license")
    return "mit" if MICROSOFT_PHI.match(model) else None


def _sentence(licence: str | None) -> str:
    if licence is None:
        return UNKNOWN
    return f"`{licence}`, as its base: keep the base's copyright notice with every copy."


def read_manifest(train_file: Path) -> dict[str, str]:
    """The manifest beside the rows, each entry on a line; nothing where it is not of these rows."""
    try:
        manifest = json.loads(train_file.with_name(MANIFEST).read_text(encoding="utf-8"))
        expected = manifest["sha256"][train_file.name]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    if hashlib.sha256(train_file.read_bytes()).hexdigest() != expected:
        return {}
    return {name: _text(value) for name, value in manifest.items()}


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_text(inner)}" for name, inner in value.items())
    return str(value)


def before_and_after(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each question its last answer, and as `base` the one of epoch 0."""
    base = {row["question"]: row["answer"] for row in samples if row["epoch"] == 0}
    last = {row["question"]: row for row in samples if row["epoch"] > 0}
    return [{**row, "base": base.get(question, "")} for question, row in last.items()]
