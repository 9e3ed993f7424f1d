"""The memory and the operations of a training step, from its operators and without computing them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import adapters
import batches
import models
import torch
from batch_shapes import BatchShape
from inputs import Recipe
from live_memory import LiveMemory
from torch._subclasses.fake_tensor import FakeTensorMode
from trl.kernels import ChunkedLogProbFunction
from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE as CHUNK_SIZE

# Bytes of a weight in 4-bit NormalFloat with double quantization. Source: "QLoRA: Efficient Finetuning of
# Quantized LLMs", section 3.
NF4_BYTES = 4.127 / 8
SCORES = ("log_probs", "entropy", "is_top1")


@dataclass(frozen=True)
class Trace:
    """Bytes and operations of a step.

    Attributes:
        weights: bytes of all weights and buffers.
        gradients: bytes of the gradients, which are 0 without a backward pass.
        activations: bytes that the forward pass leaves for the backward pass.
        peak: bytes of all tensors at the worst moment.
        flops: floating-point operations, with recomputed ones.
    """

    weights: int
    gradients: int
    activations: int
    peak: int
    flops: int


class FakeModel:
    """The model of a recipe without memory, whose steps can be traced.

    Args:
        recipe: recipe of the run.
        config: transformers' configuration of the base model.
        device: key of devices.PRECISIONS of the machine to estimate for.
        checkpointing: whether activations are recomputed.
        path: the recipe's file, for errors.

    Raises:
        TrainError: the recipe does not fit the model.
    """

    def __init__(
        self, recipe: Recipe, config: Any, device: str, checkpointing: bool, path: Path
    ) -> None:
        self._device = device
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        with torch.device("meta"):
            self._model = _build(recipe, config, device, path)
        with self._fake:
            _move_to_fake_memory(self._model)
        if checkpointing:
            self._model.gradient_checkpointing_enable({"use_reentrant": False})
        tensors = [*self._model.parameters(), *self._model.buffers()]
        self._saved_by_quantization = _quantized_savings(self._model) if recipe.quantization else 0
        self._tensors = tensors
        self.parameters = sum(weight.numel() for weight in self._plain.parameters())
        self.trained = sum(p.numel() for p in self._model.parameters() if p.requires_grad)
        if recipe.lora is not None:
            self.parameters -= self.trained

    @property
    def _plain(self) -> Any:
        return getattr(self._model, "get_base_model", lambda: self._model)()

    def trace_training(
        self, shape: BatchShape, accumulates: bool, has_reference: bool = False
    ) -> Trace:
        """Return the trace of a forward and a backward pass.

        Args:
            shape: the batch.
            accumulates: whether the gradients of an earlier batch exist.
            has_reference: whether DPO's reference computes the same batch before the backward pass. It
                is traced with the adapters, whose operations are few.
        """
        live = LiveMemory()
        live.add(self._tensors)
        weights = live.bytes
        self._model.train()
        with self._fake, self._precision(), live:
            if accumulates:
                for weight in self._model.parameters():
                    weight.grad = torch.zeros_like(weight) if weight.requires_grad else None
            before = live.bytes
            live.peak = live.bytes
            loss = self._loss(shape)
            activations = live.bytes - before
            if has_reference:
                with torch.no_grad():
                    self._loss(shape)
            loss.backward()
        del loss
        gradients = sum(
            weight.nbytes for weight in self._model.parameters() if weight.requires_grad
        )
        for weight in self._model.parameters():
            weight.grad = None
        saved = self._saved_by_quantization
        return Trace(weights - saved, gradients, activations, live.peak - saved, live.flops)

    def trace_evaluation(self, shape: BatchShape) -> Trace:
        """Return the trace of a forward pass without gradients."""
        live = LiveMemory()
        live.add(self._tensors)
        weights = live.bytes
        self._model.eval()
        with self._fake, self._precision(), torch.no_grad(), live:
            self._loss(shape)
        saved = self._saved_by_quantization
        return Trace(weights - saved, 0, 0, live.peak - saved, live.flops)

    def _precision(self) -> Any:
        """Return the autocast that the Trainer uses on the machine."""
        if self._device == "cpu":
            return contextlib.nullcontext()
        bf16 = self._device == "cuda"
        return torch.autocast("cpu", torch.bfloat16 if bf16 else torch.float16)

    def _loss(self, shape: BatchShape) -> torch.Tensor:
        """Return the loss of a batch of that size, as the trainers compute it."""
        size = (shape.sequences, shape.length)
        ids = torch.zeros(size, dtype=torch.long)
        inputs = {"input_ids": ids, "position_ids": torch.zeros(size, dtype=torch.long)}
        if shape.has_mask:
            mask = (shape.sequences, 1, shape.length, shape.length)
            inputs["attention_mask"] = torch.ones(mask, dtype=torch.bool)
        hidden_states = self._plain.base_model(**inputs, use_cache=False).last_hidden_state
        scored = torch.zeros(max(shape.scored, 1), dtype=torch.long)
        states = hidden_states[:, :-1].flatten(0, 1)[scored]
        head = self._plain.get_output_embeddings()
        if self._device == "cpu":
            log_probabilities = batches.score_tokens(head, states, scored)[0]
        else:
            log_probabilities = ChunkedLogProbFunction.apply(
                states, head.weight, head.bias, scored, 1.0, CHUNK_SIZE, None, 1.0, SCORES
            )[0]
        return -log_probabilities.mean()


def _build(recipe: Recipe, config: Any, device: str, path: Path) -> Any:
    from transformers import AutoModelForCausalLM

    attention = "eager" if recipe.attention == "eager" else "sdpa"
    model = AutoModelForCausalLM.from_config(
        config, dtype=models.weights_dtype(recipe, device), attn_implementation=attention
    )
    models.freeze(model, recipe, path)
    if recipe.lora is not None:
        from peft import get_peft_model

        model = get_peft_model(model, adapters.make_lora(recipe))
        model.enable_input_require_grads()
    models.train_in_float32(model)
    return model


def _move_to_fake_memory(model: Any) -> None:
    """Replace the weights and buffers on the meta device by fake ones, as if they were on a CPU.

    PEFT cannot add adapters to a model with fake weights.
    """
    replaced: dict[int, torch.Tensor] = {}  # weights that are shared stay shared
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                if id(tensor) not in replaced:
                    fake: torch.Tensor = torch.empty(tensor.shape, dtype=tensor.dtype)
                    if isinstance(tensor, torch.nn.Parameter):
                        fake = torch.nn.Parameter(fake, tensor.requires_grad)
                    replaced[id(tensor)] = fake
                tensors[name] = replaced[id(tensor)]


def _quantized_savings(model: Any) -> int:
    """Return by how many bytes the quantization of the layers' weights makes the base smaller."""
    weights = [
        weight
        for name, weight in model.named_parameters()
        if not weight.requires_grad and weight.dim() == 2 and ".layers." in name
    ]
    return round(sum(w.numel() * (w.element_size() - NF4_BYTES) for w in weights))
