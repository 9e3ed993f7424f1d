"""Files: complete or not at all, locked, and marked as this product's own.

A marker file lists the files that a command wrote; only those may a command replace or delete. This room
may import the top-level modules only.
"""

from __future__ import annotations

from .atomic import atomic_folder, new_folder
from .json_files import load_json_object, read_jsonl, write_json, write_jsonl
from .locks import file_lock, try_lock, wait_for_lock
from .ownership import (
    MARKER_FILE,
    begin_writing,
    find_foreign_file,
    finish_writing,
    read_marker,
    record_connection,
    record_files,
    refuse_foreign_files,
    remove_own_files,
    require_own_folder,
    stage_marker,
)
from .private import private_folder

__all__ = [
    "MARKER_FILE",
    "atomic_folder",
    "begin_writing",
    "file_lock",
    "find_foreign_file",
    "finish_writing",
    "load_json_object",
    "new_folder",
    "private_folder",
    "read_jsonl",
    "read_marker",
    "record_connection",
    "record_files",
    "refuse_foreign_files",
    "remove_own_files",
    "require_own_folder",
    "stage_marker",
    "try_lock",
    "wait_for_lock",
    "write_json",
    "write_jsonl",
]
