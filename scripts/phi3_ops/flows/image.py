"""A flow as the build context of an image: the flow, the wheel of its tools, and no secrets.

`pf flow build --format docker` makes an image that cannot run these flows: it installs Python 3.9, and it
copies a wheel too late to install it. Only its copy of the flow is used here, in which variants are
resolved and included files are inserted.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from .. import paths
from ..errors import OpsError, first_line
from ..files import new_folder
from ..pf import NO_KEY, pf_client, require_connection
from ..yaml_files import load_yaml
from .content import flow_files, is_never_uploaded
from .definition import FlowDefinition
from .secrets import refuse_secrets
from .wheel import build_tool_wheel

IMAGE_FOLDER = paths.AZURE / "flow"
IMAGE_FILES = ("Dockerfile", "app.py")
REQUIREMENTS, WHEELS = "requirements.txt", "wheels"
CONNECTIONS = "connections.json"


@dataclass(frozen=True)
class ConnectionPlaceholders:
    """The fields of a connection, with a reference to an environment variable in place of each key.

    Attributes:
        configs: field -> value.
        secrets: field -> `${env:VARIABLE}`.
        variables: the environment variables that must hold the keys.
    """

    configs: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    variables: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageContext:
    """A written build context.

    Attributes:
        variables: the environment variables that the container needs.
        searched: what the files were searched for, as sentences for the user.
    """

    variables: list[str]
    searched: str


def build_image_context(flow: FlowDefinition, out: Path) -> ImageContext:
    """Write the context of `docker build`: the complete folder, or nothing.

    Args:
        flow: the flow.
        out: the folder to write; it must be empty or not exist.

    Raises:
        OpsError: the folder is not empty, a connection does not exist, the flow contains a symbolic link,
            or a file contains a key.
    """
    names = sorted(set(flow.connection_names({}).values()))
    connections = {name: connection_placeholders(name) for name in names}
    fields = {
        name: {"configs": connection.configs, "secrets": connection.secrets}
        for name, connection in connections.items()
    }
    with new_folder(out) as context:
        add_image_files(context, flow)
        copy_resolved_flow(flow, context / "flow")
        text = json.dumps(fields, indent=2, ensure_ascii=False) + "\n"
        (context / CONNECTIONS).write_text(text, encoding="utf-8")
        searched = refuse_secrets(context)
    variables = [name for connection in connections.values() for name in connection.variables]
    return ImageContext(variables, searched)


def add_image_files(context: Path, flow: FlowDefinition) -> None:
    """Write the image's own files into a new folder: Dockerfile, app, requirements and wheel."""
    context.mkdir(parents=True)
    for name in IMAGE_FILES:
        shutil.copy(IMAGE_FOLDER / name, context)
    requirements = (IMAGE_FOLDER / REQUIREMENTS, flow.folder / REQUIREMENTS)
    texts = [file.read_text("utf-8") for file in requirements if file.is_file()]
    (context / REQUIREMENTS).write_text("".join(texts), encoding="utf-8")
    (context / WHEELS).mkdir()
    build_tool_wheel().write(context / WHEELS)


def copy_resolved_flow(flow: FlowDefinition, target: Path) -> None:
    """Write promptflow's copy of a flow: variants resolved, included files inserted, no by-products.

    It has all files of the flow. promptflow itself follows links, and omits what .gitignore names.
    `copy_flow` copies the files as they are.

    Raises:
        OpsError: promptflow refuses the flow, or a file of it, or an included one, is a link.
    """
    files = flow_files(flow.folder)
    _check_includes(flow.folder)
    client = pf_client()
    try:
        client.flows.build(flow.folder.resolve(), output=target, flow_only=True)
    except Exception as error:  # whatever promptflow raises
        what = f"{flow.folder} cannot be built: {first_line(error)}"
        raise OpsError(what, f"See `pf flow validate --source {flow.folder}`.") from error
    for path in sorted(target.rglob("*"), reverse=True):
        if is_never_uploaded(path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for file in files:
        copy = target / file.relative_to(flow.folder)
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


def _check_includes(folder: Path) -> None:
    """Raise OpsError if `additional_includes` of a flow names a secret, a link or a folder to pack."""
    for include in load_yaml(folder / "flow.dag.yaml").get("additional_includes") or ():
        what = f"{folder / 'flow.dag.yaml'} includes {include}"
        path = folder / str(include)
        names = [name for name in Path(str(include)).parts if name != ".."]
        if any(map(is_never_uploaded, names)):
            raise OpsError(
                f"{what}, which is never uploaded", "Remove it from additional_includes."
            )
        if path.suffix == ".zip" and path.with_suffix("").is_dir():
            raise OpsError(f"{what}, which would be packed", "Include the folder itself.")
        if path.is_symlink():
            raise OpsError(f"{what}, which is a symbolic link", "Include the file itself.")
        if path.is_dir():
            flow_files(path)


def connection_variable(connection: str, field_name: str) -> str:
    """Return the environment variable from which promptflow reads a field of a connection."""
    return f"{connection}_{field_name}".replace(" ", "_").upper()


def connection_placeholders(name: str) -> ConnectionPlaceholders:
    """Return a connection of the local store, with a placeholder in place of each key.

    Raises:
        OpsError: the connection does not exist.
    """
    connection = require_connection(name)
    configs, keys = dict(connection.configs), dict(connection.secrets)
    if "key" in configs:  # Foundry lets users store either field as a secret
        keys["key"] = configs.pop("key")
    configs |= {key: value for key, value in keys.items() if value == NO_KEY}
    variables = {
        key: connection_variable(name, key) for key, value in keys.items() if value != NO_KEY
    }
    secrets = {key: f"${{env:{variable}}}" for key, variable in variables.items()}
    return ConnectionPlaceholders(configs, secrets, tuple(variables.values()))
