"""Matrices of 8 or 4 bits: how they are computed, and how an export stores them.

A matrix is divided into groups of values that follow each other in a row. A value is
(integer - zero point) * scale, with a zero point and a scale for each group.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Quantized:
    """A matrix of 8 or 4 bits.

    Attributes:
        bits: 8 or 4.
        values: uint8 of (outputs, groups, group size); for 4 bits two values per byte, so half as many.
        scales: float16 of (outputs, groups, 1).
        zeros: uint8 of (outputs, groups, 1); for 4 bits two values per byte and only one dimension.
    """

    bits: int
    values: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray

    def write(self, folder: Path, name: str) -> None:
        """Write the matrix to files of an export."""
        np.save(folder / f"{name}.{self.bits}-bit.npy", self.values)
        np.save(folder / f"{name}.scales.npy", self.scales)
        np.save(folder / f"{name}.zeros.npy", self.zeros)

    @classmethod
    def read(cls, folder: Path, name: str) -> Quantized:
        """Return a matrix of an export. Its files are mapped into memory."""
        bits = 4 if (folder / f"{name}.4-bit.npy").exists() else 8
        parts = (f"{bits}-bit", "scales", "zeros")
        return cls(bits, *(np.load(folder / f"{name}.{part}.npy", mmap_mode="c") for part in parts))


def quantize(weights: np.ndarray, bits: int, group_size: int) -> Quantized:
    """Return a matrix in fewer bits.

    Args:
        weights: float32 of (outputs, inputs).
        bits: 8 or 4.
        group_size: values of a group. If it does not divide a row, the whole row is one group.
    """
    outputs, inputs = weights.shape
    size = group_size if inputs % group_size == 0 else inputs
    groups = weights.reshape(outputs, inputs // size, size)
    highest = 2**bits - 1
    low = np.minimum(groups.min(-1, keepdims=True), 0)
    high = np.maximum(groups.max(-1, keepdims=True), 0)
    scales = ((high - low) / highest).astype(np.float16)
    scales[scales == 0] = 1  # a group of zeros
    steps = scales.astype(np.float32)
    zeros = np.clip(np.round(-low / steps), 0, highest)
    values = np.clip(np.round(groups / steps) + zeros, 0, highest)
    if bits == 8:
        return Quantized(bits, values.astype(np.uint8), scales, zeros.astype(np.uint8))
    return Quantized(bits, _pack(values), scales, _pack(zeros.reshape(-1)))


def _pack(values: np.ndarray) -> np.ndarray:
    """Return values of 4 bits, two per byte. The first one has the lower bits."""
    if values.shape[-1] % 2:  # only where there is one dimension
        values = np.append(values, 0)
    integers = values.astype(np.uint8)
    return integers[..., ::2] | integers[..., 1::2] << 4
