"""`phi3 export`."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import paths
from ..terminal import print_text
from ._progress import progress_display
from ._records import add_json, messages_to_stderr, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..take_home import EvaluatedModel, ExportedModel

FORMATS = ("gguf", "ollama", "foundry-local", "onnx")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write a model for programs that run it elsewhere: GGUF files for llama.cpp and LM Studio, GGUF "
        "files with a Modelfile for Ollama, an ONNX folder for Foundry Local or ONNX Runtime GenAI. "
        "docs/take-home.md says how to use them."
    )
    parser.add_argument(
        "model",
        nargs="?",
        default=str(paths.WORKDIR / "model"),
        metavar="MODEL",
        help="folder of a model or of phi3 finetune, smollm2, or a GGUF file (default: %(default)s)",
    )
    parser.add_argument("--to", choices=FORMATS, required=True, help="format of the export")
    parser.add_argument(
        "--quant",
        type=_names,
        default=(),
        metavar="NAME,…",
        help="quantizations: f32, f16, bf16, q8_0, q6_k, q5_k_m, q4_k_m and others of llama.cpp "
        "(default: q4_k_m); int4 or fp32 for foundry-local and onnx (default: int4)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder to write (default: .phi3/take-home/FORMAT)",
    )
    parser.add_argument("--name", help="name of the exported model (default: the model's own)")
    parser.add_argument(
        "--system",
        metavar="TEXT",
        help="system message of the Modelfile (default: that of the chat template)",
    )
    _add_evaluation(parser)
    add_json(parser)


def _add_evaluation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--evaluate",
        nargs="?",
        const=paths.WORKDIR / "data" / "questions.jsonl",
        type=Path,
        metavar="FILE",
        help="ask the exported GGUF files and the model the questions of this file and score the answers "
        "with flows/eval (default: .phi3/data/questions.jsonl)",
    )
    parser.add_argument(
        "--base", metavar="MODEL", help="with --evaluate: score this model too, for example smollm2"
    )


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip().lower() for name in text.split(","))
    if not all(names):
        raise argparse.ArgumentTypeError("use names separated by commas, for example q8_0,q4_k_m")
    return names


def run(args: argparse.Namespace) -> int:
    from ..errors import OpsError
    from ..take_home import check_evaluation_of_export, export_model

    if args.base and not args.evaluate:
        raise OpsError("--base has no effect without --evaluate", "Add --evaluate.")
    if args.system is not None and args.to != "ollama":
        raise OpsError(f"--system has no effect with --to {args.to}", "Use --to ollama.")
    if args.evaluate:
        check_evaluation_of_export(args.to, args.evaluate)
    with messages_to_stderr(args.json):
        exported = export_model(
            args.model,
            args.to,
            args.quant,
            args.out or paths.WORKDIR / "take-home" / args.to,
            name=args.name,
            system=args.system,
            notify=_notify,
        )
        _print_export(exported)
        models = _evaluate(args, exported) if args.evaluate else []
    if args.json:
        _print_json(exported, models)
    return 0


def _notify(message: str) -> None:
    print_text(message, to_stderr=True)


def _print_export(exported: ExportedModel) -> None:
    for file in exported.files:
        print_text(f"wrote {exported.folder / file.name} ({_megabytes(file.size)} MB)")
    for note in exported.notes:
        print_text(f"note: {note}")
    print_text(f"{exported.folder / 'README.md'} says how to run it")


def _megabytes(size: int) -> str:
    return f"{size / 10**6:,.0f}"


def _evaluate(args: argparse.Namespace, exported: ExportedModel) -> Sequence[EvaluatedModel]:
    """Score the models, and print a table."""
    from ..take_home import evaluate_export

    with progress_display() as display:
        models = evaluate_export(
            exported,
            args.model,
            args.evaluate,
            base=args.base,
            notify=_notify,
            on_progress=display,
        )
    kinds = list(models[0].exact_match)
    records: list[dict[str, Any]] = [
        {
            "model": model.name,
            "MB": _megabytes(model.size),
            **{f"exact match, {kind}": f"{model.exact_match[kind].mean:.1%}" for kind in kinds},
            **{f"F1, {kind}": f"{model.token_f1[kind].mean:.1%}" for kind in kinds},
            "failed": model.failed,
        }
        for model in models
    ]
    columns = list(records[0])
    print_table(records, columns, right=columns[1:])
    for model in models:
        print_text(f"{model.name}: runs {' and '.join(model.runs)}")
    return models


def _print_json(exported: ExportedModel, models: Sequence[EvaluatedModel]) -> None:
    items = [
        {
            "model": model.name,
            "size": model.size,
            "exact_match": {kind: asdict(mean) for kind, mean in model.exact_match.items()},
            "token_f1": {kind: asdict(mean) for kind, mean in model.token_f1.items()},
            "failed": model.failed,
            "runs": model.runs,
        }
        for model in models
    ]
    print_json(
        items,
        name=exported.name,
        folder=str(exported.folder),
        files=[asdict(file) for file in exported.files],
        notes=exported.notes,
    )
