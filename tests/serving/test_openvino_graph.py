"""The changes to the exported graph: the sliding window, and the logits of the last tokens only."""

import numpy as np
import onnx
import onnx_graph
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper


@pytest.mark.parametrize(("window", "attribute"), [(2047, 2047), (None, -1)])
def test_the_sliding_window_is_set_in_every_attention_node(window, attribute):
    nodes = [
        helper.make_node("GroupQueryAttention", ["x"], ["y"], local_window_size=7),
        helper.make_node("GroupQueryAttention", ["y"], ["z"], local_window_size=7),
    ]
    graph = helper.make_graph(nodes, "graph", [], [])
    onnx_graph.set_sliding_window(graph, window)
    assert [node.attribute[0].i for node in graph.node] == [attribute, attribute]


def test_a_graph_with_another_attention_is_refused(tmp_path):
    path = tmp_path / "model.onnx"
    graph = helper.make_graph([helper.make_node("Attention", ["x"], ["y"])], "graph", [], [])
    onnx.save(helper.make_model(graph), path)
    with pytest.raises(ValueError, match="no GroupQueryAttention"):
        onnx_graph.adapt_graph(path, None)


@pytest.mark.parametrize("scale", [False, True])
def test_the_logits_are_those_of_the_last_tokens(scale):
    """Some models scale the logits after the output matrix."""
    random = np.random.default_rng(0)
    matrix = random.standard_normal((4, 7)).astype(np.float32)
    nodes = [
        helper.make_node("Identity", ["x"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "matrix"], ["product" if scale else "logits"]),
    ]
    if scale:
        nodes.append(helper.make_node("Add", ["product", "product"], ["logits"]))
    shapes = {"x": ["batch_size", "length", 4], "logits": ["batch_size", "length", 7]}
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    }
    initializers = [numpy_helper.from_array(matrix, "matrix")]
    graph = helper.make_graph(nodes, "graph", [values["x"]], [values["logits"]], initializers)
    onnx_graph.select_last_tokens(graph)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    hidden = random.standard_normal((3, 5, 4)).astype(np.float32)
    last = np.array([[4], [0], [2]])
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (logits,) = session.run(None, {"x": hidden, onnx_graph.LAST_TOKENS: last})
    expected = hidden[np.arange(3), last[:, 0]] @ matrix * (2 if scale else 1)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
