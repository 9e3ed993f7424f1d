"""A connection: named fields, some of them secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class _ConnectionType(type):
    """The metaclass of a class that equals promptflow's CustomConnection.

    Promptflow compares the annotation of a tool's parameter with its own classes.
    """

    def __eq__(cls, other: object) -> bool:
        if cls is other:
            return True
        module = str(getattr(other, "__module__", ""))
        return module.startswith("promptflow.") and getattr(other, "__name__", "") == cls.__name__

    __hash__ = type.__hash__


@dataclass(frozen=True)
class Connection(metaclass=_ConnectionType):
    """A connection with the interface of Prompt flow's CustomConnection, as far as tools use it.

    Attributes:
        name: its name.
        configs: the fields that are not secret.
        secrets: the secret fields.
        source: where it was found, for people.
    """

    name: str
    configs: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    source: str = field(default="", compare=False)

    def __getitem__(self, name: str) -> str:
        """Return a field; a secret comes before a field that is not secret."""
        return {**self.configs, **self.secrets}[name]

    def __getattr__(self, name: str) -> Any:
        # Only called for names that are not attributes. Copying asks for some before they exist.
        if name.startswith("_") or name in ("configs", "secrets"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the connection {self.name!r} has no field {name!r}") from None


Connection.__name__ = "CustomConnection"  # its name in flows, and in promptflow
