"""Reads a flow.dag.yaml to change it, and writes it so that every value keeps its type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from phi3_tools.flow import FlowError, read_flow_file

from ..errors import OpsError


def read_dag_file(file: Path) -> dict[str, Any]:
    """Return the content of a flow.dag.yaml by YAML 1.2, as the engines read it.

    Raises:
        OpsError: the file does not exist, or is not a YAML mapping.
    """
    try:
        return read_flow_file(file)
    except FlowError as error:
        raise OpsError(error.reason, f"{error.fix[:1].upper()}{error.fix[1:]}.") from error


def write_dag_file(file: Path, content: dict[str, Any]) -> None:
    """Write a flow.dag.yaml. All strings are quoted, so that `yes` or `1e3` stays a string."""
    text = yaml.dump(content, Dumper=_QuotingDumper, sort_keys=False, allow_unicode=True)
    file.write_text(text, encoding="utf-8")


class _QuotingDumper(yaml.SafeDumper):
    """Writes every string in double quotes."""


def _quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')


_QuotingDumper.add_representer(str, _quoted)
