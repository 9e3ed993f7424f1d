"""Writes a GGUF file in another precision, so that all precision classes hold the same model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gguf
import numpy as np

# Number of each type as `general.file_type` names it ("GGUF specification: general metadata").
FILE_TYPES = {
    "F32": gguf.LlamaFileType.ALL_F32,
    "F16": gguf.LlamaFileType.MOSTLY_F16,
    "Q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}


def convert(source: Path, target: Path, kind: str) -> Path:
    """Write a GGUF file whose matrices have another type. An existing file is kept.

    The weights are dequantised first. Vectors stay float32, as in llama.cpp's own files.

    Args:
        source: the GGUF file to read.
        target: the file to write.
        kind: F32, F16 or Q8_0.
    """
    if target.exists():
        return target
    reader = gguf.GGUFReader(source)
    part = target.with_name(f".{target.name}.part")
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(part, architecture)
    _copy_metadata(reader, writer)
    writer.add_file_type(FILE_TYPES[kind])
    quantization = gguf.GGMLQuantizationType[kind]
    for tensor in reader.tensors:
        weights = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        weights = weights.reshape(tuple(int(size) for size in reversed(tensor.shape)))
        if weights.ndim < 2:
            writer.add_tensor(tensor.name, weights)
        else:
            data = gguf.quants.quantize(weights, quantization)
            writer.add_tensor(tensor.name, data, raw_dtype=quantization)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(part, target)
    return target


def _copy_metadata(reader: Any, writer: Any) -> None:
    skipped = ("general.architecture", "general.file_type")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in skipped:
            continue
        kind = field.types[0]
        sub_kind = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, sub_kind)
