"""Errors of flows: a flow that cannot run, and a line that failed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any


class FlowError(Exception):
    """A flow that this engine cannot run. The text is one line.

    Args:
        reason: what is wrong.
        fix: what to do.
        node: name of the node, or None if the flow itself is wrong.
        field: the field of the node, or of the flow, such as `source.path` or `inputs.question.type`.
        code: class name of the exception that promptflow raises for the same cause.
    """

    def __init__(
        self,
        reason: str,
        fix: str,
        *,
        node: str | None = None,
        field: str | None = None,
        code: str = "FlowDefinitionError",
    ) -> None:
        self.reason = _one_line(reason)
        self.fix = _one_line(fix)
        self.node = node
        self.field = field
        self.code = code
        super().__init__(self.reason)

    def __str__(self) -> str:
        places = [f"node {self.node!r}"] if self.node else []
        places += [f"field `{self.field}`"] if self.field else []
        where = ", ".join(places)
        return f"{where}: {self.reason}; {self.fix}" if where else f"{self.reason}; {self.fix}"


class NodeError(Exception):
    """Base of exceptions by which a tool names the error codes of a failed line.

    Any exception with an attribute `error_codes` is reported by these codes. Other exceptions of a tool
    are reported as `ToolExecutionError`.
    """

    error_codes: Sequence[str] = ("UserError",)


class LineError(Exception):
    """The failure of one line.

    Attributes:
        codes: promptflow's error codes, from `UserError` or `SystemError` to the class of the exception.
        node: name of the node that failed, or None if the inputs are wrong.
        cause: the exception of the node, or None.
    """

    def __init__(
        self,
        message: str,
        codes: Sequence[str],
        *,
        node: str | None = None,
        cause: BaseException | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.codes = tuple(codes)
        self.node = node
        self.cause = cause

    @property
    def code(self) -> str:
        """The last of the codes: class name of promptflow's exception."""
        return self.codes[-1]

    @property
    def is_user_error(self) -> bool:
        """Whether the caller or the flow has to be changed; otherwise something else failed."""
        return self.codes[0] == "UserError"

    @property
    def cause_class(self) -> str | None:
        """Class name of the node's exception."""
        return type(self.cause).__name__ if self.cause else None

    def as_dict(self) -> dict[str, Any]:
        """Return the error in the form of promptflow's error.json and served errors."""
        error: dict[str, Any] = {"message": self.message, "code": self.codes[0]}
        inner: dict[str, Any] | None = None
        for code in reversed(self.codes[1:]):
            inner = {"code": code, "innerError": inner}
        error["innerError"] = inner
        if self.node:
            error["node"] = self.node
        if self.code == "ToolExecutionError" and self.cause:
            info = {"type": self.cause_class, "message": str(self.cause)}
            error["additionalInfo"] = [{"type": "ToolExecutionErrorDetails", "info": info}]
        return error

    @classmethod
    def of_node(cls, node: str, cause: Exception) -> LineError:
        """Return the failure of a line whose node raised an exception."""
        codes = getattr(cause, "error_codes", None)
        if codes:
            return cls(str(cause), codes, node=node, cause=cause)
        message = f"Execution failure in '{node}': ({type(cause).__name__}) {cause}"
        return cls(message, ("UserError", "ToolExecutionError"), node=node, cause=cause)

    @classmethod
    def of_system(cls, cause: Exception, node: str | None = None) -> LineError:
        """Return the failure of a line outside the code of its nodes."""
        return cls(str(cause), ("SystemError", type(cause).__name__), node=node, cause=cause)


def invalid_input(name: str, value: Any, value_type: str, cause: Exception) -> LineError:
    """Return the failure of a line whose input does not have the input's type."""
    if isinstance(cause, json.JSONDecodeError):
        message = f"the value of the input {name!r} is not valid JSON, but its type is {value_type}"
        return LineError(message, (*_INVALID_REQUEST, "InputParseError"), cause=cause)
    kind = type(value).__name__
    message = f"the value of the input {name!r} is of type {kind}, and not a valid {value_type}"
    return LineError(message, (*_INVALID_REQUEST, "InputTypeError"), cause=cause)


def image_input(name: str) -> LineError:
    """Return the failure of a line that has an image in an input."""
    message = f"the input {name!r} has an image; only promptflow's engine supports images"
    return LineError(message, ("UserError", "NotSupported"))


def missing_input(name: str) -> LineError:
    """Return the failure of a line that lacks an input."""
    message = f"the input {name!r} is missing, and it has no default"
    return LineError(message, (*_INVALID_REQUEST, "InputNotFound"))


def invalid_reference(node: str, properties: str) -> LineError:
    """Return the failure of a line whose reference names a property that an output does not have."""
    message = f"the output of the node {node!r} has no property {properties!r}"
    return LineError(message, (*_BAD_REFERENCE, "InvalidReferenceProperty"), node=node)


def unsupported_section(node: str, section: str) -> LineError:
    """Return the failure of a line whose reference names something else than an output."""
    message = f"a reference to the node {node!r} names {section!r} instead of `output`"
    return LineError(message, (*_BAD_REFERENCE, "UnsupportedReference"), node=node)


def several_streams(outputs: Iterable[str]) -> LineError:
    """Return the failure of a streamed line that has several generators among its outputs."""
    message = f"the outputs {', '.join(outputs)} stream, but only one may"
    return LineError(message, ("UserError", "MultipleStreamOutputFieldsNotSupported"))


def cancelled_line() -> LineError:
    """Return the failure of a line that was cancelled between two nodes."""
    return LineError("the line was cancelled", ("UserError", "ToolCanceledError"))


_INVALID_REQUEST = ("UserError", "ValidationError", "InvalidFlowRequest")
_BAD_REFERENCE = ("UserError", "NodeReferenceError")


def _one_line(text: str) -> str:
    return " ".join(text.split())
