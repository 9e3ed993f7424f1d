"""Write the model card: what a reader of the model's folder needs to know about the run."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inputs import HUB_ID, Recipe, evenly_spaced
from metrics import Metrics
from recipe_checks import TINY
from start import ADAPTER_CONFIG, HASH_BLOCK

if TYPE_CHECKING:
    from general import AnswerPair
    from huggingface_hub import ModelCardData
    from samples import SampleAnswer

TEMPLATE = Path(__file__).with_name("card.md.jinja")
CARD_NAME = "README.md"  # the name that the hub expects
MANIFEST = "manifest.json"  # `phi3 data` writes it beside the rows
# The model cards of all Microsoft Phi-3, Phi-3.5 and Phi-4 models on the hub name the MIT licence.
MICROSOFT_PHI = re.compile(r"microsoft/phi-[34]", re.IGNORECASE)
NO_BASE_LICENCE = "The base has no licence: its weights were random before this run."
BASE_FILE = "phi3-base.json"  # gguf_model.py writes it into a converted base
MAX_GENERAL_ANSWERS = 10  # in the card; general.jsonl has all of them
UNKNOWN_LICENCE = "The base's licence is unknown to this run: check it before you share the model."


@dataclass(frozen=True)
class AnswerComparison:
    """The base's and the fine-tuned model's answers to one question."""

    question: str
    reference: str
    base_answer: str
    tuned_answer: str


def write(
    folder: Path,
    *,
    recipe: Recipe,
    metrics: Metrics,
    train_file: Path,
    samples: Sequence[SampleAnswer] = (),
    general: Sequence[AnswerPair] = (),
    picture: str | None = None,
    overfitting: str = "",
) -> None:
    """Write the model card into a model's folder.

    Source of the front matter: "Model Cards" of the Hugging Face Hub's documentation.

    Args:
        folder: the model's folder; the card is its README.md.
        recipe: recipe of the run.
        metrics: metrics of the run.
        train_file: training file; the card includes the manifest.json beside it.
        samples: sample answers of all epochs. The card quotes no other rows of the data.
        general: answers to the general chats.
        picture: name of the loss curve's file in `folder`.
        overfitting: a sentence about over-fitting, or "".
    """
    from jinja2 import Environment, StrictUndefined
    from yaml import safe_dump

    licence = base_licence(recipe.model)
    is_adapter = (folder / ADAPTER_CONFIG).is_file()
    settings = {key: value for key, value in asdict(recipe).items() if value is not None}
    settings["model"] = metrics.model  # without the folder's path, which is useless elsewhere
    environment = Environment(  # noqa: S701 - Markdown, not HTML
        undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        front_matter=front_matter(recipe, licence, is_adapter).to_yaml().strip(),
        base=base_name(recipe.model, metrics.model),
        licence=NO_BASE_LICENCE if recipe.model == TINY else _licence_sentence(licence),
        provenance=read_provenance(recipe.model),
        lora=recipe.lora is not None,
        save_dtype=recipe.save_dtype or "float32",
        metrics=metrics,
        shortened=shortened_files(metrics),
        settings=safe_dump(settings, sort_keys=False, allow_unicode=True).strip(),
        manifest={} if metrics.train_files else read_manifest(train_file),
        samples=compare_answers(samples),
        general=evenly_spaced(general, MAX_GENERAL_ANSWERS),
        picture=picture,
        overfitting=overfitting,
        is_adapter=is_adapter,
        base_id=base_id(recipe.model),
        revision=recipe.revision,
    )
    (folder / CARD_NAME).write_text(text.lstrip(), encoding="utf-8")


def shortened_files(metrics: Metrics) -> list[tuple[str, int, int, int]]:
    """Return the files of which rows were shortened: name, rows cut, rows dropped, all rows."""
    rows = metrics.streamed_rows or metrics.train_rows
    training = ("training", metrics.cut_train_rows, metrics.dropped_train_rows, rows)
    evaluation = ("evaluation", metrics.cut_eval_rows, metrics.dropped_eval_rows, metrics.eval_rows)
    return [file for file in (training, evaluation) if file[1] or file[2]]


def front_matter(recipe: Recipe, licence: str | None, is_adapter: bool = False) -> ModelCardData:
    """Return the hub's metadata. A base that is not on the hub is left out: the hub would look for it."""
    from huggingface_hub import ModelCardData

    hub_id = base_id(recipe.model)
    relation = "adapter" if is_adapter else "finetune"
    return ModelCardData(
        license=licence,
        base_model=hub_id,
        base_model_relation=relation if hub_id else None,
        library_name="peft" if is_adapter else "transformers",
        pipeline_tag="text-generation",
        tags=["phi3", "conversational", recipe.method, "trl", *(["lora"] if recipe.lora else [])],
    )


def base_id(model: str) -> str | None:
    """Return a base's id on the hub, or None if it is a folder or the tiny model."""
    on_hub = bool(HUB_ID.fullmatch(model)) and not Path(model).is_dir()
    return model if on_hub else None


def base_licence(model: str) -> str | None:
    """Return the identifier of the base's licence, or None if it is unknown.

    A base in a folder has the licence in its own model card, or in the file of its conversion. A
    Microsoft Phi has the MIT licence.
    """
    if provenance := read_provenance(model):
        return provenance.get("licence")
    card = Path(model) / CARD_NAME
    if card.is_file():
        from huggingface_hub import metadata_load

        return (metadata_load(card) or {}).get("license")
    return "mit" if MICROSOFT_PHI.match(model) else None


def base_name(model: str, short_name: str) -> str:
    """Return the base's name for people.

    Args:
        model: the recipe's model.
        short_name: the model's name without its path.
    """
    if model == TINY:
        return "A tiny random Phi-3"
    return str(read_provenance(model).get("name", short_name))


def read_provenance(model: str) -> dict[str, Any]:
    """Return what gguf_model.py wrote about a converted base, or nothing for another base."""
    try:
        content = json.loads((Path(model) / BASE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _licence_sentence(licence: str | None) -> str:
    if licence is None:
        return UNKNOWN_LICENCE
    return f"`{licence}`, like its base: keep the base's copyright notice with every copy."


def read_manifest(train_file: Path) -> dict[str, str]:
    """Return the entries of the manifest beside the rows, or nothing if it is of other rows."""
    try:
        manifest = json.loads(train_file.with_name(MANIFEST).read_text(encoding="utf-8"))
        expected_hash = manifest["sha256"][train_file.name]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    digest = hashlib.sha256()
    with train_file.open("rb") as file:
        while block := file.read(HASH_BLOCK):
            digest.update(block)
    if digest.hexdigest() != expected_hash:
        return {}
    return {name: _format_entry(value) for name, value in manifest.items()}


def _format_entry(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_format_entry(entry)}" for name, entry in value.items())
    return str(value)


def compare_answers(samples: Sequence[SampleAnswer]) -> list[AnswerComparison]:
    """Return the base's answer (epoch 0) and the last answer to each question."""
    base = {sample.question: sample.answer for sample in samples if sample.epoch == 0}
    last = {sample.question: sample for sample in samples if sample.epoch > 0}
    return [
        AnswerComparison(question, sample.reference, base.get(question, ""), sample.answer)
        for question, sample in last.items()
    ]
