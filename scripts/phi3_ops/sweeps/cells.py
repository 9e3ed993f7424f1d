"""The cells of a sweep: all combinations of a prompt, a connection and parameters, less the excluded."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import OpsError
from ..flows import FlowDefinition, content_hash
from ..hashing import file_sha256, parts_sha256
from ..names import did_you_mean
from ..pf import Connections, require_connection
from ..runs import SHORT_HASH, RunProperties, choose_columns
from .cell_flows import (
    FlowSettings,
    PromptFlow,
    connections_of,
    load_checked_flow,
    load_checked_tools,
)
from .config import CellFilter, SweepConfig, Value, cell_label, value_text

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Cell:
    """One combination of a prompt, a connection and parameters.

    Attributes:
        letter: `A` for the baseline, then `B`, `C`, …
        prompt: name of the prompt.
        connection: name of the connection, or None for the flow's own.
        parameters: name -> value.
        flow: folder of the cell's flow.
        flow_sha256: hash of that flow's content.
        columns: input of the flow -> its source.
        connections: node -> input -> connection.
        calls_per_line: number of nodes that call an endpoint for each line.
        fingerprint: hash of everything that the answers depend on.
    """

    letter: str
    prompt: str
    connection: str | None
    parameters: Mapping[str, Value]
    flow: Path
    flow_sha256: str
    columns: Mapping[str, str]
    connections: Connections
    calls_per_line: int
    fingerprint: str

    @property
    def label(self) -> str:
        """The cell in words."""
        return cell_label(self.prompt, self.connection, self.parameters)

    def title(self, sweep: str) -> str:
        """Return the display name of the cell's run."""
        names = [sweep, self.prompt, *([self.connection] if self.connection else [])]
        return "-".join([*names, self.fingerprint[:SHORT_HASH]])


@dataclass(frozen=True)
class _Combination:
    prompt: str
    connection: str | None
    parameters: dict[str, Value]

    @property
    def label(self) -> str:
        return cell_label(self.prompt, self.connection, self.parameters)

    def matches(self, selection: CellFilter) -> bool:
        """Return whether a filter selects this combination."""
        return (
            selection.prompt in (None, self.prompt)
            and selection.connection in (None, self.connection)
            and all(
                name in self.parameters and _is_same(self.parameters[name], value)
                for name, value in selection.parameters.items()
            )
        )


def make_cells(config: SweepConfig, staging: Path) -> list[Cell]:
    """Return the cells, the baseline first.

    Args:
        config: the sweep.
        staging: folder in which the flows of the cells are written.

    Raises:
        OpsError: a flow, a variant, a connection, a parameter or a column does not exist, two cells are
            equal, or there are too few or too many cells.
    """
    combinations = _combinations(config)
    for connection in dict.fromkeys(config.connections):
        require_connection(connection)
    prompts = {
        name: PromptFlow.load(name, prompt, next(iter(config.connections), None))
        for name, prompt in config.prompts.items()
    }
    _refuse_unknown_columns(config, prompts)
    builder = _CellBuilder(config, prompts, staging, file_sha256(config.data))
    cells: dict[str, Cell] = {}
    for letter, combination in zip(LETTERS, combinations):
        cell = builder.build(letter, combination)
        if equal := cells.get(cell.fingerprint):
            what = f"the cells {equal.label!r} and {cell.label!r} are equal"
            raise OpsError(what, "Remove one of them, or exclude it.")
        cells[cell.fingerprint] = cell
    return list(cells.values())


def _combinations(config: SweepConfig) -> list[_Combination]:
    """Return the combinations that are not excluded, the baseline first."""
    connections: list[str | None] = [*config.connections] or [None]
    everything = [
        _Combination(prompt, connection, dict(zip(config.parameters, values)))
        for prompt in config.prompts
        for connection in connections
        for values in itertools.product(*config.parameters.values())
    ]
    for number, selection in enumerate(config.exclude):
        _require_match(f"exclude.{number}", selection, everything, config)
    remaining = [each for each in everything if not any(map(each.matches, config.exclude))]
    if not 2 <= len(remaining) <= len(LETTERS):
        fix = f"A sweep compares 2 to {len(LETTERS)} cells. Change the lists, or `exclude` some."
        raise OpsError(f"the sweep has {len(remaining)} cells", fix)
    _require_match("baseline", config.baseline, remaining, config)
    matches = [each for each in remaining if each.matches(config.baseline)]
    has_baseline = config.baseline != CellFilter()
    if has_baseline and len(matches) > 1:
        examples = f"{matches[0].label!r} and {matches[1].label!r}"
        what = f"baseline: {len(matches)} cells match, such as {examples}"
        raise OpsError(what, "Add fields until one cell matches.")
    return [matches[0], *(each for each in remaining if each is not matches[0])]


def _require_match(
    where: str, selection: CellFilter, combinations: list[_Combination], config: SweepConfig
) -> None:
    """Raise OpsError if a filter selects no combination, and name the word that does not exist."""
    if any(each.matches(selection) for each in combinations):
        return
    known = {"prompt": list(config.prompts), "connection": config.connections}
    for field_name, names in known.items():
        value = getattr(selection, field_name)
        if value is not None and value not in names:
            fix = f"Use one of {', '.join(names)}{did_you_mean(value, names)}"
            raise OpsError(f"{where}.{field_name}: {value!r} does not exist", fix)
    for name in selection.parameters:
        if name not in config.parameters:
            fix = f"The parameters are {', '.join(config.parameters) or 'none'}."
            raise OpsError(f"{where}.parameters: {name!r} does not exist", fix)
    raise OpsError(f"{where}: no cell matches", "Correct its values, or remove it.")


def _refuse_unknown_columns(config: SweepConfig, prompts: Mapping[str, PromptFlow]) -> None:
    inputs = dict.fromkeys(name for prompt in prompts.values() for name in prompt.flow.inputs)
    for name in config.columns:
        if name not in inputs:
            fix = f"The inputs are {', '.join(inputs)}{did_you_mean(name, inputs)}"
            raise OpsError(f"columns: no flow has the input {name!r}", fix)


@dataclass(frozen=True)
class _CellBuilder:
    """Builds the cells of a sweep, and one flow for all cells that differ only outside their flow."""

    config: SweepConfig
    prompts: Mapping[str, PromptFlow]
    staging: Path
    data_sha256: str

    def build(self, letter: str, combination: _Combination) -> Cell:
        prompt = self.prompts[combination.prompt]
        settings = prompt.settings(combination.parameters)
        where = f"the cell {combination.label!r}"
        folder = self._flow_folder(prompt, settings)
        flow = load_checked_flow(where, folder)
        load_checked_tools(where, flow, combination.connection)
        connections = connections_of(flow, combination.connection)
        cell = Cell(
            letter=letter,
            prompt=combination.prompt,
            connection=combination.connection,
            parameters=combination.parameters,
            flow=folder,
            flow_sha256=content_hash(folder),
            columns=self._columns(folder, settings),
            connections=connections,
            calls_per_line=sum("connection" in node.inputs for node in flow.line_nodes),
            fingerprint="",
        )
        return replace(cell, fingerprint=parts_sha256(self._parts(cell)))

    def _flow_folder(self, prompt: PromptFlow, settings: FlowSettings) -> Path:
        parts = [prompt.name.encode(), json.dumps(settings.node_inputs, sort_keys=True).encode()]
        folder = self.staging / parts_sha256(parts)[:SHORT_HASH]
        if not folder.exists():
            prompt.write(settings, folder)
        return folder

    def _columns(self, folder: Path, settings: FlowSettings) -> dict[str, str]:
        flow = FlowDefinition.read(folder)
        mapping = {name: text for name, text in self.config.columns.items() if name in flow.inputs}
        mapping |= {name: value_text(value) for name, value in settings.flow_inputs.items()}
        try:
            return choose_columns(flow, self.config.data, mapping)
        except OpsError as error:
            fix = "Set the source in `columns`, for example question: ${data.question}."
            raise OpsError(f"{self.config.data}: {error.what}", fix) from error

    def _parts(self, cell: Cell) -> Iterator[bytes]:
        """Yield everything that the answers of a cell depend on, as far as it can be known."""
        endpoints = RunProperties.of_flow(cell.flow, cell.connections).endpoints or {}
        facts = {node: endpoint.to_json() for node, endpoint in endpoints.items()}
        yield cell.flow_sha256.encode()
        yield self.data_sha256.encode()
        for value in (cell.columns, cell.connections, facts):
            yield json.dumps(value, sort_keys=True).encode()


def _is_same(value: Value, other: Value) -> bool:
    return isinstance(value, bool) == isinstance(other, bool) and value == other
