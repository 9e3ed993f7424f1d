"""The functions that replace parts of Prompt flow return and write what Prompt flow's own do."""

from __future__ import annotations

import contextvars
import dataclasses
import datetime
import enum
import json
import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pydantic
from hypothesis import given
from hypothesis import strategies as st

from phi3_ops.pf.client import prepare
from phi3_ops.pf.replacements import (
    cached_tool_lister,
    dump_json_at_once,
    fast_serializer,
    shared_line_pool,
    unconverted_loader,
)


def test_tools_are_those_that_promptflow_lists():
    prepare()
    from promptflow._core import tools_manager

    for keys in (
        ["phi3_tools.pf_tools.phi3_chat"],
        ["phi3_tools.pf_tools.phi3_chat", "promptflow.tools.open_model_llm.OpenModelLLM.call"],
        # listed by a package whose name does not begin the key: as a tool's former name is
        ["embeddingstore.tool.vector_index_lookup.search"],
        ["no.such.tool"],
        [],
    ):
        assert cached_tool_lister(tools_manager)(keys) == tools_manager.collect_package_tools(keys)


def test_only_the_packages_of_the_keys_are_read(monkeypatch):
    prepare()
    from promptflow._core import tools_manager

    read = []
    collect = tools_manager.collect_package_tools
    points = tools_manager._get_entry_points_by_group

    def seen(keys):
        read.append([p.module for p in tools_manager._get_entry_points_by_group("package_tools")])
        return collect(keys)

    monkeypatch.setattr(tools_manager, "collect_package_tools", seen)
    listed = cached_tool_lister(tools_manager)
    first, second = (listed(["phi3_tools.pf_tools.phi3_chat"]) for _ in range(2))
    assert read == [["phi3_tools.pf_tools"]]
    assert first == second and first is not second
    assert tools_manager._get_entry_points_by_group is points


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Record:
    value: object
    nothing: object = None


class Model(pydantic.BaseModel):
    value: int


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
special = (
    st.datetimes()
    | st.sampled_from(Colour)
    | st.builds(Model, value=st.integers())
    | st.tuples(st.text())
    | st.binary()
)
values = st.recursive(
    plain | special,
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(), inner) | st.builds(Record, value=inner)
    ),
)


@given(values, st.booleans())
def test_values_are_written_as_promptflow_writes_them(value, remove_null):
    prepare()
    from promptflow.tracing._utils import serialize

    assert fast_serializer(serialize)(value, remove_null) == serialize(value, remove_null)


def test_what_is_to_be_written_by_a_function_of_its_own_is():
    prepare()
    from promptflow.tracing._utils import serialize

    own = {datetime.date: lambda value: value.year}
    value = {"a": [datetime.date(2024, 1, 2), "b", math.pi]}
    assert fast_serializer(serialize)(value, False, own) == {"a": [2024, "b", math.pi]}


def test_json_is_the_same_file(tmp_path):
    value = {"text": "häuser \U0001f600", "list": [1, 0.1, None, True]}
    dump_json_at_once(value, tmp_path / "ours.json")
    with (tmp_path / "stock.json").open("w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False)
    assert (tmp_path / "ours.json").read_bytes() == (tmp_path / "stock.json").read_bytes()


def test_every_row_has_every_column_and_values_are_unchanged(tmp_path):
    file = tmp_path / "data.jsonl"
    file.write_text(
        '{"created_at": "2024-01-02T03:04:05Z", "n": 0.12345678901234567}\n{"q": "007"}\n'
    )
    load_data = unconverted_loader(lambda *args, **options: ["stock"])
    first, second = load_data(file)
    assert first == {"created_at": "2024-01-02T03:04:05Z", "n": 0.12345678901234567, "q": None}
    assert second == {"created_at": None, "n": None, "q": "007"}
    assert load_data(file, max_rows_count=1) == [
        {"created_at": first["created_at"], "n": first["n"]}
    ]


def test_other_formats_are_left_to_prompt_flow(tmp_path):
    seen = []

    def stock(path, logger=None, max_rows_count=None):
        seen.append((path, max_rows_count))
        return ["stock"]

    assert unconverted_loader(stock)(tmp_path / "data.csv", max_rows_count=3) == ["stock"]
    assert seen == [(tmp_path / "data.csv", 3)]


def test_lines_share_threads_and_keep_their_own_context():
    name = contextvars.ContextVar("name")
    contexts = []
    for value in ("a", "b"):
        context = contextvars.copy_context()
        context.run(name.set, value)
        contexts.append(context)
    with ThreadPoolExecutor(1) as threads:
        pool = shared_line_pool(threads)
        read = lambda: (name.get(), threading.get_ident())  # noqa: E731
        (a, first), (b, second) = (pool(4, None, (c,)).submit(read).result() for c in contexts)
        pool(4, None, (contexts[0],)).shutdown()
        assert threads.submit(int).result() == 0  # the shared threads go on
    assert (a, b) == ("a", "b") and first == second
