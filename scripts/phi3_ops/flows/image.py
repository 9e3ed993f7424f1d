"""A flow as the build context of an image: the flow, the wheel of its tools, and no secret.

`pf flow build --format docker` makes an image that cannot run these flows: its Python is 3.9, and a wheel
in the context is copied too late to be installed. Its copy of the flow is taken (variants resolved,
included files put in), its image is not.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from phi3_tools.client import SETTINGS_VARIABLES

from .. import paths
from ..errors import OpsError, first_line
from ..pf import NO_KEY, load_connection, pf_client
from .definition import FlowDefinition
from .wheel import build_tool_wheel

IMAGE_FOLDER = paths.AZURE / "flow"
IMAGE_FILES = ("Dockerfile", "app.py")
REQUIREMENTS, WHEELS = "requirements.txt", "wheels"
CONNECTIONS = "connections.json"
# By-products that hold prompts and answers, what is no part of the flow, and where secrets are kept.
EXCLUDED_FROM_IMAGE = (
    ".promptflow",
    "process_log",
    "__pycache__",
    ".git",
    ".gitignore",
    ".venv",
    ".env",
)
# A shorter one is no key, and would be found in any text.
SHORTEST_SECRET = 8


def build_image_context(flow: FlowDefinition, out: Path) -> list[str]:
    """Write the context of `docker build`: all of it, or nothing.

    Args:
        flow: which one.
        out: the folder to write; it must not be there, or be empty.

    Returns:
        The environment variables that the container needs.

    Raises:
        OpsError: the folder holds something, a connection is not there, or a secret was found in what
            would be in the image.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OpsError(f"{out} is not empty", "Give another --out, or remove it.")
    named = sorted(set(flow.connection_names({}).values()))
    given = {name: connection_placeholders(name) for name in named}
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        context = Path(folder) / "context"
        add_image_files(context, flow)
        copy_resolved_flow(flow, context / "flow")
        text = json.dumps(given, indent=2, ensure_ascii=False) + "\n"
        (context / CONNECTIONS).write_text(text, encoding="utf-8")
        refuse_secrets(context)
        if out.exists():
            out.rmdir()
        context.rename(out)
    return [
        connection_variable(name, key)
        for name, fields in given.items()
        for key in fields["secrets"]
    ]


def add_image_files(context: Path, flow: FlowDefinition) -> None:
    """Put what makes the image into a new folder: Dockerfile, app, requirements and the wheel."""
    context.mkdir(parents=True)
    for name in IMAGE_FILES:
        shutil.copy(IMAGE_FOLDER / name, context)
    own = flow.folder / REQUIREMENTS
    texts = [
        file.read_text("utf-8") for file in (IMAGE_FOLDER / REQUIREMENTS, own) if file.is_file()
    ]
    (context / REQUIREMENTS).write_text("".join(texts), encoding="utf-8")
    name, wheel = build_tool_wheel()
    (context / WHEELS).mkdir()
    (context / WHEELS / name).write_bytes(wheel)


def copy_resolved_flow(flow: FlowDefinition, target: Path) -> None:
    """prompt flow's copy of a flow, without by-products.

    Raises:
        OpsError: prompt flow refuses the flow.
    """
    client = pf_client()
    try:
        client.flows.build(flow.folder.resolve(), output=target, flow_only=True)
    except Exception as error:  # whatever promptflow raises
        what = f"{flow.folder} cannot be built: {first_line(error)}"
        raise OpsError(what, f"See `pf flow validate --source {flow.folder}`.") from error
    for path in sorted(target.rglob("*"), reverse=True):
        if path.name in EXCLUDED_FROM_IMAGE:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def connection_variable(connection: str, key: str) -> str:
    """The environment variable in which prompt flow looks for a connection's field."""
    return f"{connection}_{key}".replace(" ", "_").upper()


def connection_placeholders(name: str) -> dict[str, dict[str, str]]:
    """A connection of the local store, its keys named instead of told.

    Raises:
        OpsError: there is no such connection.
    """
    connection = load_connection(name)
    if connection is None:
        raise OpsError(f"there is no connection {name!r}", "Write it with `phi3 connect`.")
    configs, secrets = dict(connection.configs), dict(connection.secrets)
    if "key" in configs:  # Foundry lets people mark either as secret
        secrets["key"] = configs.pop("key")
    shown = {
        key: value if value == NO_KEY else f"${{env:{connection_variable(name, key)}}}"
        for key, value in secrets.items()
    }
    kept = {key: value for key, value in shown.items() if value == NO_KEY}
    return {
        "configs": {**configs, **kept},
        "secrets": {key: value for key, value in shown.items() if key not in kept},
    }


def refuse_secrets(context: Path) -> None:
    """Look into every file, those in the wheel too, for a key that this machine knows.

    Raises:
        OpsError: naming the file and whose key it is.
    """
    known = _secrets()
    for name, content in _contents(context):
        for secret, whose in known.items():
            if secret.encode() in content:
                fix = "Take it out of the file: the container gets it from its environment."
                raise OpsError(f"{name} holds {whose}", fix)


def _secrets() -> Mapping[str, str]:
    """Every key in the store and in the environment -> whose it is."""
    found: dict[str, str] = {}
    for variable_name in (SETTINGS_VARIABLES["key"], "PHI3_ENDPOINT_KEY"):
        if value := os.environ.get(variable_name):
            found[value] = f"the value of {variable_name}"
    for listed in pf_client().connections.list(all_results=True):
        connection: Any = load_connection(listed.name)
        values = dict(connection.secrets) if connection is not None else {}
        found |= {value: f"the {key} of {listed.name}" for key, value in values.items() if value}
    return {secret: whose for secret, whose in found.items() if len(secret) >= SHORTEST_SECRET}


def _contents(context: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(context.rglob("*")):
        name = str(path.relative_to(context))
        if path.is_file() and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as packed:
                yield from ((f"{name}: {each}", packed.read(each)) for each in packed.namelist())
        elif path.is_file():
            yield name, path.read_bytes()
