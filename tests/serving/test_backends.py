"""Which engine serves a model, and the export to ONNX Runtime."""

import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import backends
import onnx_export
import pytest
import score
from engine import BatchingEngine
from generation import Params
from model_files import ModelFiles

HANG_S = 300


def files(folder):
    return ModelFiles(folder, folder)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in ("PHI3_ENGINE", "PHI3_PRECISION", "PHI3_ONNX_CACHE"):
        monkeypatch.delenv(name, raising=False)


def test_an_export_is_kept_beside_the_model_and_used_again(tiny_model_dir, scorer, monkeypatch):
    monkeypatch.setattr(onnx_export, "_export", None)  # it is there: nothing is exported
    folder = onnx_export.exported(files(tiny_model_dir), "fp32")
    assert folder.parent == tiny_model_dir
    about = json.loads((folder / "serving.json").read_text())
    assert about["context_window"] == scorer.engine.context_window
    assert [f.name for f in tiny_model_dir.glob(".onnx*")] == []


def test_other_weights_or_settings_are_another_export(tiny_model_dir, tmp_path):
    for file in tiny_model_dir.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    first = onnx_export._digest(files(tmp_path))
    assert first == onnx_export._digest(files(tiny_model_dir))
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        with open(tmp_path / name, "ab") as file:
            file.write(b" ")
        assert onnx_export._digest(files(tmp_path)) != first
        first = onnx_export._digest(files(tmp_path))


def test_two_that_start_together_export_once(tiny_model_dir, tmp_path, monkeypatch):
    calls = []
    both = threading.Barrier(2)

    def export(model, precision, target):
        calls.append(target)
        target.mkdir()
        (target / "serving.json").write_text("{}")

    monkeypatch.setattr(onnx_export, "_export", export)
    monkeypatch.setenv("PHI3_ONNX_CACHE", str(tmp_path))

    def start(_):
        both.wait(HANG_S)
        return onnx_export.exported(files(tiny_model_dir), "int4")

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(start, range(2))
    assert first == second == calls[0]
    assert len(calls) == 1


def test_a_folder_that_cannot_be_written_to_is_left_alone(tiny_model_dir, tmp_path, monkeypatch):
    (tmp_path / "phi3-onnx").mkdir()
    monkeypatch.setattr(onnx_export, "_writable", lambda home: home != tiny_model_dir)
    monkeypatch.setattr(onnx_export.tempfile, "gettempdir", lambda: str(tmp_path))
    made = []
    monkeypatch.setattr(onnx_export, "_export", lambda *given: made.append(given[-1]))
    onnx_export.exported(files(tiny_model_dir), "int4")
    assert made[0].parent == tmp_path / "phi3-onnx"


def test_what_cannot_be_exported_is_served_by_transformers(tiny_model_dir, monkeypatch, caplog):
    def fail(*_):
        raise onnx_export.ExportError("no room\non the disk")

    monkeypatch.setattr(onnx_export, "exported", fail)
    with caplog.at_level(logging.WARNING, "phi3.score"):
        backend = backends.load_backend(files(tiny_model_dir))
    assert type(backend).__name__ == "TransformersBackend"
    assert [r.getMessage() for r in caplog.records] == [
        "served by transformers, which is slower, not by ONNX Runtime: no room"
    ]
    monkeypatch.setenv("PHI3_ENGINE", "onnx")
    with pytest.raises(onnx_export.ExportError):
        backends.load_backend(files(tiny_model_dir))


def test_a_failed_export_leaves_nothing_and_says_why(tmp_path, tiny_model_dir, monkeypatch):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / name).write_bytes((tiny_model_dir / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(onnx_export.ExportError, match="afetensor") as caught:
        onnx_export.exported(files(tmp_path), "fp32")
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["PHI3_ENGINE", "PHI3_PRECISION"])
def test_a_wrong_setting_is_named(tiny_model_dir, monkeypatch, name):
    monkeypatch.setenv(name, "fast")
    with pytest.raises(ValueError, match=f"{name} must be one of .*, not fast"):
        score.load(tiny_model_dir)


# --- what the exporter does not do by itself --------------------------------------------------

LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "partial_rotary_factor": 1.0,
    "original_max_position_embeddings": 48,
    "factor": 512 / 48,
    "short_factor": [1 + n / 10 for n in range(16)],
    "long_factor": [2 + n / 2 for n in range(16)],
}
VARIANTS = {
    "sliding": {"sliding_window": 20},  # Phi-3-mini-4k
    "longrope": {"original_max_position_embeddings": 48, "rope_parameters": LONG},  # Phi-3.5
    "grouped": {"num_key_value_heads": 2},  # Phi-3-medium
}


@pytest.mark.slow  # a model and an export each
@pytest.mark.parametrize("name", VARIANTS)
def test_every_kind_of_phi3_answers_as_with_transformers(name, tiny_model_dir, tmp_path):
    import torch
    from engine_onnx import OnnxBackend
    from engine_transformers import TransformersBackend
    from transformers import GenerationConfig, Phi3Config, Phi3ForCausalLM

    for file in tiny_model_dir.glob("*token*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "chat_template.jinja").write_bytes(
        (tiny_model_dir / "chat_template.jinja").read_bytes()
    )
    config = Phi3Config.from_pretrained(tiny_model_dir).to_dict() | VARIANTS[name]
    torch.manual_seed(1)
    model = Phi3ForCausalLM(Phi3Config(**config)).eval()
    model.generation_config = GenerationConfig.from_pretrained(tiny_model_dir)
    model.save_pretrained(tmp_path)
    lengths = [3, 60, 11, 40, 100, 1, 30, 47, 48, 49, 200, 8, 300, 20]
    prompts = [torch.randint(5, 480, (n,)).tolist() for n in lengths]
    said = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        mask = torch.ones_like(ids)
        out = model.generate(ids, attention_mask=mask, max_new_tokens=40, do_sample=False)
        said.append(out[0, len(prompt) :].tolist())
    exported = OnnxBackend(onnx_export.exported(files(tmp_path), "fp32"))
    exported.chunk = 64  # some prompts are run in pieces
    for backend in (exported, TransformersBackend(tmp_path, tmp_path)):
        engine = BatchingEngine(backend)
        answers = engine.generate(prompts, Params(max_new_tokens=40))
        engine.close()
        expected = [backend.decode([t for t in ids if t not in (0, 4)]) for ids in said]
        assert [answer.text for answer in answers] == expected
