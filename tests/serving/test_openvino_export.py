"""The export for OpenVINO: where it is kept, when it is made again, and how it fails."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openvino_export
import pytest
from model_files import ModelFiles

HANG_S = 300  # a limit for something that must not hang, never a measurement


def files(folder):
    return ModelFiles(folder, folder)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    monkeypatch.delenv("PHI3_EXPORT_CACHE", raising=False)


def test_an_export_is_kept_in_the_models_folder_and_used_again(tiny_model_dir, scorer, monkeypatch):
    monkeypatch.setattr(openvino_export, "_export", None)  # must not be called
    folder = openvino_export.ensure_export(files(tiny_model_dir), "fp32")
    assert folder.parent == tiny_model_dir
    settings = json.loads((folder / "serving.json").read_text())
    assert settings["context_window"] == scorer.engine.context_window
    assert [f.name for f in tiny_model_dir.glob(".openvino*")] == []


def test_other_weights_or_settings_need_another_export(tiny_model_dir, tmp_path):
    for file in tiny_model_dir.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    digest = openvino_export._digest(files(tmp_path))
    assert digest == openvino_export._digest(files(tiny_model_dir))
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        with open(tmp_path / name, "ab") as file:
            file.write(b" ")
        assert openvino_export._digest(files(tmp_path)) != digest
        digest = openvino_export._digest(files(tmp_path))


def test_two_workers_that_start_together_export_once(tiny_model_dir, tmp_path, monkeypatch):
    targets = []
    both_started = threading.Barrier(2)

    def export(model, precision, target):
        targets.append(target)
        target.mkdir()
        (target / "serving.json").write_text("{}")

    monkeypatch.setattr(openvino_export, "_export", export)
    monkeypatch.setenv("PHI3_EXPORT_CACHE", str(tmp_path))

    def start(_):
        both_started.wait(HANG_S)
        return openvino_export.ensure_export(files(tiny_model_dir), "int4")

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(start, range(2))
    assert first == second == targets[0]
    assert len(targets) == 1


def test_missing_packages_are_named(tiny_model_dir, monkeypatch):
    monkeypatch.setattr(openvino_export, "REQUIRED_PACKAGES", ("json", "no_such_package"))
    with pytest.raises(openvino_export.ExportError, match="not installed: no_such_package"):
        openvino_export.ensure_export(files(tiny_model_dir), "fp32")


def test_a_failed_export_leaves_no_files_and_reports_the_cause(
    tmp_path, tiny_model_dir, monkeypatch
):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / name).write_bytes((tiny_model_dir / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(openvino_export.ExportError, match="afetensor") as caught:
        openvino_export.ensure_export(files(tmp_path), "fp32")
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


TRACEBACKS = """Traceback (most recent call last):
  File "builder.py", line 1, in <module>
ValueError: the weights are missing
Traceback (most recent call last):
  File "openvino_export.py", line 1, in <module>
subprocess.CalledProcessError: the command returned 1
"""


@pytest.mark.parametrize(
    ("stderr", "line"),
    [
        (TRACEBACKS, "ValueError: the weights are missing"),
        ("safetensors.SafetensorError: header", "safetensors.SafetensorError: header"),
        ("warning\nKilled\n", "Killed"),
        ("", ""),
    ],
)
def test_the_reported_line_is_the_end_of_the_first_traceback(stderr, line):
    assert openvino_export._error_line(stderr) == line


def plant_code(folder, marker):
    """Let a model's folder ask for its own code, which would write a file if it were run."""
    (folder / "planted.py").write_text(
        f"open({str(marker)!r}, 'w').close()\n"
        "from transformers import Phi3Config as PlantedConfig\n"
        "from transformers import Phi3ForCausalLM as PlantedModel\n"
        "from transformers import PreTrainedTokenizerFast as PlantedTokenizer\n"
    )
    classes = {
        "config.json": {
            "AutoConfig": "planted.PlantedConfig",
            "AutoModelForCausalLM": "planted.PlantedModel",
        },
        "tokenizer_config.json": {"AutoTokenizer": ["planted.PlantedTokenizer", None]},
    }
    for name, auto_map in classes.items():
        settings = json.loads((folder / name).read_text()) | {"auto_map": auto_map}
        (folder / name).write_text(json.dumps(settings))


@pytest.fixture
def hostile_model(tiny_model_dir, tmp_path):
    """A copy of the tiny model with code, and the file that the code would write."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    for file in tiny_model_dir.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    plant_code(folder, tmp_path / "code-ran")
    return folder, tmp_path / "code-ran"


@pytest.mark.finding(
    12,
    "a model's folder contains Python code that its configuration names",
    "the code is not run by either engine, nor by the export",
)
@pytest.mark.parametrize("engine", ["openvino", "transformers"])
def test_code_in_a_models_folder_is_not_run(hostile_model, monkeypatch, engine):
    import score

    folder, marker = hostile_model
    monkeypatch.setenv("PHI3_ENGINE", engine)
    score.load(folder).close()
    assert not marker.exists()


def test_a_matrix_that_float16_cannot_hold_is_refused():
    with pytest.raises(ValueError, match=r"layer\.0 has values that float16 cannot hold"):
        openvino_export._to_float16("layer.0", np.array([[1.0, 70_000.0]], np.float32))
