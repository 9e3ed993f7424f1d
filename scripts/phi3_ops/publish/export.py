"""`phi3 flow export`: a flow as a folder of Python code that runs without Prompt flow.

All files are made before the first is written. `EXPORT.json` lists them with their hashes, so that a
later export can tell which of them a person has edited.
"""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from phi3_tools import Phi3Error
from phi3_tools.parity import RECORDING_FILE, read_recording

from ..errors import OpsError
from ..files import load_json_object
from ..flows import FlowDefinition, content_hash, refuse_secrets
from ..hashing import sha256_hex
from ..names import require_name
from .export_files import RECORD_FILE, export_files
from .export_llm import with_llm_nodes_replaced

RECORDINGS = "recordings"  # folder in which `phi3 flow record` writes


@dataclass(frozen=True)
class ExportSummary:
    """What an export did, as paths in the folder.

    Attributes:
        written: files that were created or replaced.
        unchanged: files that had the same content already.
        removed: files of an earlier export that this one does not have.
        kept: such files that a person has edited.
    """

    written: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)


def export_flow(
    folder: Path,
    target: str,
    out: Path,
    *,
    force: bool = False,
    llm: str | None = None,
    recording: Path | None = None,
) -> ExportSummary:
    """Write a flow as Python code; nothing is written if it cannot be exported.

    Args:
        folder: the flow's folder, or the name of a shipped flow.
        target: `agent-framework`, `fastapi` or `evaluator`.
        out: the folder to write: empty, not existing, or of an earlier export.
        force: replace files that a person has edited.
        llm: what llm nodes become: `phi3` for a node of the tool phi3_prompt; None refuses them.
        recording: folder or file of `phi3 flow record` for the test of the export; None takes the
            folder recordings/NAME, if it exists.

    Raises:
        OpsError: the flow cannot be exported, a file contains a key, or the folder has other files.
    """
    flow = FlowDefinition.read(folder)
    if out.resolve().is_relative_to(flow.folder.resolve()):
        raise OpsError(f"{out} is inside the flow's folder", "Choose another folder.")
    name = require_name(flow.folder.resolve().name, f"the flow's folder {str(flow.folder)!r}")
    digest = content_hash(flow.folder)
    recorded = _recording_files(recording, Path(RECORDINGS, name), digest)
    with with_llm_nodes_replaced(flow.folder, llm) as source:
        generated = export_files(source, flow.version, name, target, has_recording=bool(recorded))
    if collisions := sorted(set(generated) & set(recorded)):
        what = (
            f"{folder} cannot be exported: its file {collisions[0]} has the name of the recording"
        )
        raise OpsError(what, "Rename the file.")
    files = {**generated, **recorded}
    _refuse_secrets(files)
    facts = {
        "flow": name,
        "version": flow.version,
        "sha256": digest,
        "to": target,
        "llm": llm,
        "versions": _versions(files),
    }
    return _write(out, files, facts, force=force)


def _recording_files(recording: Path | None, default: Path, flow_sha256: str) -> dict[str, bytes]:
    """Return the recording as a file of the export; nothing if no recording is given and none exists.

    Raises:
        OpsError: the recording cannot be read, or is of another version of the flow.
    """
    path = recording or default
    if recording is None and not (path / RECORDING_FILE).is_file():
        return {}
    if path.is_dir():
        path = path / RECORDING_FILE
    try:
        flow = read_recording(path).flow
    except Phi3Error as error:
        raise OpsError(error.what, error.fix) from error
    if flow["sha256"] != flow_sha256:
        what = f"{path} is a recording of {flow['name']} {flow['version']} with other content"
        raise OpsError(what, "Record the flow again with `phi3 flow record`.")
    return {f"recording/{RECORDING_FILE}": path.read_bytes()}


def _versions(files: Mapping[str, bytes]) -> list[str]:
    """Return the pinned packages of an export."""
    lines = files["requirements.txt"].decode().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _refuse_secrets(files: Mapping[str, bytes]) -> None:
    with tempfile.TemporaryDirectory(prefix="phi3-export-") as parent:
        for name, content in files.items():
            path = Path(parent, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        refuse_secrets(Path(parent))


def _write(
    out: Path, files: Mapping[str, bytes], facts: Mapping[str, object], *, force: bool
) -> ExportSummary:
    recorded = _recorded_hashes(out)
    _require_plain_paths(out, {*files, *recorded, RECORD_FILE})
    present = {name: _hash_of(out / name) for name in {*files, *recorded}}
    hashes = {name: sha256_hex(content) for name, content in files.items()}
    edited = sorted(
        name
        for name, digest in hashes.items()
        if present[name] not in (None, digest, recorded.get(name))
    )
    if edited and not force:
        more = f" and {len(edited) - 1} more" if len(edited) > 1 else ""
        fix = "Use --force to replace it, or choose another folder."
        raise OpsError(f"{out / edited[0]}{more} was edited after its export", fix)
    summary = ExportSummary()
    for name, digest in hashes.items():
        if present[name] == digest:
            summary.unchanged.append(name)
        else:
            _write_file(out / name, files[name])
            summary.written.append(name)
    for name in sorted(set(recorded) - set(files)):
        if present[name] == recorded[name]:
            (out / name).unlink()
            summary.removed.append(name)
        elif present[name] is not None:
            summary.kept.append(name)
    record = json.dumps({**facts, "files": dict(sorted(hashes.items()))}, indent=2) + "\n"
    if _hash_of(out / RECORD_FILE) != sha256_hex(record.encode()):
        _write_file(out / RECORD_FILE, record.encode())
    return summary


def _require_plain_paths(out: Path, names: Iterable[str]) -> None:
    """Check that all files can be written, and that no link leads out of the folder.

    Raises:
        OpsError: a folder of the name of a file exists, or a file or link of the name of a folder.
    """
    for name in sorted(names):
        path = out / name
        if path.is_dir() and not path.is_symlink():
            raise OpsError(f"cannot write {path}: it is a folder", "Choose another folder.")
        for parent in path.parents:
            if parent == out:
                break
            if parent.is_symlink() or (parent.exists() and not parent.is_dir()):
                what = f"cannot write {path}: {parent} is a link or a file"
                raise OpsError(what, "Choose another folder.")


def _recorded_hashes(out: Path) -> dict[str, str]:
    """Return file -> hash of an earlier export.

    Raises:
        OpsError: the folder has files, but is not an export.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return {}
    try:
        files = load_json_object(out / RECORD_FILE)["files"]
        names = {str(name): str(digest) for name, digest in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise OpsError(f"{out} is not empty, and not an export", "Choose another folder.") from None
    return {name: digest for name, digest in names.items() if _is_inside(name)}


def _is_inside(name: str) -> bool:
    path = Path(name)
    return not path.is_absolute() and ".." not in path.parts


def _hash_of(path: Path) -> str | None:
    if path.is_symlink():
        return ""  # no file has this hash: it counts as edited
    return sha256_hex(path.read_bytes()) if path.is_file() else None


def _write_file(path: Path, content: bytes) -> None:
    """Write a file completely or not at all. Text keeps its line ends, which its hash includes."""
    temporary = path.with_name(f".{path.name}.phi3-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        what = f"cannot write {path}: {error.strerror}"
        raise OpsError(what, "Choose another folder.") from error
