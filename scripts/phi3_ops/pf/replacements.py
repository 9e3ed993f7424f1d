"""Faster functions for parts of Prompt flow's batch engine. Each one returns or writes the same values.

`limited_engine` puts them in place; `expectations` lists the parts that they replace.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..files import read_jsonl, write_jsonl
from .expectations import LINE_NUMBER

_JSON_SCALARS = frozenset({str, int, float, bool, type(None)})


def unconverted_loader(stock: Callable[..., list[dict[str, Any]]]) -> Callable[..., Any]:
    """Return a `load_data` that leaves the values of a JSONL file unchanged.

    Prompt flow reads data through pandas, which converts a column to timestamps if its name looks like a
    date, and rounds numbers. As in Prompt flow, every row has every column; a missing value is null.

    Args:
        stock: Prompt flow's function, for files of other formats.
    """

    def load_data(
        local_path: Path, *, logger: Any = None, max_rows_count: int | None = None
    ) -> list[dict[str, Any]]:
        if Path(local_path).suffix != ".jsonl":
            return stock(local_path, logger=logger, max_rows_count=max_rows_count)
        rows = read_jsonl(Path(local_path))[:max_rows_count]
        columns = {name: None for row in rows for name in row}
        return [{**columns, **row} for row in rows]

    return load_data


def cached_tool_lister(manager: Any) -> Callable[..., dict[str, Any]]:
    """Return a `collect_package_tools` that reads only the packages that the keys name, and only once.

    Prompt flow reads the tools of every installed package five times in one run.

    Args:
        manager: Prompt flow's module with that function.
    """
    cache: dict[tuple[str, ...], dict[str, Any]] = {}
    collect, entry_points = manager.collect_package_tools, manager._get_entry_points_by_group

    def collect_named_packages(keys: Sequence[str] | None) -> dict[str, Any]:
        packages = {key.partition(".")[0] for key in keys or ()}
        manager._get_entry_points_by_group = lambda group: [
            point for point in entry_points(group) if point.module.partition(".")[0] in packages
        ]
        try:
            tools: dict[str, Any] = collect(keys)
            return tools
        finally:
            manager._get_entry_points_by_group = entry_points

    def collect_package_tools(keys: Sequence[str] | None = None) -> dict[str, Any]:
        wanted = tuple(sorted(set(keys or ())))
        if wanted not in cache:
            cache[wanted] = collect_named_packages(keys)
            if cache[wanted].keys() != set(wanted):  # another package may list a tool as well
                cache[wanted] = collect(keys)
        return copy.deepcopy(cache[wanted])

    return collect_package_tools


def fast_serializer(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Return a `serialize` that handles JSON's own types itself.

    Prompt flow tests each string for being a connection or a pydantic model.

    Args:
        stock: Prompt flow's function, for values of other types.
    """

    def serialize(value: Any, remove_null: bool = False, serialization_funcs: Any = None) -> Any:
        kind = type(value)
        if kind in _JSON_SCALARS:
            return value
        if kind is dict:
            return {
                name: serialize(inner, remove_null, serialization_funcs)
                for name, inner in value.items()
            }
        if kind is list:
            return [serialize(inner, remove_null, serialization_funcs) for inner in value]
        return stock(value, remove_null, serialization_funcs)

    return serialize


def dump_json_at_once(value: Any, path: Path) -> None:
    """Write the file that `json.dump` writes, in one write instead of thousands of small ones."""
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8", newline="\n")


def dump_inputs_and_outputs(storage: Any) -> None:
    """Write the inputs and outputs that `pf run show-details` reads, from the records of the lines.

    Prompt flow does it with pandas, whose import alone takes longer.

    Args:
        storage: Prompt flow's `LocalStorageOperations` of the run.
    """
    files = sorted(storage._run_infos_folder.glob("*.jsonl"))
    infos = [record["run_info"] for file in files for record in read_jsonl(file)]
    answered = [info for info in infos if info["output"] is not None]
    write_jsonl(storage._sdk_inputs_path, (info["inputs"] for info in infos))
    write_jsonl(
        storage._sdk_output_path,
        ({**info["output"], LINE_NUMBER: info["index"]} for info in answered),
    )


def shared_line_pool(threads: ThreadPoolExecutor) -> Callable[..., Any]:
    """Return a class that replaces the thread pool of each line by one pool for all lines.

    Each call runs in the context of its line.

    Args:
        threads: runs the sync tools of all lines.
    """

    class LinePool:
        def __init__(self, max_workers: int, initializer: Any, initargs: tuple[Any, ...]) -> None:
            (self._context,) = initargs

        def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
            # A context can be entered only once at a time, and nodes may run at the same time: copy it.
            return threads.submit(self._context.copy().run, function, *args)

        def shutdown(self, wait: bool = True) -> None:
            pass

    return LinePool
