"""Exports: all files or none, and one line for bad input."""

from __future__ import annotations

import shutil
import sys
import types
from contextlib import contextmanager

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.take_home import export, tokenizer_check
from phi3_ops.take_home.export import export_model


@pytest.fixture(autouse=True)
def unchecked(monkeypatch):
    """llama.cpp is not asked about the tokenizer: test_tokenizer_check.py does that."""
    monkeypatch.setattr(export, "check_tokenizer", lambda source, folder: None)


def test_gguf_files_and_a_card(tiny_model_dir, tmp_path):
    messages = []
    exported = export_model(
        str(tiny_model_dir), "gguf", ["q8_0", "q4_k_m"], tmp_path / "out", name="My model",
        notify=messages.append,
    )  # fmt: skip
    names = sorted(path.name for path in exported.folder.iterdir())
    assert names == [".phi3-made", "My-model-Q4_K_M.gguf", "My-model-Q8_0.gguf", "README.md"]
    card = (exported.folder / "README.md").read_text()
    assert "# My model for llama.cpp and LM Studio" in card
    for file in exported.files:
        assert file.sha256 in card and (exported.folder / file.name).stat().st_size == file.size
    assert exported.files[0].bits_per_weight > 8 > exported.files[1].bits_per_weight
    assert "because the length of their rows" in exported.notes[0]  # 128 columns
    assert messages[-1] == "writing My-model-Q4_K_M.gguf"


def test_ollama(tiny_model_dir, tmp_path):
    exported = export_model(str(tiny_model_dir), "ollama", ["f16", "q4_0"], tmp_path, system="Hi.")
    assert "F16.gguf" in (exported.folder / "Modelfile").read_text()
    second = (exported.folder / "Modelfile.q4_0").read_text()
    assert "Q4_0.gguf" in second and 'SYSTEM """Hi."""' in second
    assert "ollama create tiny-phi3 -f Modelfile" in (exported.folder / "README.md").read_text()


def test_a_wrong_system_message_is_refused_before_anything_is_written(
    tiny_model_dir, tmp_path, monkeypatch
):
    monkeypatch.setattr(export, "write_gguf", None)
    with pytest.raises(OpsError, match="system message"):
        export_model(str(tiny_model_dir), "ollama", ["f16"], tmp_path / "out", system='"""')
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_export_is_replaced_and_a_file_of_others_is_not(tiny_model_dir, tmp_path):
    arguments = (str(tiny_model_dir), "gguf", ["f16"], tmp_path / "out")
    export_model(*arguments)
    export_model(*arguments)
    (tmp_path / "out" / "tiny-phi3-Q8_0.gguf").write_text("mine")
    with pytest.raises(OpsError, match="Q8_0.gguf exists, and phi3 did not write it"):
        export_model(str(tiny_model_dir), "gguf", ["q8_0"], tmp_path / "out")
    assert (tmp_path / "out" / "tiny-phi3-Q8_0.gguf").read_text() == "mine"


def test_a_failure_leaves_nothing(tiny_model_dir, tmp_path, monkeypatch):
    def fail(source, path, quantization, report):
        path.write_bytes(bytes(1000))
        raise OpsError("the third matrix is damaged")

    monkeypatch.setattr(export, "write_gguf", fail)
    with pytest.raises(OpsError, match="third matrix"):
        export_model(str(tiny_model_dir), "gguf", ["f16"], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_small(tiny_model_dir, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(export.shutil, "disk_usage", lambda folder: usage._replace(free=10**6))
    with pytest.raises(OpsError, match=r"needs up to \d+ MB in .*out, and the disk has 1 MB free"):
        export_model(str(tiny_model_dir), "gguf", ["f16"], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@contextmanager
def no_builder(monkeypatch, *, code, error="", files=()):
    """Replace ONNX Runtime GenAI's builder, which takes half a minute."""
    from pathlib import Path

    from phi3_ops.take_home import onnx_folder

    def run(command, **options):
        folder = Path(command[command.index("-o") + 1])
        for name in files:
            (folder / name).write_text("{}")
        return types.SimpleNamespace(returncode=code, stderr=error)

    monkeypatch.setattr(onnx_folder.subprocess, "run", run)
    yield


FILES = ("model.onnx", "genai_config.json", "tokenizer_config.json")


def test_foundry_local(tiny_model_dir, tmp_path, monkeypatch):
    import json

    with no_builder(monkeypatch, code=0, files=FILES):
        exported = export_model(str(tiny_model_dir), "foundry-local", [], tmp_path / "out")
    document = json.loads((exported.folder / "inference_model.json").read_text())
    assert document["PromptTemplate"]["user"] == "<|user|>\n{Content}<|end|>"
    assert document["PromptTemplate"]["prompt"] == "<|user|>\n{Content}<|end|>\n<|assistant|>"
    assert (exported.folder / "chat_template.jinja").is_file()
    assert "foundry model run tiny-phi3" in (exported.folder / "README.md").read_text()


def test_onnx_has_no_file_for_foundry_local(tiny_model_dir, tmp_path, monkeypatch):
    with no_builder(monkeypatch, code=0, files=FILES):
        exported = export_model(str(tiny_model_dir), "onnx", ["fp32"], tmp_path / "out")
    assert not (exported.folder / "inference_model.json").exists()
    assert "og.Model" in (exported.folder / "README.md").read_text()


@pytest.mark.parametrize(("code", "files"), [(1, FILES), (0, ())])
def test_a_conversion_that_fails(tiny_model_dir, tmp_path, monkeypatch, code, files):
    failure = no_builder(monkeypatch, code=code, error="Traceback\nValueError: no\n", files=files)
    with failure, pytest.raises(OpsError, match=r"cannot convert .*: ValueError: no"):
        export_model(str(tiny_model_dir), "onnx", [], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_package_is_missing(tiny_model_dir, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime_genai", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(OpsError, match=r"onnxruntime_genai, which is not installed. Run: pip"):
        export_model(str(tiny_model_dir), "onnx", [], tmp_path / "out")


def test_the_check_of_the_tokenizer_comes_first(tiny_model_dir, tmp_path, monkeypatch):
    def refuse(source, folder):
        raise OpsError("llama.cpp tokenizes differently")

    monkeypatch.setattr(export, "check_tokenizer", refuse)
    with pytest.raises(OpsError, match="tokenizes differently"):
        export_model(str(tiny_model_dir), "gguf", ["f16"], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    assert tokenizer_check.check_tokenizer is not refuse
