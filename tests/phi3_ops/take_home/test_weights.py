"""Weights are read exactly, one tensor at a time."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from phi3_ops.errors import OpsError
from phi3_ops.take_home.weights import Weights

VALUES = torch.tensor([[1.5, -2.25, 3e-3], [65504.0, 0.0, -1.0]])


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_every_type_of_numbers(tmp_path, kind):
    save_file(
        {"a": VALUES.to(kind), "b": VALUES[0].clone().to(kind)}, tmp_path / "model.safetensors"
    )
    weights = Weights(tmp_path)
    assert weights.names == ["a", "b"] and weights.count == 9
    assert weights.shape("a") == (2, 3)
    assert np.array_equal(weights.read("a"), VALUES.to(kind).float().numpy())
    assert np.array_equal(weights.read("b"), VALUES[0].to(kind).float().numpy())


def test_several_files(tmp_path):
    save_file({"a": VALUES}, tmp_path / "one.safetensors")
    save_file({"b": 2 * VALUES}, tmp_path / "two.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert np.array_equal(Weights(tmp_path).read("b"), 2 * VALUES.numpy())
    (tmp_path / "two.safetensors").unlink()
    with pytest.raises(OpsError, match=r"two.safetensors does not exist, and .* names it"):
        Weights(tmp_path)


@pytest.mark.parametrize("index", ["{", "[]", '{"weight_map": 3}', "[" * 200_000])
def test_a_damaged_index(tmp_path, index):
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(OpsError, match=r"cannot read .*index.json"):
        Weights(tmp_path)


def test_no_weights(tmp_path):
    with pytest.raises(OpsError, match=r"does not contain model.safetensors"):
        Weights(tmp_path)


@pytest.mark.parametrize("content", [b"", b"12", b"\xff" * 20, b"\x02" + bytes(7) + b"{}"])
def test_a_damaged_file(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(OpsError, match="cannot read"):
        Weights(tmp_path)


def test_a_truncated_file(tmp_path):
    file = tmp_path / "model.safetensors"
    save_file({"a": VALUES}, file)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(OpsError, match="is truncated"):
        Weights(tmp_path)


@pytest.mark.parametrize("size", [0, -1, 2.0, True])
def test_the_sizes_of_a_tensor_are_above_0(tmp_path, size):
    entry = {"dtype": "F32", "shape": [20_000_000, size], "data_offsets": [0, 0]}
    header = json.dumps({"model.embed_tokens.weight": entry}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(OpsError, match="cannot read"):
        Weights(tmp_path)


def test_another_type_of_numbers(tmp_path):
    save_file({"a": VALUES.to(torch.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(OpsError, match="stores a as I8. Save the model in float32"):
        Weights(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dtype", ["F32"]),
        ("shape", "3"),
        ("shape", [2, 4]),
        ("data_offsets", ["0", "24"]),
        ("data_offsets", [-24, 0]),
        ("data_offsets", [24, 0]),
        ("data_offsets", [0]),
        ("data_offsets", None),
    ],
)
def test_an_entry_of_a_wrong_type_or_size(tmp_path, field, value):
    entry = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24], field: value}
    header = json.dumps({"a": entry}).encode()
    content = struct.pack("<Q", len(header)) + header + bytes(24)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(OpsError, match=r"cannot read|stores a as"):
        Weights(tmp_path)
