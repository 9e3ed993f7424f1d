"""`phi3 models`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..terminal import console, print_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..models import CachedModel

COLUMNS = ("name", "model", "size", "licence", "source")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List the models that were converted for this user: those with a short name, and GGUF files. "
        "They are in PHI3_CACHE, by default in ~/.cache/phi3, and all projects share them."
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "--fetch",
        metavar="MODEL",
        help="fetch and convert a model now: smollm2, or a GGUF file",
    )
    action.add_argument("--remove", metavar="NAME", help="remove a model from the cache")


def run(args: argparse.Namespace) -> int:
    if args.fetch:
        return _fetch(args.fetch)
    if args.remove:
        return _remove(args.remove)
    return _list()


def _list() -> int:
    from ..models import SHORT_NAMES, list_models

    models = list_models()
    console().print(_table(models))
    missing = [name for name in SHORT_NAMES if name not in {model.name for model in models}]
    for name in missing:
        title = SHORT_NAMES[name].title
        print_text(
            f"{name} ({title}) is fetched when it is first used, or by phi3 models --fetch {name}"
        )
    return 0


def _table(models: Sequence[CachedModel]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, overflow="fold", justify="right" if column == "size" else "left")
    for model in models:
        size = f"{model.size / 10**6:,.0f} MB"
        table.add_row(model.name, model.title, size, model.licence or "unknown", model.source)
    return table


def _fetch(model: str) -> int:
    from ..errors import OpsError
    from ..models import SHORT_NAMES, is_converted_here, resolve_model

    if not is_converted_here(model):
        known = ", ".join(SHORT_NAMES)
        raise OpsError(f"{model!r} is not fetched by this command", f"Use {known}, or a GGUF file.")
    print_text(resolve_model(model))
    return 0


def _remove(name: str) -> int:
    from ..models import remove_model

    remaining = remove_model(name)
    print_text(f"removed {name}")
    for path in remaining:
        print_text(f"kept {path}: phi3 did not write it")
    return 0
