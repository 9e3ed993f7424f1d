"""`phi3 models`."""

from __future__ import annotations

import argparse

from ..terminal import print_text
from ._records import add_json, print_json, print_table

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
    add_json(action)


def run(args: argparse.Namespace) -> int:
    if args.fetch:
        return _fetch(args.fetch)
    if args.remove:
        return _remove(args.remove)
    return _list(as_json=args.json)


def _list(*, as_json: bool) -> int:
    from ..models import SHORT_NAMES, list_models

    models = list_models()
    records = [
        {
            "name": model.name,
            "model": model.title,
            "size": model.size,
            "licence": model.licence,
            "source": model.source,
        }
        for model in models
    ]
    missing = [name for name in SHORT_NAMES if name not in {model.name for model in models}]
    if as_json:
        print_json(records, not_fetched=missing)
        return 0
    formats = {"size": _megabytes, "licence": lambda licence: licence or "unknown"}
    if records:
        print_table(records, COLUMNS, formats=formats, right=["size"])
    for name in missing:
        title = SHORT_NAMES[name].title
        print_text(
            f"{name} ({title}) is fetched when it is first used, or by phi3 models --fetch {name}"
        )
    return 0


def _megabytes(size: int) -> str:
    return f"{size / 10**6:,.0f} MB"


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
