"""A folder with the files of a quickstart."""

from __future__ import annotations

from phi3_ops.files.ownership import finish_writing, record_files


def quickstart_folder(workdir):
    """Write files as a quickstart does, without its time."""
    for name in ("data/train.jsonl", "model/model/config.json", "model/metrics.json"):
        (workdir / name).parent.mkdir(parents=True, exist_ok=True)
        (workdir / name).write_text("{}")
    (workdir / "summary.json").write_text("{}")
    record_files(workdir, ["summary.json"])
    finish_writing(workdir / "data", ["train.jsonl"])
    finish_writing(workdir / "model", ["model", "metrics.json"])
    return workdir
