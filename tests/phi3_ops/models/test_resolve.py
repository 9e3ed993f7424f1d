"""Names of models become folders: converted once, complete or not at all."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from phi3_ops import paths
from phi3_ops.errors import OpsError
from phi3_ops.models import cache as cache_module
from phi3_ops.models import resolve
from phi3_ops.models.resolve import is_converted_here, resolve_folder, resolve_model
from tiny_gguf import write_llama
from wheel_index import NAME

# Resolves a model in another process, as a command does. pip reads its settings from the environment.
CHILD = f"""
import sys, json, signal
from pathlib import Path
from phi3_ops.models.catalog import SHORT_NAMES, PackagedModel
from phi3_ops.models import resolve_model
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job may ignore it
SHORT_NAMES[{NAME!r}] = PackagedModel(**json.loads(sys.argv[1]))
print(resolve_model({NAME!r}))
"""


@pytest.fixture
def conversions(monkeypatch):
    """The files that were converted."""
    files = []
    original = resolve._convert

    def convert(file, *words):
        files.append(file.name)
        original(file, *words)

    monkeypatch.setattr(resolve, "_convert", convert)
    return files


def visible(cache):
    """Return the names in the cache, without the locks."""
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


@pytest.mark.parametrize(
    "name", ["microsoft/Phi-3.5-mini-instruct", "tiny", "phi-3.5-mini", "models/a"]
)
def test_other_names_are_returned_unchanged(name):
    assert resolve_model(name) == Path(name) and not is_converted_here(name)


def test_a_folder_of_that_name_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("smollm2", "x.gguf", "tiny"):
        Path(name).mkdir()
        assert resolve_folder(name) == Path(name)


def test_the_tiny_model_is_not_served_before_a_training():
    with pytest.raises(OpsError, match="made from the training rows during a training. Run"):
        resolve_folder("tiny")


def test_a_short_name_is_fetched_and_converted_once(cache, packaged, conversions, monkeypatch):
    folder = resolve_model(NAME.upper())
    assert folder == cache / NAME
    base = json.loads((folder / "phi3-base.json").read_text())
    assert (base["name"], base["source"]) == ("Tiny-Instruct", packaged.source)
    assert (base["sha256"], base["licence"]) == (packaged.sha256, "mit")
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["Phi3ForCausalLM"]
    assert visible(cache) == [NAME] and not list(folder.glob(".d*"))
    monkeypatch.setattr(sys, "executable", "no-python")
    assert resolve_model(NAME) == folder and conversions == ["tiny.gguf"]


def test_a_gguf_file_is_converted_once_by_its_content(cache, gguf_file, tmp_path, conversions):
    file = tmp_path / "my model (1).gguf"
    shutil.copy(gguf_file, file)
    folder = resolve_model(file)
    assert folder.parent == cache and folder.name.startswith("my-model-1-")
    assert json.loads((folder / "phi3-base.json").read_text())["source"] == f"the file {file.name}"
    assert resolve_model(str(file)) == folder and len(conversions) == 1
    write_llama(file, num_hidden_layers=1)
    assert resolve_model(file) != folder and len(conversions) == 2


def test_a_model_of_an_earlier_conversion_is_converted_again(cache, packaged, conversions):
    folder = resolve_model(NAME)
    base = json.loads((folder / "phi3-base.json").read_text())
    (folder / "phi3-base.json").write_text(json.dumps({**base, "conversion": 0}))
    assert resolve_model(NAME) == folder and len(conversions) == 2


def test_a_folder_of_others_is_not_replaced(cache, packaged):
    (cache / NAME).mkdir(parents=True)
    cache.chmod(0o700)
    (cache / NAME / "mine").touch()
    with pytest.raises(OpsError, match="is not empty"):
        resolve_model(NAME)
    assert visible(cache) == [NAME]


def test_a_file_that_does_not_exist(tmp_path):
    with pytest.raises(OpsError, match="cannot read .*none.gguf: No such file"):
        resolve_model(tmp_path / "none.gguf")


def test_an_unsupported_file_leaves_nothing(cache, tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(OpsError, match="the GGUF file .*: the file is damaged") as caught:
        resolve_model(tmp_path / "a.gguf")
    assert "\n" not in str(caught.value) and visible(cache) == []


def test_a_conversion_without_an_error_line(cache, gguf_file, tmp_path, monkeypatch):
    (tmp_path / "gguf_model.py").write_text("raise SystemExit(7)")
    monkeypatch.setattr(paths, "TRAINING", tmp_path)
    with pytest.raises(OpsError, match="the conversion ended with exit code 7"):
        resolve_model(gguf_file)
    assert visible(cache) == []


def test_a_disk_that_is_too_small(cache, packaged, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=10_000_000)
    monkeypatch.setattr(resolve.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OpsError, match="Tiny-Instruct needs 10. MB in .* has 10 MB free. Delete"):
        resolve_model(NAME)
    assert visible(cache) == []


def test_a_missing_package_is_named_before_anything_is_fetched(cache, packaged, monkeypatch):
    original = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "gguf" else original(name)
    )
    with pytest.raises(OpsError, match=r"needs the package gguf, .* Run: pip install .*\[train\]"):
        resolve_model(NAME)


def child(packaged):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, json.dumps(packaged.__dict__)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_two_processes_at_once_convert_once(cache, packaged):
    processes = [child(packaged) for _ in range(2)]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert [out for out, _ in outputs] == [f"{cache / NAME}\n"] * 2
    lines = [line for _, err in outputs for line in err.splitlines()]
    assert lines.count("converting tiny.gguf") == 1
    assert visible(cache) == [NAME]


@pytest.mark.parametrize("line", ["downloading", "converting"])
@pytest.mark.parametrize("to", ["process", "group"])
def test_ctrl_c_leaves_nothing_and_the_next_try_works(cache, packaged, line, to):
    process = child(packaged)
    while not process.stderr.readline().startswith(line):
        assert process.poll() is None
    if to == "group":  # as a terminal does
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode and "KeyboardInterrupt" in errors
    assert visible(cache) == []
    assert resolve_model(NAME) == cache / NAME


def test_a_killed_process_leaves_nothing_that_counts(cache, packaged):
    process = child(packaged)
    while not process.stderr.readline().startswith("converting"):
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=300)
    assert not (cache / NAME).exists()
    assert resolve_model(NAME) == cache / NAME
    assert visible(cache) == [NAME]


def test_the_command_line_imports_no_torch():
    code = (
        "import sys, phi3_ops.models; print({'torch', 'transformers', 'gguf'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_constants_of_both_sides_are_equal():
    tree = ast.parse((paths.TRAINING / "gguf_model.py").read_text(encoding="utf-8"))
    constants = {
        node.targets[0].id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
    }
    assert constants["BASE_FILE"] == cache_module.BASE_FILE
    assert constants["CONVERSION"] == cache_module.CONVERSION
