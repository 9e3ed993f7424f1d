"""The one YAML loader: plain types only, and no file unfolds."""

from __future__ import annotations

import ast
import time
import tracemalloc
from pathlib import Path

import pytest
import yaml

from phi3_ops import paths, yaml_files
from phi3_ops.azure.config import load_config
from phi3_ops.comparison.thresholds import load_thresholds
from phi3_ops.endpoint.fault_rules import FaultError, load_fault_rules
from phi3_ops.errors import OpsError
from phi3_ops.flows.definition import FlowDefinition
from phi3_ops.runs import store
from phi3_ops.yaml_files import MAX_BYTES, RepeatedKeyError, load_yaml, parse_yaml

LEVELS = "abcdefgh"


def bomb(levels: int = 8, width: int = 9) -> str:
    """Nested aliases, as in the review: `width` to the power of `levels - 1` values."""
    lines = [f"a: &a [{', '.join(['x'] * width)}]"]
    for below, level in zip(LEVELS, LEVELS[1:levels]):
        lines.append(f"{level}: &{level} [{', '.join([f'*{below}'] * width)}]")
    return "\n".join(lines) + "\n"


def merge_bomb() -> str:
    """The same with merge keys, which copy entries while the file is read."""
    keys = ", ".join(f"k{number}: 1" for number in range(9))
    lines = [f"a: &a {{{keys}}}"]
    for below, level in zip(LEVELS, LEVELS[1:]):
        lines.append(f"{level}: &{level} {{<<: [{', '.join([f'*{below}'] * 9)}]}}")
    return "\n".join(lines) + "\n"


def test_plain_values():
    text = "a: &a {b: [1, 2.5, null, true, x]}\nc: *a\n"
    inner = {"b": [1, 2.5, None, True, "x"]}
    assert parse_yaml(text) == {"a": inner, "c": inner}
    assert parse_yaml("") is None


@pytest.mark.finding(
    13,
    "YAML aliases that unfold a billionfold",
    "size, depth and aliases of every YAML file are limited",
)
@pytest.mark.parametrize("text", [bomb(), merge_bomb()], ids=["aliases", "merge"])
def test_aliases_do_not_unfold(text):
    start = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(yaml.YAMLError, match="its aliases unfold to more than 10000 values"):
            parse_yaml(text)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [*a]", "contains itself"),
        ("[" * 200 + "]" * 200, "nested deeper than 100 levels"),
        ("[" * 100_000, "nested deeper|expected|did not find"),
        ("!!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("a: 2024-13-45", "month must be"),
        ("a: 1\n---\nb: 2", "expected a single document"),
        ("a: [", "expected|did not find"),
        (f"a: {'9' * 5000}", "Exceeds the limit"),
        ("? [a]\n: b", "unhashable"),
    ],
)
def test_what_is_not_plain_is_an_error(text, message):
    with pytest.raises(yaml.YAMLError, match=message):
        parse_yaml(text)


def test_a_long_file_is_not_read(tmp_path):
    (tmp_path / "f").write_text("#" * (MAX_BYTES + 1))
    with pytest.raises(yaml.YAMLError, match="longer than 1 MiB"):
        load_yaml(tmp_path / "f")
    with pytest.raises(OSError):
        load_yaml(tmp_path / "none")


def test_every_file_that_a_user_gives_is_read_with_these_limits(tmp_path):
    file = tmp_path / "flow.dag.yaml"
    file.write_text(bomb())
    message = "its aliases unfold to more than 10000 values"
    with pytest.raises(OpsError, match=message):
        load_config(file)
    with pytest.raises(OpsError, match=message):
        load_thresholds(file)
    with pytest.raises(FaultError, match=message):
        load_fault_rules(file)
    with pytest.raises(OpsError, match="is not a valid flow"):
        FlowDefinition.read(tmp_path)
    assert store._flow_facts(tmp_path) == {}


def test_a_key_that_appears_twice_can_be_refused():
    text = "a: {b: 1}\nc:\n  b: &m {x: 1}\n  d: {<<: *m, <<: *m, x: 2}\n"
    assert parse_yaml(text, unique_keys=True)["c"]["d"] == {"x": 2}
    with pytest.raises(RepeatedKeyError, match="line 5: the key `b` appears twice"):
        parse_yaml(text + "  b: 2\n", unique_keys=True)
    assert parse_yaml("a: 1\na: 2\n") == {"a": 2}


def test_no_other_module_parses_yaml():
    for file in sorted(paths.PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            loads = isinstance(node, ast.Attribute) and node.attr in (
                "load",
                "safe_load",
                "load_all",
                "safe_load_all",
                "full_load",
            )
            if loads and isinstance(node.value, ast.Name) and node.value.id == "yaml":
                assert file == Path(yaml_files.__file__), f"{file}:{node.lineno}"
