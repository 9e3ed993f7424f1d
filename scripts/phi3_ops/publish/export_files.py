"""The files of an export: rendered templates, the flow's own files, and the wheel of its tools."""

from __future__ import annotations

import functools
import io
import json
import re
import tokenize
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any

from phi3_tools.flow import swagger

from ..errors import OpsError
from ..flows import build_tool_wheel, flow_files
from .export_code import (
    CodeNames,
    aggregated_parts,
    aggregation_codes,
    input_codes,
    node_codes,
    output_codes,
    parameter_codes,
)
from .export_flow import ExportedFlow, environment_of, read_flow
from .export_graders import grader_files
from .export_imports import without_promptflow
from .export_names import class_name, importable_path, literal, unique

TEMPLATES = Path(__file__).with_name("templates")
AGENT_FRAMEWORK, FASTAPI, EVALUATOR = "agent-framework", "fastapi", "evaluator"
REQUIREMENTS, RECORD_FILE = "requirements.txt", "EXPORT.json"
# Package pins of each form, besides those of the tools.
PACKAGES = {
    AGENT_FRAMEWORK: ("agent-framework-core", "fastapi", "uvicorn"),
    FASTAPI: ("fastapi", "uvicorn"),
    EVALUATOR: ("azure-ai-evaluation",),
}
TOOL_PACKAGES = ("requests", "urllib3", "jinja2")
TARGET_TEXTS = {
    AGENT_FRAMEWORK: "`workflow.py` is a workflow of Agent Framework with one executor per node.",
    FASTAPI: "`flow.py` is the flow as plain Python, and `app.py` serves it with FastAPI.",
    EVALUATOR: "`evaluator.py` is an evaluator class for the package azure-ai-evaluation.",
}
CONTENTS = {
    "workflow.py": "the flow as a workflow; `create_workflow()` makes one",
    "flow.py": "the flow as functions; `run_line` runs it once",
    "app.py": "the service: `/score`, also as server-sent events where the flow streams, and `/health`",
    "swagger.json": "the OpenAPI document of the service",
    "evaluate.py": "runs the flow over a JSONL file and prints its metrics",
    "evaluator.py": "the evaluator class",
    "test_parity.py": "replays a recording of the original flow and compares exactly, with pytest",
    REQUIREMENTS: "the packages that it needs",
    ".env.example": "the environment variables with the connections",
    "Dockerfile": "an image of the service",
    RECORD_FILE: "the exported version, and the hashes of the files",
}
COMMANDS = {
    "app.py": ".venv/bin/uvicorn app:app --port 8080                  # serves http://127.0.0.1:8080/score",
    "evaluate.py": ".venv/bin/python evaluate.py DATA.jsonl               # scores the lines of a file",
}
_PROMPTFLOW = re.compile(r"(phi3-)?promptflow([-_.][a-z]+)*(?![\w-])", re.IGNORECASE)
_INCLUDE = re.compile(r"(?:-r\s*|--requirement[\s=]\s*)(\S+)")
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(\[[^]]*\])?\s*([<>=!~].*)?")


def export_files(
    folder: Path, flow_version: str | None, name: str, target: str, *, has_recording: bool
) -> dict[str, bytes]:
    """Return the files of an export, by their path.

    Args:
        folder: the flow's folder.
        flow_version: the flow's version.
        name: the flow's name.
        target: `agent-framework`, `fastapi` or `evaluator`.
        has_recording: whether the export gets a recording.

    Raises:
        OpsError: the flow cannot be exported.
    """
    exported = read_flow(folder)
    files = _copied_files(folder, exported)
    generated = {
        path: text.encode()
        for path, text in _generated(exported, flow_version, name, target, has_recording).items()
    }
    if target == EVALUATOR:
        generated |= grader_files(exported.flow, files, _render)
    _require_valid_python(generated)
    if collisions := sorted(set(files) & {*generated, RECORD_FILE}):
        what = f"{folder} cannot be exported: its file {collisions[0]} has the name of a generated file"
        raise OpsError(what, "Rename the file.")
    wheel = build_tool_wheel()
    requirements = _requirements(folder, exported, target, wheel.name)
    return {
        **files,
        **generated,
        REQUIREMENTS: requirements.encode(),
        f"wheels/{wheel.name}": wheel.content,
    }


def _require_valid_python(files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        if not name.endswith(".py"):
            continue
        try:
            compile(content, name, "exec", dont_inherit=True)
        except (SyntaxError, ValueError) as error:
            what = f"the flow cannot be exported: {name} would not be valid Python: {error}"
            fix = "Give its inputs and nodes names of letters, digits and underscores."
            raise OpsError(what, fix) from error


def _copied_files(folder: Path, exported: ExportedFlow) -> dict[str, bytes]:
    """Return the flow's own files, with the imports of promptflow replaced."""
    tools = [*exported.aggregation, *(t for c in exported.nodes.values() for t in c.values())]
    node_files = {str(tool.node.path) for tool in tools if str(tool.node.path).endswith(".py")}
    files: dict[str, bytes] = {}
    for path in flow_files(folder):
        name = path.relative_to(folder).as_posix()
        if name in ("flow.dag.yaml", REQUIREMENTS):
            continue
        content = path.read_bytes()
        if path.suffix == ".py":
            encoding = _encoding_of(content, name)
            content = without_promptflow(content.decode(encoding), name).encode(encoding)
        target = importable_path(name) if name in node_files else name
        if target in files:
            raise OpsError(f"{name} would replace {target}", "Rename one of the files.")
        files[target] = content
    return files


def _encoding_of(content: bytes, name: str) -> str:
    """Return the encoding that a Python file declares; `utf-8-sig` if it has a byte order mark.

    Raises:
        OpsError: the file does not have this encoding.
    """
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        content.decode(encoding)
    except (SyntaxError, UnicodeDecodeError) as error:
        raise OpsError(f"{name} is not valid Python: {error}", "Save it as UTF-8.") from error
    return encoding


def _generated(
    exported: ExportedFlow, flow_version: str | None, name: str, target: str, has_recording: bool
) -> dict[str, str]:
    """Return the files that are made from templates."""
    flow = _flow_context(exported, flow_version, name, target)
    connections = [
        {"name": each, "prefix": _variable_prefix(each)} for each in exported.connections
    ]
    module = _module_name(target)
    files = {
        f"{module}.py": _render(f"{module}.py", flow=flow),
        "test_parity.py": _render("test_parity.py", flow=flow, has_recording=has_recording),
        ".env.example": _render("env.example", flow=flow, connections=connections),
    }
    if target == EVALUATOR:
        flow["parameters"] = parameter_codes(exported)
        files["evaluator.py"] = _render("evaluator.py", flow=flow, class_name=flow["class_name"])
    else:
        files |= {
            "app.py": _render("app.py", flow=flow),
            "swagger.json": json.dumps(swagger(exported.flow), indent=2, ensure_ascii=False) + "\n",
            "Dockerfile": _render("Dockerfile", flow=flow),
        }
    if exported.aggregation and target != EVALUATOR:
        names = CodeNames()
        nodes = aggregation_codes(exported, names)
        aggregation = {
            "nodes": nodes,
            "imports": _imports(
                names, _support_names(nodes, {"Line", "LineError", "collect_metrics"})
            ),
            "node_imports": _node_imports(names),
            "constants": list(names.constants.values()),
        }
        files["evaluate.py"] = _render("evaluate.py", flow=flow, aggregation=aggregation)
    listed = [*files, REQUIREMENTS, RECORD_FILE]
    files["README.md"] = _render(
        "README.md",
        flow=flow,
        target_text=TARGET_TEXTS[target],
        contents=[(each, CONTENTS[each]) for each in CONTENTS if each in listed],
        commands=[COMMANDS[each] for each in COMMANDS if each in files],
    )
    return files


def _module_name(target: str) -> str:
    return "workflow" if target == AGENT_FRAMEWORK else "flow"


def _flow_context(
    exported: ExportedFlow, flow_version: str | None, name: str, target: str
) -> dict[str, Any]:
    module, streams = _module_name(target), target != EVALUATOR
    names = CodeNames()
    nodes, graph = node_codes(exported, names)
    by_name = dict(zip(exported.needs, graph))
    support = _support_names(nodes, {"FlowInput", "Line"})
    environment = [(literal(n), literal(text)) for n, text in environment_of(exported.flow).items()]
    has_files = any("HERE" in text for text in names.constants.values())
    standard = [
        "from collections.abc import " + ("AsyncGenerator, Mapping" if streams else "Mapping")
    ]
    standard += ["import os"] if environment else []
    standard += ["from pathlib import Path"] if has_files else []
    typing_names = "Any, TypeAlias" if module == "workflow" else "Any"
    standard += [f"from typing import {typing_names}", ""]
    if module == "workflow":
        standard += [
            "from agent_framework import Executor, Workflow, WorkflowBuilder, WorkflowContext, handler",
            "from typing_extensions import Never",
            "",
        ]
    choices = [choice for variants in exported.nodes.values() for choice in variants if choice]
    return {
        "name": name,
        "name_literal": literal(name),
        "version_text": f" (version {flow_version})" if flow_version else "",
        "version_literal": literal(flow_version or ""),
        "module": module,
        "class_name": f"{class_name(name)}Evaluator",
        "imports": [*standard, *_imports(names, support)],
        "node_imports": _node_imports(names),
        "has_files": has_files,
        "inputs": input_codes(exported),
        "input_names": list(exported.flow.inputs),
        "connections": [literal(each) for each in exported.connections],
        "variants": [literal(f"{n}.{v}") for n, ids in exported.flow.variants.items() for v in ids]
        if choices
        else [],
        "constants": list(names.constants.values()),
        "environment": environment,
        "nodes": nodes,
        "graph": graph,
        "levels": [[by_name[each] for each in level] for level in exported.levels],
        "edges": _edges(exported, by_name),
        "start_name": literal(unique("flow_inputs", exported.nodes)),
        "finish_name": literal(unique("flow_outputs", exported.nodes)),
        "outputs": output_codes(exported),
        "aggregated": aggregated_parts(exported),
        "streams": streams,
    }


def _support_names(nodes: Any, names: set[str]) -> set[str]:
    """Return the names of phi3_tools.flow that the code of these nodes uses."""
    for node in nodes:
        names |= {"SKIPPED"} if node.condition else set()
        names |= {"connection"} if any("=connection(" in text for text in node.arguments) else set()
        names |= {"prompt_tool"} if node.tool.endswith("_PROMPT") else set()
    return names


def _imports(names: CodeNames, support: set[str]) -> list[str]:
    own = [f"from phi3_tools.flow import {', '.join(sorted(support, key=_import_order))}"]
    return sorted([*own, *(each for each in names.imports.values() if _is_package(each))])


def _node_imports(names: CodeNames) -> list[str]:
    """Return the imports of the flow's own files."""
    return sorted(each for each in names.imports.values() if not _is_package(each))


def _is_package(statement: str) -> bool:
    return statement.startswith("from phi3_tools")


def _import_order(name: str) -> tuple[int, str]:
    """Sort constants first, then classes, then functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def _edges(exported: ExportedFlow, by_name: Mapping[str, Any]) -> list[str]:
    """Return the calls that add the workflow's edges."""
    edges = []
    needed = {need for needs in exported.needs.values() for need in needs}
    for name, needs in exported.needs.items():
        sources = [by_name[need].identifier for need in exported.needs if need in needs]
        edges.append(_edge(sources or ["start"], by_name[name].identifier))
    last = [by_name[name].identifier for name in exported.needs if name not in needed]
    return [*edges, _edge(last, "finish")]


def _edge(sources: list[str], target: str) -> str:
    if len(sources) == 1:
        return f".add_edge({sources[0]}, {target})"
    return f".add_fan_in_edges([{', '.join(sources)}], {target})"


def _variable_prefix(connection: str) -> str:
    return f"PHI3_CONNECTION_{re.sub(r'[^0-9A-Za-z]', '_', connection).upper()}_"


# -- requirements ----------------------------------------------------------------------------------


def _requirements(folder: Path, exported: ExportedFlow, target: str, wheel: str) -> str:
    pins = _pins()
    named = exported.flow.environment.get("python_requirements_txt") or REQUIREMENTS
    own = [
        _pinned(line, pins)
        for line in _requirement_lines(folder, str(named))
        if not _PROMPTFLOW.match(line)
    ]
    names = {_normalized(match[1]) for line in own if (match := _REQUIREMENT.match(line))}
    needed = (*PACKAGES[target], *TOOL_PACKAGES)
    packages = [f"{name}=={pins[name]}" for name in needed if name not in names]
    return "\n".join([f"./wheels/{wheel}", *sorted({*packages, *own}), ""])


def _requirement_lines(folder: Path, name: str, above: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the lines of a requirements file, and of the files that it names with `-r`.

    Raises:
        OpsError: a file that is named with `-r` does not exist, or is outside the flow's folder.
    """
    file = folder / name
    if not file.is_file() and not above:
        return
    if not file.is_file() or not file.resolve().is_relative_to(folder.resolve()):
        what = f"{folder / above[-1]} names {name}, which is not a file of the flow"
        raise OpsError(what, "Copy its lines into the requirements of the flow.")
    for text in file.read_text(encoding="utf-8").splitlines():
        line = text.split(" #")[0].strip()
        if include := _INCLUDE.fullmatch(line):
            other = (PurePosixPath(name).parent / include[1]).as_posix()
            if other not in (*above, name):
                yield from _requirement_lines(folder, other, (*above, name))
        elif line and not line.startswith("#"):
            yield line


def _pinned(line: str, pins: Mapping[str, str]) -> str:
    """Return a simple requirement in the tested or installed version, if it allows this version."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    match = _REQUIREMENT.fullmatch(line)
    if not match or "==" in line:
        return line
    try:
        pin = pins.get(_normalized(match[1])) or version(match[1])
        if not SpecifierSet(match[3] or "").contains(pin, prereleases=True):
            return line
    except (PackageNotFoundError, InvalidSpecifier):
        return line
    return f"{match[1]}{match[2] or ''}=={pin}"


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _pins() -> dict[str, str]:
    lines = (TEMPLATES / "pins.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


# -- templates -------------------------------------------------------------------------------------


def _render(name: str, **values: Any) -> str:
    text = str(_environment_of_templates().get_template(f"{name}.jinja").render(**values))
    text = re.sub(r"[ \t]+\n", "\n", text)
    return re.sub(r"\n{4,}", "\n\n\n", text).strip("\n") + "\n"


@functools.cache
def _environment_of_templates() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(  # noqa: S701 - the result is Python, not HTML
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
