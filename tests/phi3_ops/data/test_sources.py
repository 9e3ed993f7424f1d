"""Sources: files, folders, and whatever cannot be opened or read."""

from __future__ import annotations

import json

import pytest

from chats import chat_row, prepare, write_parquet, write_rows, written, written_by_number
from phi3_ops.data.sources import check_source, open_source
from phi3_ops.errors import OpsError

CHATS = [chat_row(f"q{n}", f"a{n}", n=n) for n in range(10)]


def open_files(source, **options):
    return open_source(source, **{"split": None, "revision": None, "columns": None, **options})


def test_a_folder_and_duplicates_across_its_files(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    write_rows(folder / "a.jsonl", CHATS[:6])
    write_parquet(folder / "b.parquet", CHATS[4:])
    (folder / "readme.md").write_text("not data")
    manifest = prepare(tmp_path, folder)
    assert manifest.source_files.keys() == {"a.jsonl", "b.parquet"}
    assert written_by_number(tmp_path) == CHATS
    (first, _) = written(tmp_path, "rejects")
    assert (first["file"], first["line"]) == ("b.parquet", 1)
    assert first["detail"] == "same text as a.jsonl, line 5"


def test_the_rows_of_each_file_are_a_part(tmp_path):
    write_rows(tmp_path / "b.JSONL", CHATS[:1])
    write_rows(tmp_path / "a.ndjson", CHATS[1:3])
    (tmp_path / "sub.jsonl").mkdir()
    source = open_files(tmp_path)
    assert [path.name for path in source.files] == ["a.ndjson", "b.JSONL"]
    parts = [(name, [row.row for row in rows]) for name, rows in source.parts]
    assert parts == [
        (str(tmp_path / "a.ndjson"), CHATS[1:3]),
        (str(tmp_path / "b.JSONL"), CHATS[:1]),
    ]
    assert source.origin.name == tmp_path.name and source.origin.revision is None


def test_a_folder_without_data_is_refused(tmp_path):
    (tmp_path / "readme.md").write_text("not data")
    with pytest.raises(OpsError, match="contains no data file"):
        open_files(tmp_path)


@pytest.mark.parametrize("options", [{"split": "train[:1]"}, {"revision": "main"}])
def test_options_of_the_hub_are_refused_for_a_file(tmp_path, options):
    path = write_rows(tmp_path / "in.jsonl", CHATS)
    with pytest.raises(OpsError, match="is not on the hub"):
        open_files(path, **options)


UTF16 = '{"messages": []}\n'
UNUSABLE = {
    "missing": ("none.jsonl", None, "does not exist"),
    "UTF-16 marked": ("in.jsonl", UTF16.encode("utf-16"), "UTF-16 or binary, not UTF-8"),
    "UTF-16": ("in.csv", UTF16.encode("utf-16-le"), "UTF-16 or binary, not UTF-8"),
    "empty": ("in.jsonl", b"", "has no rows"),
    "one row": ("in.jsonl", json.dumps(chat_row("x")).encode(), "has 1 good row. At least 2"),
    "one bad row": ("in.jsonl", b"{\n", "in.jsonl, line 1: not JSON"),
    "header only": ("in.csv", b"prompt,answer\n", "has no rows"),
    "columns": ("in.csv", b"text,label\nq,a\n", "the columns text, label; which are the question"),
    "one column": ("in.csv", b"text\nq\n", "has only the column 'text'"),
    "no Parquet": ("in.parquet", b"PAR1 not really", "cannot read"),
    "format": ("in.txt", b"x", "the format of"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_an_unusable_source_is_named_and_nothing_is_written(tmp_path, case):
    name, content, message = UNUSABLE[case]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(OpsError) as caught:
        prepare(tmp_path, tmp_path / name)
    assert message in str(caught.value) and str(tmp_path / name) in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["", "question,answer\n"])
def test_an_empty_file_is_found_before_anything_is_written(tmp_path, content):
    file = tmp_path / "empty.csv"
    file.write_text(content)
    with pytest.raises(OpsError, match="empty.csv has no rows"):
        check_source(file, None)


def test_a_missing_data_file_is_not_looked_for_on_the_hub(tmp_path):
    with pytest.raises(OpsError, match=r"nofile.csv does not exist. Check the path.$"):
        check_source(tmp_path / "nofile.csv", None)
