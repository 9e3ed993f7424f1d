"""A `.json` file with one array of objects is read element by element."""

from __future__ import annotations

import json

import pytest

from phi3_ops.data import json_array, line_limits
from phi3_ops.data.formats import FORMATS
from phi3_ops.data.json_array import array_elements, is_array
from phi3_ops.data.sources import open_source
from phi3_ops.errors import OpsError

ROWS = [{"question": f"Who is {n}?", "answer": f'"{n}" is [{n}] in {{}}, é\\'} for n in range(50)]


@pytest.fixture
def file(tmp_path):
    def write(text: str, name: str = "mine.json"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def read(path):
    return [element for _, element, _ in array_elements(path)]


@pytest.mark.parametrize("indent", [None, 0, 2])
@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_the_rows(file, monkeypatch, indent, chunk):
    monkeypatch.setattr(json_array, "CHUNK", chunk)
    path = file("\ufeff\n " + json.dumps(ROWS, indent=indent) + "\n")
    assert is_array(path)
    assert read(path) == ROWS


@pytest.mark.parametrize(
    ("text", "elements"),
    [("[]", []), (" [ ] ", []), ("[12, 3]", [12, 3]), ("[[1], null]", [[1], None])],
)
def test_other_arrays(file, monkeypatch, text, elements):
    monkeypatch.setattr(json_array, "CHUNK", 1)
    assert read(file(text)) == elements


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[1 2]", "line 1: ']' is missing"),
        ('[{"a": 1},\n{"a" 2}]', "line 2: not JSON"),
        ('[{"a": 1},\n', "line 2: not JSON"),
        ("[1", "line 1: ']' is missing"),
        ("[1] [2]", "line 1: there is text after the array"),
        ("[" * 200_000, "line 1: it is nested too deeply"),
    ],
)
def test_other_files_are_refused(file, text, problem):
    with pytest.raises(OpsError) as caught:
        read(file(text))
    assert problem in caught.value.what and "one array of objects" in caught.value.fix


def test_a_row_has_a_limit(file, monkeypatch):
    monkeypatch.setattr(json_array, "CHUNK", 8)
    monkeypatch.setattr(line_limits, "MAX_LINE", 100)
    with pytest.raises(OpsError, match="the row that begins in line 2 is longer than 100 bytes"):
        read(file('[{"a": 1},\n{"a": "' + "x" * 1000 + '"}]'))


def test_a_syntax_error_in_a_large_file_is_not_a_long_row(file, monkeypatch):
    monkeypatch.setattr(json_array, "CHUNK", 8)
    monkeypatch.setattr(line_limits, "MAX_LINE", 100)
    text = '[{"a": 1},\n{"a" 2},\n' + '{"a": 3},\n' * 100 + '{"a": 4}]'
    with pytest.raises(OpsError, match=r"line 2: not JSON \(Expecting ':' delimiter\)"):
        read(file(text))


def test_another_encoding_is_refused(tmp_path):
    path = tmp_path / "mine.json"
    path.write_bytes(b'[{"a": "\xff"}]')
    with pytest.raises(OpsError, match="is not UTF-8"):
        read(path)


@pytest.mark.parametrize(
    ("text", "name"), [('{"a": 1}', "mine.json"), ("[1]", "mine.jsonl"), ("", "mine.json")]
)
def test_other_files_are_read_line_by_line(file, text, name):
    assert not is_array(file(text, name))


def test_the_source_of_a_training(file):
    path = file(json.dumps(ROWS, indent=1))
    source = open_source(path, split=None, revision=None, columns=None)
    assert source.columns[:2] == ("question", "answer")
    ((_, rows),) = source.parts
    first, second, *_ = rows
    assert [first.line, second.line] == [2, 6]
    assert first.row["messages"][0] == {"role": "user", "content": "Who is 0?"}


def test_a_row_that_is_not_valid_is_a_problem_of_that_row(file):
    path = file('[{"prompt": "\\ud800", "answer": "a"}, 3, {"prompt": "p", "answer": "a"}]')
    rows = list(FORMATS[".json"](path, None))
    assert [bool(row.problem) for row in rows] == [True, False, False]
    assert rows[2].row == {"prompt": "p", "answer": "a"}
