"""A dataset on the hub: the unmodified libraries against a local hub that counts the bytes it sends.

Source of the endpoints: the Hub API's reference, and what huggingface_hub asks for.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import http.server
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import zlib
from contextlib import contextmanager

import pytest

from documented_commands import documented
from processes import phi3

NAME = "HuggingFaceH4/ultrachat_200k"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES, GROUPS, GROUP_ROWS = 2, 20, 50
ROWS = FILES * GROUPS * GROUP_ROWS
CARD = """---
configs:
- config_name: default
  data_files:
  - split: train_sft
    path: data/train_sft-*
{info}---
"""
INFO = f"""dataset_info:
  splits:
  - name: train_sft
    num_bytes: 1
    num_examples: {ROWS}
"""


def row(number):
    """A chat of 10 kB that the compression of Parquet does not shorten."""
    answer = random.Random(number).randbytes(5000).hex()
    messages = [{"content": f"q{number}", "role": "user"}, {"content": answer, "role": "assistant"}]
    return {"prompt": f"q{number}", "prompt_id": str(number), "messages": messages}


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """The files of a dataset: the form of the real one, with fewer rows."""
    import pyarrow as pa
    from pyarrow import parquet

    folder = tmp_path_factory.mktemp("hub")
    (folder / "data").mkdir()
    for file in range(FILES):
        first = file * GROUPS * GROUP_ROWS
        table = pa.Table.from_pylist([row(n) for n in range(first, first + GROUPS * GROUP_ROWS)])
        path = folder / "data" / f"train_sft-{file:05}-of-{FILES:05}.parquet"
        parquet.write_table(table, path, row_group_size=GROUP_ROWS)
    (folder / "README.md").write_text(CARD.format(info=INFO))
    return folder


class Hub(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder = None
    sent: list[int]

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        repo = re.escape(NAME)
        if match := re.fullmatch(rf"/datasets/{repo}/resolve/(main|{COMMIT})/(.+)", self.path):
            return self.send_file(match[2])
        if re.fullmatch(rf"/api/datasets/{repo}(/revision/(main|{COMMIT}))?(\?.*)?", self.path):
            files = [p for p in self.folder.rglob("*") if p.is_file()]
            names = [{"rfilename": str(p.relative_to(self.folder))} for p in files]
            return self.send_json({"id": NAME, "sha": COMMIT, "tags": [], "siblings": names})
        if match := re.fullmatch(rf"/api/datasets/{repo}/tree/{COMMIT}/?([^?]*)(\?.*)?", self.path):
            folder = self.folder / match[1]
            return self.send_json([self.info(p) for p in sorted(folder.iterdir())])
        code = "EntryNotFound" if NAME in self.path and "revision" not in self.path else ""
        return self.send(404, b"", {"X-Error-Code": code or "RepoNotFound"})

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send(404, b"", {"X-Error-Code": "EntryNotFound"})

    def info(self, path):
        name = str(path.relative_to(self.folder))
        oid = hashlib.sha1(name.encode()).hexdigest()
        if path.is_dir():
            return {"type": "directory", "oid": oid, "size": 0, "path": name}
        return {"type": "file", "oid": oid, "size": path.stat().st_size, "path": name}

    def send_file(self, name):
        path = self.folder / name
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(name.encode()).hexdigest()}"'}
        if not path.is_file():
            return self.send(404, b"", {**headers, "X-Error-Code": "EntryNotFound"})
        content = path.read_bytes()
        if byte_range := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range") or ""):
            first, last = int(byte_range[1]), min(int(byte_range[2]), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            return self.send(206, content[first : last + 1], headers)
        return self.send(200, content, headers)

    def send_json(self, value):
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def send(self, status, body, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.sent.append(len(body))
            self.wfile.write(body)


@contextmanager
def hub(folder):
    """A running hub: its address, and the bytes of each body that it sent."""
    handler = type("Handler", (Hub,), {"folder": folder, "sent": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.sent
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def fetch(folder, tmp_path, *words):
    """Runs `phi3 data`. Returns the finished process and the number of downloaded bytes."""
    with hub(folder) as (url, sent):
        env = {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
        env["HF_HUB_DISABLE_TELEMETRY"] = "1"
        done = phi3("data", "--source", NAME, "--out", tmp_path / "out", *words, env=env)
        return done, sum(sent)


def prompts(tmp_path):
    files = [(tmp_path / "out" / name).open() for name in ("train.jsonl", "test.jsonl")]
    texts = {json.loads(line)["prompt"] for file in files for line in file}
    for file in files:
        file.close()
    return texts


SIZE = GROUP_ROWS * 10_500  # of a row group, at most
FOOTER = 70_000  # pyarrow reads the last 64 KiB of a file


@documented("phi3 data --source HuggingFaceH4/ultrachat_200k …")
@pytest.mark.parametrize(
    ("words", "rows", "groups", "footers"),
    [
        (("--split", "train_sft[:1%]"), range(20), 1, 1),
        (("--split", "train_sft[50%:52%]"), range(1000, 1040), 1, 2),
        (("--split", "train_sft[990:1010]"), range(990, 1010), 2, 2),
    ],
)
def test_a_slice_and_no_more_is_downloaded(repository, tmp_path, words, rows, groups, footers):
    done, downloaded = fetch(repository, tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert prompts(tmp_path) == {f"q{n}" for n in rows}
    assert GROUP_ROWS * 10_000 * groups < downloaded < SIZE * groups + FOOTER * footers
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["source"] == {"name": NAME, "revision": COMMIT, "split": words[1], "files": {}}


def test_rows_are_counted_if_the_card_does_not_tell(repository, tmp_path):
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / "data").symlink_to(repository / "data")
    (folder / "README.md").write_text(CARD.format(info=""))
    done, downloaded = fetch(folder, tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(prompts(tmp_path)) == ROWS // 100
    assert downloaded < SIZE + FOOTER * 5  # the schema, the rows of each file, the first's group


def test_other_formats_are_streamed(tmp_path):
    (tmp_path / "hub" / "data").mkdir(parents=True)
    (tmp_path / "hub" / "README.md").write_text(CARD.format(info=""))
    rows = [json.dumps(row(n)) for n in range(10)]
    (tmp_path / "hub" / "data" / "train_sft-0.json").write_text("\n".join(rows))
    done, _ = fetch(tmp_path / "hub", tmp_path, "--split", "train_sft[2:6]")
    assert done.returncode == 0, done.stderr
    assert prompts(tmp_path) == {"q2", "q3", "q4", "q5"}


# -- compressed files ------------------------------------------------------------------------------


def dataset(tmp_path, name, content):
    """The folder of a hub with a dataset of one file."""
    folder = tmp_path / "hub"
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text(CARD.format(info=""))
    (folder / "data" / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("suffix", "pack"), [("jsonl.gz", gzip.compress), ("json.bz2", bz2.compress), ("jsonl", bytes)]
)
def test_jsonl_may_be_compressed(tmp_path, suffix, pack):
    lines = [json.dumps(row(n)).encode() for n in range(10)]
    lines[4] = b"\n{not JSON"
    folder = dataset(tmp_path, f"train_sft-0.{suffix}", pack(b"\xef\xbb\xbf" + b"\n".join(lines)))
    done, _ = fetch(folder, tmp_path, "--split", "train_sft[2:8]")
    assert done.returncode == 0, done.stderr
    assert prompts(tmp_path) == {"q2", "q3", "q5", "q6", "q7"}
    (rejected,) = (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()
    assert json.loads(rejected)["line"] == 5 and json.loads(rejected)["text"] == "{not JSON"


def bomb(piece, count):
    """A gzip file that unpacks to `count` times `piece`."""
    packer = zlib.compressobj(wbits=31)
    return b"".join(packer.compress(piece) for _ in range(count)) + packer.flush()


@pytest.mark.finding(
    13,
    "a compressed file of a dataset on the hub that unpacks to gigabytes",
    "JSONL is read up to 100 times its size; other compressed formats are refused",
)
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl.gz", bomb(b" " * (1 << 20), 100), "x.jsonl.gz, line 1 is longer than 16,777,216"),
        (
            "x.jsonl.gz",
            bomb((b" " * 65_535 + b"\n") * 16, 100),
            "106,854 bytes unpack to more than",
        ),
        ("x.csv.gz", b"", "cannot read train_sft-x.csv.gz on the hub: it is compressed. Download"),
        ("x.jsonl.zst", b"", "cannot read train_sft-x.jsonl.zst on the hub: it is compressed."),
    ],
    ids=["one line", "many lines", "csv", "zst"],
)
def test_a_compressed_file_does_not_fill_the_memory(tmp_path, name, content, message):
    folder = dataset(tmp_path, f"train_sft-{name}", content)
    done, _ = fetch(folder, tmp_path, "--split", "train_sft[:5]")
    assert done.returncode == 1 and message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (tmp_path / "out").exists()


WRONG = {
    "split": (("--split", "train"), "Unknown split"),
    "slice": (("--split", "train_sft[:x]"), "train_sft[:x]"),
    "revision": (("--revision", "none"), "none"),
    "column": (("--prompt-column", "question"), "has no column 'question', only prompt"),
}


@pytest.mark.parametrize("case", WRONG)
def test_the_error_for_a_missing_part_is_one_line(repository, tmp_path, case):
    words, message = WRONG[case]
    done, _ = fetch(repository, tmp_path, *words)
    assert done.returncode == 1
    assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (tmp_path / "out").exists()


# The hub's library waits 23 seconds between its attempts.
WITHOUT_WAITS = """
import sys, time
time.sleep = lambda seconds: None
from phi3_ops.cli import entry
sys.exit(entry())
"""


@pytest.mark.finding(
    7,
    "`HF_ENDPOINT` contains a password, and the hub cannot be reached",
    "neither the error nor a warning of the hub's libraries contains it",
)
def test_a_password_of_the_hubs_address_is_not_printed(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # it does not listen, so connections are refused
        url = f"http://user:pass%20word123@127.0.0.1:{unused.getsockname()[1]}"
        env = {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
        words = ("data", "--source", NAME, "--out", tmp_path / "out")
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_WAITS, *map(str, words)],
            env={**os.environ, **env}, cwd=tmp_path, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    assert done.returncode == 1 and "cannot read" in done.stderr
    assert "word123" not in done.stdout + done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_the_error_without_a_hub_is_one_line(tmp_path):
    done = phi3("data", "--source", NAME, env={"HF_HUB_OFFLINE": "1"}, cwd=tmp_path)
    assert done.returncode == 1
    assert "Couldn't reach" in done.stderr and "that the hub can be reached" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
