"""The graph that is built from an export: its inputs, its outputs, and quantized matrices in it."""

import numpy as np
import openvino_export
import openvino_graph
import openvino_runtime
import pytest
from architecture import Architecture
from model_files import ModelFiles
from openvino_runtime import openvino as ov
from openvino_runtime import opset as ops
from quantization import quantize


@pytest.fixture(scope="module")
def export_dir(tiny_model_dir, scorer):
    """The tiny model's export, which `scorer` has made."""
    return openvino_export.ensure_export(ModelFiles(tiny_model_dir, tiny_model_dir), "fp32")


def test_the_graph_has_caches_for_every_layer_and_logits_for_every_row(export_dir):
    graph, weights = openvino_graph.build_graph(export_dir)
    sizes = Architecture.read(export_dir)
    caches = [item.any_name for item in graph.inputs if "_cache." in item.any_name]
    assert len(caches) == 2 * sizes.layers
    (logits,) = graph.outputs
    assert logits.partial_shape[1].get_length() == sizes.vocabulary_size
    matrices = [array for array in weights if array.ndim == 2]
    assert all(isinstance(array, np.memmap) for array in matrices)


@pytest.mark.parametrize(("bits", "error"), [(8, 0.01), (4, 0.1)])
@pytest.mark.parametrize("inputs", [64, 96, 50])  # 50 is not a multiple of the group size
def test_the_graph_restores_a_matrix_of_fewer_bits(tmp_path, bits, error, inputs):
    weights = np.random.default_rng(0).uniform(-1, 2, (7, inputs)).astype(np.float32)
    (tmp_path / "weights").mkdir()
    quantize(weights, bits, 32).write(tmp_path / "weights", "matrix")
    builder = openvino_graph._Builder.__new__(openvino_graph._Builder)
    builder._folder, builder.weights = tmp_path / "weights", []
    node = builder._matrix("matrix")
    model = ov.Model([ops.result(node)], [])
    result = openvino_runtime.core().compile_model(model, "CPU")({})[0]
    np.testing.assert_allclose(result, weights, atol=3 * error)
    assert np.abs(result - weights).mean() < error
