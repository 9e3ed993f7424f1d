"""The file of a sweep, such as `sweep.yaml`: prompts, connections, parameters, data and metrics."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ..names import RULE, is_name
from ..yaml_files import load_yaml_as

DEFAULT_EVALUATION = "eval"
TOKENS_PER_PRICE = 1000


def _require_name(value: object) -> object:
    if is_name(value):
        return value
    raise ValueError(f"{value!r} is not a valid name; use {RULE}")


def _require_value(value: object) -> object:
    is_finite = not isinstance(value, float) or math.isfinite(value)
    if isinstance(value, (bool, int, float, str)) and is_finite:
        return value
    raise ValueError(f"{value!r} is not a value; use a finite number, a text, true or false")


Name = Annotated[str, BeforeValidator(_require_name)]
Value = Annotated[bool | int | float | str, BeforeValidator(_require_value)]  # of a parameter


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PromptConfig(_Section):
    """One of the prompts that are compared: a flow as it is, or with changes.

    Attributes:
        flow: the flow, if it is not the flow of the sweep.
        variant: `node.variant`, which replaces the node's default variant.
        file: a jinja2 file, relative to the sweep's file, which replaces the prompt file of a node.
        node: the node whose prompt file is replaced; needed if several nodes have one.
        inputs: `node.input`, or input of the flow -> the value that this prompt sets.
    """

    flow: str | None = None
    variant: str | None = None
    file: Path | None = None
    node: str | None = None
    inputs: dict[str, Value] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _node_has_file(self) -> PromptConfig:
        if self.node and not self.file:
            raise ValueError("`node` needs `file`, the prompt file of that node")
        return self


class EvaluationConfig(_Section):
    """A flow that scores the answers.

    Attributes:
        flow: the flow: a folder, or the name of a shipped flow.
        connection: the connection of a judge; None takes the flow's own.
        columns: input of the flow -> `${data.x}`, `${run.outputs.x}` or a constant.
    """

    flow: str = DEFAULT_EVALUATION
    connection: Name | None = None
    columns: dict[str, str] = Field(default_factory=dict)


class PriceConfig(_Section):
    """The price of 1,000 tokens through a connection, in the currency of the sweep."""

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)


class CellFilter(_Section):
    """Selects the cells that have this prompt, connection and parameters. A missing field selects all."""

    prompt: str | None = None
    connection: str | None = None
    parameters: dict[str, Value] = Field(default_factory=dict)


def cell_label(prompt: str, connection: str | None, parameters: Mapping[str, Value]) -> str:
    """Return a cell in words."""
    names = [prompt, *([connection] if connection else [])]
    return ", ".join(
        [*names, *(f"{name}={value_text(value)}" for name, value in parameters.items())]
    )


def value_text(value: Value) -> str:
    """Return a value as YAML and column mappings have it."""
    return json.dumps(value) if isinstance(value, bool) else str(value)


class SweepConfig(_Section):
    """The content of the file.

    Attributes:
        name: name of the sweep, which is part of the names of its runs.
        flow: the flow of the prompts that do not name one: a folder, or the name of a shipped flow.
        data: the data file, JSONL, relative to the sweep's file.
        columns: input of the flow -> `${data.x}` or a constant.
        prompts: name -> prompt.
        connections: names of connections; if empty, the connections of the flow.
        parameters: `node.input`, or input of the flow -> the values to try.
        baseline: the cell that the others are compared with; by default the first one.
        exclude: cells to leave out.
        evaluate: the flows that score the answers.
        metrics: the scores to compare. The first decides which cell is the winner.
        prices: connection -> its price.
        currency: currency of the prices.
    """

    name: Name
    flow: str | None = None
    data: Path
    columns: dict[str, str] = Field(default_factory=dict)
    prompts: dict[Name, PromptConfig] = Field(
        default_factory=lambda: {"default": PromptConfig()}, min_length=1
    )
    connections: list[Name] = Field(default_factory=list)
    parameters: dict[str, Annotated[list[Value], Field(min_length=1)]] = Field(default_factory=dict)
    baseline: CellFilter = CellFilter()
    exclude: list[CellFilter] = Field(default_factory=list)
    evaluate: list[EvaluationConfig] = Field(
        default_factory=lambda: [EvaluationConfig()], min_length=1
    )
    metrics: list[str] = Field(min_length=1)
    prices: dict[Name, PriceConfig] = Field(default_factory=dict)
    currency: str = "USD"

    @model_validator(mode="before")
    @classmethod
    def _refuse_repeats(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "repeats" in values:
            raise ValueError(
                "`repeats` is not a field; list seeds instead, for example `seed: [1, 2, 3]` in "
                "`parameters`, if the flow has such an input"
            )
        return values

    @model_validator(mode="before")
    @classmethod
    def _empty_prompts(cls, values: Any) -> Any:
        """Let `plain:` without a value stand for the flow as it is."""
        prompts = values.get("prompts") if isinstance(values, Mapping) else None
        if not isinstance(prompts, Mapping):
            return values
        filled = {name: {} if item is None else item for name, item in prompts.items()}
        return {**values, "prompts": filled}

    @model_validator(mode="after")
    def _is_consistent(self) -> SweepConfig:
        for name, prompt in self.prompts.items():
            if not (prompt.flow or self.flow):
                raise ValueError(f"the prompt {name} has no flow; set `flow`")
        if len(set(self.metrics)) < len(self.metrics):
            raise ValueError("`metrics` names a score twice")
        if overlap := sorted(self.columns.keys() & self.parameters.keys()):
            raise ValueError(f"`columns` and `parameters` both set {overlap[0]!r}")
        if unknown := sorted(self.prices.keys() - set(self.connections)):
            raise ValueError(f"`prices` names {unknown[0]!r}, which is not one of `connections`")
        return self

    def cost(
        self, connection: str | None, prompt_tokens: int | None, completion_tokens: int | None
    ) -> float | None:
        """Return the cost of some tokens; None if the price or a number of tokens is not known."""
        price = self.prices.get(connection or "")
        if price is None or prompt_tokens is None or completion_tokens is None:
            return None
        total = prompt_tokens * price.prompt + completion_tokens * price.completion
        return total / TOKENS_PER_PRICE


def load_sweep(file: Path) -> SweepConfig:
    """Read and check the file of a sweep. The paths in it become relative to the current folder.

    Raises:
        OpsError: the file does not exist, cannot be read, or a field is wrong; the error names the field.
    """
    config = load_yaml_as(SweepConfig, file, "Check the path.")
    folder = file.parent
    prompts = {
        name: prompt.model_copy(
            update={
                "flow": _flow_path(prompt.flow or config.flow or "", folder),
                "file": prompt.file and folder / prompt.file,
            }
        )
        for name, prompt in config.prompts.items()
    }
    evaluate = [
        item.model_copy(update={"flow": _flow_path(item.flow, folder)}) for item in config.evaluate
    ]
    return config.model_copy(
        update={"data": folder / config.data, "prompts": prompts, "evaluate": evaluate}
    )


def _flow_path(flow: str, folder: Path) -> str:
    """Return the path of a flow in the folder of the sweep's file, or else its name."""
    path = folder / flow
    return str(path) if (path / "flow.dag.yaml").is_file() else flow
