"""Changes to the graph of an exported model, which onnxruntime-genai's exporter does not make itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LAST_TOKENS = "last_tokens"  # input: index of each row's last token among its new tokens


def adapt_graph(path: Path, sliding_window: int | None) -> None:
    """Set the sliding window, and compute the logits of each row's last token only.

    Args:
        path: the exported model. It is overwritten.
        sliding_window: number of tokens (2047 for Phi-3-mini-4k); None for no sliding window.

    Raises:
        ValueError: the graph is not one that continuous batching can run.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    set_sliding_window(model.graph, sliding_window)
    select_last_tokens(model.graph)
    onnx.save(model, path)


def set_sliding_window(graph: Any, window: int | None) -> None:
    """Set the sliding window of all attention nodes."""
    nodes = [node for node in graph.node if node.op_type == "GroupQueryAttention"]
    if not nodes:
        raise ValueError("the exported graph has no GroupQueryAttention, which batching needs")
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name == "local_window_size":
                attribute.i = window or -1


def select_last_tokens(graph: Any) -> None:
    """Multiply only the last token of each row by the output matrix, a fifth of a small model.

    The graph gets an input `last_tokens` of (rows, 1), and its logits become (rows, vocabulary).
    """
    from onnx import TensorProto, helper

    head = _find_output_matrix(graph)
    index = list(graph.node).index(head)
    selected = "last_hidden_states"
    inputs = [head.input[0], LAST_TOKENS]
    graph.node.insert(index, helper.make_node("GatherND", inputs, [selected], batch_dims=1))
    head.input[0] = selected
    graph.input.append(
        helper.make_tensor_value_info(LAST_TOKENS, TensorProto.INT64, ["batch_size", 1])
    )
    for value in [*graph.output, *graph.value_info]:
        if value.name in ("logits", head.output[0]):
            del value.type.tensor_type.shape.dim[1]


def _find_output_matrix(graph: Any) -> Any:
    """Return the node that multiplies the hidden states by the output matrix."""
    producers = {output: node for node in graph.node for output in node.output}
    node = producers["logits"]
    while not node.op_type.startswith("MatMul"):
        node = producers[node.input[0]]
    return node
