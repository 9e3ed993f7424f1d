"""The command that installs further packages for this product."""

from __future__ import annotations

import shlex
from importlib import metadata

from .paths import ROOT

PACKAGE = "phi3-promptflow"


def install_command(*extras: str) -> str:
    """Return the pip command that adds extras to this installation.

    The command names the clone or the wheel file that this product was installed from. It never names the
    package alone, because pip looks such a name up in the package index, where anybody can register it.

    Args:
        extras: names of extras in pyproject.toml, for example `eval`.
    """
    names = f"[{','.join(extras)}]"
    if (ROOT / "pyproject.toml").is_file():
        return f"pip install -e {shlex.quote(f'{ROOT}{names}')}"
    return f"pip install {shlex.quote(f'./{wheel_name()}{names}')}"


def wheel_name() -> str:
    """Return the file name of this product's wheel in the installed version."""
    return f"{PACKAGE.replace('-', '_')}-{metadata.version(PACKAGE)}-py3-none-any.whl"
