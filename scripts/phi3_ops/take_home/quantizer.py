"""Quantize matrices with llama.cpp's own code, which the package xllamacpp brings.

Contract: `ggml_quantize_chunk` in ggml's `ggml.h`.
"""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any

from ..errors import OpsError
from ..installation import install_command

if TYPE_CHECKING:
    import numpy as np

_VALUES_PER_TASK = 1 << 20
_I64, _POINTER = ctypes.c_int64, ctypes.c_void_p


def block_size(type_name: str) -> int:
    """Return the number of values in a block of a type of gguf.GGMLQuantizationType."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    return int(GGML_QUANT_SIZES[GGMLQuantizationType[type_name]][0])


def row_bytes(type_name: str, columns: int) -> int:
    """Return the number of bytes of a row."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    values, size = GGML_QUANT_SIZES[GGMLQuantizationType[type_name]]
    return columns // values * size


@cache
def _library() -> ctypes.CDLL:
    """Return the library of llama.cpp.

    Raises:
        OpsError: it is not installed, or does not export the function.
    """
    try:
        import xllamacpp.xllamacpp as extension
    except ImportError as error:
        fix = f"Run: {install_command('take-home')}"
        raise OpsError(
            "quantizing needs the package xllamacpp, which is not installed", fix
        ) from error
    library = ctypes.CDLL(extension.__file__)
    try:
        quantize = library.ggml_quantize_chunk
    except AttributeError as error:
        fix = "Use f16, q8_0, q5_0 or q4_0, or export on Linux."
        raise OpsError(
            "this build of xllamacpp does not offer llama.cpp's quantization", fix
        ) from error
    quantize.argtypes = [ctypes.c_int, _POINTER, _POINTER, _I64, _I64, _I64, _POINTER]
    quantize.restype = ctypes.c_size_t
    return library


def quantize_matrix(matrix: np.ndarray, type_name: str) -> np.ndarray:
    """Return a float32 matrix in another type, as bytes of shape (rows, bytes of a row).

    Args:
        matrix: the matrix; its row length must be a multiple of `block_size`.
        type_name: name of the type in gguf.GGMLQuantizationType.

    Raises:
        OpsError: llama.cpp's code is not available.
    """
    import numpy as np
    from gguf import GGMLQuantizationType

    library = _library()
    rows, columns = matrix.shape
    source = np.ascontiguousarray(matrix, dtype=np.float32)
    target = np.empty((rows, row_bytes(type_name, columns)), dtype=np.uint8)
    rows_per_task = max(1, _VALUES_PER_TASK // columns)
    number = int(GGMLQuantizationType[type_name])

    def run(first: int) -> Any:
        count = min(rows_per_task, rows - first)
        return library.ggml_quantize_chunk(
            number, source.ctypes.data, target.ctypes.data, first * columns, count, columns, None
        )

    # ctypes releases Python's lock during the call.
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(run, range(0, rows, rows_per_task)))
    return target
