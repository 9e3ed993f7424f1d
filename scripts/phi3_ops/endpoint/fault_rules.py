"""The rules by which the local endpoint fails on purpose: read from a YAML file or a request's header.

A file is a list of rules:

    - fault: 429-retry-after    # a name in FAULTS (`phi3_ops.endpoint.fault_table`)
      times: 2                  # the first two matching requests; then healthy answers
    - fault: slow-body
      every: 10                 # every tenth matching request
      path: /score              # without it: every POST
      seconds: 3

A header is `x-phi3-fault: 503; n=2`, in which `n` means `times`. Requests are counted by the complete
text of their header, so `503; n=2; id=my-test` is counted separately.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from ..errors import OpsError
from .fault_table import FAULTS

HEADER = "x-phi3-fault"


class FaultError(OpsError):
    """A rule that is not valid; the message names the rule and the field, in one line."""


def _number_to_name(value: Any) -> Any:
    """Return the name of a fault that YAML reads as a number, such as 503."""
    return str(value) if type(value) is int else value


def _known_fault(name: str) -> str:
    if name in FAULTS:
        return name
    similar = difflib.get_close_matches(name, FAULTS, n=3, cutoff=0.4) or sorted(FAULTS)
    raise ValueError(f"this fault does not exist; similar names: {', '.join(similar)}")


def _not_null(value: Any) -> Any:
    if value is None:
        raise ValueError("the value is missing")
    return value


# A field that may be left out, but not be null: an empty value in YAML is a mistake.
_Optional = BeforeValidator(_not_null)


class Rule(BaseModel):
    """When to fail, and how.

    Attributes:
        fault: name of the fault.
        times: number of failures; None is unlimited.
        every: 10 fails every tenth matching request.
        path: path of the requests that match; None matches every POST.
        seconds: duration, for faults that have one; None is the fault's own.
        mib: size of the padding in MiB (2**20 bytes), for faults that have one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    fault: Annotated[str, BeforeValidator(_number_to_name), AfterValidator(_known_fault)]
    times: Annotated[int | None, _Optional, Field(ge=1)] = None
    every: int = Field(default=1, ge=1)
    path: Annotated[str | None, _Optional] = None
    seconds: Annotated[float | None, _Optional, Field(ge=0, le=600)] = None
    mib: int = Field(default=16, ge=1, le=256)


def load_fault_rules(path: Path) -> list[Rule]:
    """Return the rules in a YAML file.

    Raises:
        FaultError: the file cannot be read, or a rule is not valid.
    """
    import yaml

    from ..yaml_files import load_yaml

    try:
        entries = load_yaml(Path(path))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise FaultError(f"{path} cannot be read: {reason}") from error
    if not isinstance(entries, list):
        raise FaultError(f"{path} must be a list of rules, each with a fault")
    return [
        read_rule(entry, f"{path}: rule {number}") for number, entry in enumerate(entries, start=1)
    ]


def read_rule(entry: Any, where: str, *, strict: bool = True) -> Rule:
    """Return a rule from plain data.

    Args:
        entry: the data; a mapping with a fault.
        where: start of the error's message.
        strict: whether numbers must be numbers; a header has texts.

    Raises:
        FaultError: the rule is not valid.
    """
    if not isinstance(entry, dict) or "fault" not in entry:
        raise FaultError(f"{where} must be a mapping with a fault")
    try:
        return Rule.model_validate(entry, strict=strict)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        if first["type"] in ("extra_forbidden", "invalid_key"):
            fields = ", ".join(Rule.model_fields)
            raise FaultError(f"{where}: {field} is unknown; the fields are {fields}") from error
        reason = first["msg"].removeprefix("Value error, ")
        raise FaultError(f"{where}: {field} = {first['input']!r}: {reason}") from error


def read_header(text: str) -> Rule:
    """Return the rule in an `x-phi3-fault` header.

    Raises:
        FaultError: the rule is not valid.
    """
    name, *options = (part.strip() for part in text.split(";"))
    entry = {"fault": name}
    for option in filter(None, options):
        key, _, value = (part.strip() for part in option.partition("="))
        if key != "id":
            entry["times" if key == "n" else key] = value
    return read_rule(entry, HEADER, strict=False)
