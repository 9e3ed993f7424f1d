"""The content of a flow: which of its files count, how they are copied, and their hash."""

from __future__ import annotations

import os
import shutil
from fnmatch import fnmatchcase
from pathlib import Path

from ..errors import OpsError
from ..hashing import parts_sha256

# Names of files and folders that are never copied, uploaded or hashed: caches, editors' backup files and
# secrets. Names with a leading dot are among them, as in the wheel: `.promptflow` holds prompts and
# answers, `.env` and `.npmrc` hold keys. promptflow's process pool writes its logs to `process_log`.
NEVER_UPLOADED = (
    *(".*", "__pycache__", "process_log", "*.py[cod]", "*~"),
    *("*.env", "*.env.*", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks"),
    *("id_rsa", "id_dsa", "id_ecdsa", "id_ed25519"),
)
# A NUL byte in the first bytes of a file means that the file is not text. git reads as many.
TEXT_PROBE_BYTES = 8000


def is_never_uploaded(name: str) -> bool:
    """Return whether a file or folder of this name is left out of uploads, copies and hashes."""
    return any(fnmatchcase(name.lower(), pattern) for pattern in NEVER_UPLOADED)


def is_text(content: bytes) -> bool:
    """Return whether the content of a file is text, by the rule that git uses."""
    return b"\0" not in content[:TEXT_PROBE_BYTES]


def flow_files(folder: Path, *, follow_links: bool = False) -> list[Path]:
    """Return the files that make up a flow, sorted by their path.

    Args:
        folder: the flow's folder.
        follow_links: read symbolic links to files of the flow; without it, every link is refused.

    Raises:
        OpsError: a file or folder is a symbolic link, which can lead out of the flow's folder.
    """
    files = []
    for parent, folders, names in os.walk(folder):
        # Folders that are left out are not entered: a running batch creates and removes logs in them.
        folders[:] = [name for name in folders if not is_never_uploaded(name)]
        for name in (*folders, *(name for name in names if not is_never_uploaded(name))):
            path = Path(parent, name)
            if path.is_symlink() and not (follow_links and _leads_to_file_of(path, folder)):
                what = f"{path} is a symbolic link"
                if follow_links:
                    what += " that does not lead to a file of the flow"
                raise OpsError(what, "Replace it with a copy of the file that it leads to.")
            if path.is_file():
                files.append(path)
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


def _leads_to_file_of(link: Path, folder: Path) -> bool:
    """Return whether a link leads to a file inside a folder that is not left out of uploads."""
    target, root = link.resolve(), folder.resolve()
    if not target.is_file() or not target.is_relative_to(root):
        return False
    return not any(map(is_never_uploaded, target.relative_to(root).parts))


def copy_flow(folder: Path, target: Path, *, follow_links: bool = False) -> Path:
    """Copy the files that make up a flow, and no others.

    The files are copied as they are. `copy_resolved_flow` resolves variants and includes.

    Args:
        folder: the flow's folder.
        target: the folder to write.
        follow_links: copy the files of the flow that symbolic links lead to; without it, every link is
            refused.

    Returns:
        The target.

    Raises:
        OpsError: a file or folder is a symbolic link.
    """
    for file in flow_files(folder, follow_links=follow_links):
        copy = target / file.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    return target


def content_hash(folder: Path) -> str:
    """Return the SHA-256, in hex, of the names and the content of the files that make up a flow.

    Line ends of text files count as LF, because git writes CRLF into a checkout on Windows.

    Raises:
        OpsError: a file cannot be read, or is a symbolic link.
    """
    parts: list[bytes] = []
    for path in flow_files(folder):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise OpsError(f"cannot read {path}: {error.strerror}", "Check the file.") from error
        if is_text(content):
            content = content.replace(b"\r\n", b"\n")
        parts += (path.relative_to(folder).as_posix().encode("utf-8", "surrogateescape"), content)
    return parts_sha256(parts)
