"""Matrices of 8 and 4 bits: their error, their files, and groups without a range."""

import numpy as np
import pytest
from quantization import Quantized, quantize


def restore(matrix):
    """Return the float values of a matrix of 8 bits."""
    steps = matrix.values.astype(np.float32) - matrix.zeros.astype(np.float32)
    return (steps * matrix.scales.astype(np.float32)).reshape(len(steps), -1)


@pytest.mark.parametrize("inputs", [128, 100])
def test_a_value_differs_by_less_than_a_step(inputs):
    weights = np.random.default_rng(0).standard_normal((5, inputs)).astype(np.float32)
    matrix = quantize(weights, 8, 64)
    size = 64 if inputs == 128 else 100  # a row that cannot be divided is one group
    assert matrix.values.shape == (5, inputs // size, size)
    step = np.repeat(matrix.scales.astype(np.float32), size, -1).reshape(5, -1)
    assert np.all(np.abs(restore(matrix) - weights) <= step)


def test_a_group_of_zeros_and_a_constant_group_are_kept():
    weights = np.repeat(np.array([[0], [3], [-2]], np.float32), 64, 1)
    np.testing.assert_allclose(restore(quantize(weights, 8, 64)), weights, atol=0.01)


def test_two_values_of_4_bits_share_a_byte_and_the_first_has_the_lower_bits():
    weights = np.array([[0, 15, 1, 14] * 8], np.float32)
    matrix = quantize(weights, 4, 32)
    assert matrix.values.shape == (1, 1, 16)
    assert matrix.values[0, 0, :2].tolist() == [0xF0, 0xE1]
    assert matrix.zeros.tolist() == [0]


@pytest.mark.parametrize("bits", [8, 4])
def test_a_matrix_is_read_as_it_was_written(tmp_path, bits):
    weights = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    matrix = quantize(weights, bits, 32)
    matrix.write(tmp_path, "layer.0")
    copy = Quantized.read(tmp_path, "layer.0")
    assert copy.bits == bits
    for name in ("values", "scales", "zeros"):
        np.testing.assert_array_equal(getattr(copy, name), getattr(matrix, name))
