"""Files and folders that are written completely or not at all, and JSONL."""

from __future__ import annotations

import pytest

from phi3_ops import files
from phi3_ops.errors import OpsError


def test_a_file_appears_completely_or_not_at_all(tmp_path):
    target = tmp_path / "deep" / "file.txt"
    target.parent.mkdir()
    target.write_text("old")
    with pytest.raises(RuntimeError), files.atomic_file(target) as file:
        file.write("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(target.parent.iterdir()) == [target]


def test_rows_come_back_as_written(tmp_path):
    rows = [{"text": 'ü "quoted" \\ \u2028 \n', "n": 1}, {"text": ""}]
    files.write_jsonl(tmp_path / "rows.jsonl", rows)
    assert files.read_jsonl(tmp_path / "rows.jsonl") == rows


def test_a_byte_order_mark_and_empty_lines_are_not_rows(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}')
    assert files.read_jsonl(tmp_path / "rows.jsonl") == [{"a": 1}, {"a": 2}]


def test_the_error_names_a_folder_that_cannot_be_created(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OpsError, match="cannot write"):
        files.write_json(tmp_path / "file" / "x.json", {})


def write_folder(folder, last="last"):
    with files.atomic_folder(folder, last=last) as staging:
        for name in ("a", last):
            (staging / name).write_text("new")


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_folder_changes_completely(tmp_path):
    write_folder(tmp_path / "deep" / "folder")
    assert contents(tmp_path / "deep" / "folder") == {"a": "new", "last": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


def test_a_folder_is_not_created_on_an_error(tmp_path):
    with pytest.raises(RuntimeError), files.atomic_folder(tmp_path / "folder", last="x") as staging:
        (staging / "a").write_text("new")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failing_move", range(5))
def test_earlier_files_return_when_a_move_fails(tmp_path, monkeypatch, failing_move):
    """Two earlier files move out, the last one first; then the new files move in, the last one last."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("a", "last", "other"):
        (folder / name).write_text("old")
    moves = []
    replace = files.os.replace

    def fail(old, new):
        moves.append((old.parent.name, new.name))
        if len(moves) == failing_move + 1:
            raise KeyboardInterrupt
        replace(old, new)

    monkeypatch.setattr(files.os, "replace", fail)
    if failing_move < 4:
        with pytest.raises(KeyboardInterrupt):
            write_folder(folder)
        assert contents(folder) == {"a": "old", "last": "old", "other": "old"}
    else:
        write_folder(folder)
        assert contents(folder) == {"a": "new", "last": "new", "other": "old"}
        assert [name for _, name in moves] == ["last", "a", "a", "last"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "rows.jsonl does not exist. Check the path."),
        (b'{"a": 1}\n{', "rows.jsonl, line 2: not JSON"),
        (b"[1]", "rows.jsonl, line 1: not a JSON object. Give one JSON object per line."),
        (b"\xff", "rows.jsonl is not UTF-8 \\(byte 0\\)"),
    ],
)
def test_the_error_names_a_file_that_cannot_be_read(tmp_path, content, message):
    if content is not None:
        (tmp_path / "rows.jsonl").write_bytes(content)
    with pytest.raises(OpsError, match=message):
        files.read_jsonl(tmp_path / "rows.jsonl")


@pytest.mark.parametrize("exists", [False, True])
def test_a_new_folder_appears_when_it_is_complete(tmp_path, exists):
    target = tmp_path / "deep" / "target"
    if exists:
        target.mkdir(parents=True)
    with files.new_folder(target) as staging:
        staging.mkdir()
        (staging / "a").write_text("a")
        assert not target.exists() or not list(target.iterdir())
    assert [path.name for path in target.iterdir()] == ["a"]
    assert list(target.parent.iterdir()) == [target]


def test_after_an_error_there_is_no_new_folder(tmp_path):
    with pytest.raises(RuntimeError), files.new_folder(tmp_path / "target") as staging:
        staging.mkdir()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_is_not_replaced(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(OpsError, match="is not empty"), files.new_folder(path):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
