"""Which backend serves a model."""

import logging
import re
from types import SimpleNamespace

import backends
import gpu
import machine
import openvino_export
import pytest
import score
from model_files import ModelFiles


def files(folder):
    return ModelFiles(folder, folder)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in (
        "PHI3_ENGINE",
        "PHI3_PRECISION",
        "PHI3_COMPUTATION",
        "PHI3_EXPORT_CACHE",
        "PHI3_EXPECT_GPU",
        *machine.COUNTS,
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cpu_only(monkeypatch):
    monkeypatch.setattr(backends, "_has_gpu", lambda: False)


def test_a_cpu_uses_openvino(tiny_model_dir, scorer, cpu_only):
    """scorer: the model has been exported."""
    loaded = backends.load_backend(files(tiny_model_dir))
    assert type(loaded.backend).__name__ == "OpenVinoBackend"
    assert loaded.runtime == "OpenVINO, fp32, 1 thread"


def test_a_gpu_uses_transformers(tiny_model_dir, monkeypatch):
    monkeypatch.setattr(backends, "_has_gpu", lambda: True)
    monkeypatch.setattr(backends, "_load_openvino", None)  # must not be called
    loaded = backends.load_backend(files(tiny_model_dir))
    assert type(loaded.backend).__name__ == "TransformersBackend"
    assert re.fullmatch(r"transformers, \w+, .+", loaded.runtime)
    assert "because" not in loaded.runtime


def test_a_machine_without_an_nvidia_driver_has_no_gpu(monkeypatch):
    monkeypatch.setattr(gpu, "has_nvidia_device", lambda: False)
    assert not backends._has_gpu()


@pytest.mark.parametrize("engine", ["auto", "transformers"])
def test_the_cpu_of_a_size_with_a_gpu_is_not_used(tiny_model_dir, monkeypatch, engine):
    monkeypatch.setattr(gpu, "unused_gpu", lambda: "torch cannot use the GPU")
    monkeypatch.setenv("PHI3_EXPECT_GPU", "true")
    monkeypatch.setenv("PHI3_ENGINE", engine)
    with pytest.raises(
        ValueError, match="torch cannot use the GPU: install a torch wheel.*openvino"
    ):
        backends.load_backend(files(tiny_model_dir))


def test_the_precision_is_passed_to_the_export(tiny_model_dir, monkeypatch, cpu_only):
    settings = []

    def load_openvino(model, *precision_and_computation):
        settings.append(precision_and_computation)
        return SimpleNamespace(threads=2)

    monkeypatch.setattr(backends, "_load_openvino", load_openvino)
    backends.load_backend(files(tiny_model_dir))
    monkeypatch.setenv("PHI3_PRECISION", "int4")
    loaded = backends.load_backend(files(tiny_model_dir))
    assert loaded.runtime == "OpenVINO, int4, 2 threads"
    monkeypatch.setenv("PHI3_COMPUTATION", "bf16")
    assert (
        backends.load_backend(files(tiny_model_dir)).runtime == "OpenVINO, int4 in bf16, 2 threads"
    )
    assert settings == [("fp32", "fp32"), ("int4", "fp32"), ("int4", "bf16")]


def test_a_model_that_cannot_be_exported_is_served_by_transformers(
    tiny_model_dir, monkeypatch, caplog
):
    def fail(*_):
        raise openvino_export.ExportError("no room\non the disk")

    monkeypatch.setattr(openvino_export, "ensure_export", fail)
    with caplog.at_level(logging.WARNING, "phi3.score"):
        loaded = backends.load_backend(files(tiny_model_dir))
    assert type(loaded.backend).__name__ == "TransformersBackend"
    reason = ", because OpenVINO cannot serve this model: no room"
    assert re.fullmatch(r"transformers, \w+, .+" + reason, loaded.runtime)
    assert [record.getMessage() for record in caplog.records] == [
        "using transformers, which is slower than OpenVINO: no room"
    ]
    monkeypatch.setenv("PHI3_ENGINE", "openvino")
    with pytest.raises(openvino_export.ExportError):
        backends.load_backend(files(tiny_model_dir))


@pytest.mark.parametrize("name", ["PHI3_ENGINE", "PHI3_PRECISION", "PHI3_COMPUTATION"])
def test_an_error_names_the_invalid_setting(tiny_model_dir, monkeypatch, name):
    monkeypatch.setenv(name, "fast")
    with pytest.raises(ValueError, match=f"{name} must be one of .*, not fast"):
        score.load(tiny_model_dir)


@pytest.mark.parametrize("name", ["PHI3_THREADS", "PHI3_CACHE_MIB", "WORKER_COUNT"])
@pytest.mark.parametrize("value", ["two", "1g", "0", "-1", "1.5"])
def test_a_setting_that_is_not_a_count_is_no_reason_for_another_engine(
    tiny_model_dir, monkeypatch, cpu_only, name, value
):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1, not {value}"):
        backends.load_backend(files(tiny_model_dir))
