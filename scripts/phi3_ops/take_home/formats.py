"""The formats that a model is exported to, and the quantizations of each."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import OpsError

GGUF, OLLAMA, FOUNDRY_LOCAL, ONNX = "gguf", "ollama", "foundry-local", "onnx"
# Quantizations that keep the numbers of the model, and the bytes per weight.
FLOATS = {"f32": 4.0, "f16": 2.0, "bf16": 2.0}
# llama.cpp's quantizations -> its `llama_ftype`. Those that need an importance matrix are not offered.
LLAMA_FILE_TYPES = {
    "q8_0": 7, "q6_k": 18, "q5_k_m": 17, "q5_k_s": 16, "q5_1": 9, "q5_0": 8, "q4_k_m": 15,
    "q4_k_s": 14, "q4_1": 3, "q4_0": 2, "iq4_nl": 25, "iq4_xs": 30, "q3_k_l": 13, "q3_k_m": 12,
    "q3_k_s": 11, "q2_k": 10,
}  # fmt: skip
NEEDS_IMPORTANCE = ("iq1", "iq2", "iq3")  # beginnings of the names of such quantizations
ONNX_PRECISIONS = {"int4": 0.7, "fp32": 4.0}  # name -> most bytes per weight
# llama.cpp stores a matrix in more bits if its rows have an unsuitable length: at most in q8_0.
MOST_QUANTIZED_BYTES = 34 / 32


@dataclass(frozen=True)
class Format:
    """A format of exported models.

    Attributes:
        name: value of `--to`.
        title: programs that read it, for people.
        default: its usual quantization.
        quantizations: all quantizations that it has.
    """

    name: str
    title: str
    default: str
    quantizations: tuple[str, ...]

    @property
    def is_gguf(self) -> bool:
        """Whether the weights are in GGUF files."""
        return self.name in (GGUF, OLLAMA)


_GGUF_NAMES = (*FLOATS, *LLAMA_FILE_TYPES)
FORMATS = {
    entry.name: entry
    for entry in (
        Format(GGUF, "llama.cpp and LM Studio", "q4_k_m", _GGUF_NAMES),
        Format(OLLAMA, "Ollama", "q4_k_m", _GGUF_NAMES),
        Format(FOUNDRY_LOCAL, "Foundry Local", "int4", tuple(ONNX_PRECISIONS)),
        Format(ONNX, "ONNX Runtime GenAI", "int4", tuple(ONNX_PRECISIONS)),
    )
}


def choose_quantizations(target: Format, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the quantizations to make, without repetitions; the usual one if no name is given.

    Raises:
        OpsError: the format does not have one of them.
    """
    for name in names:
        if name in target.quantizations:
            continue
        if target.is_gguf and name.startswith(NEEDS_IMPORTANCE):
            fix = "Use iq4_xs or q4_k_m, which do not need one."
            raise OpsError(f"the quantization {name} needs an importance matrix", fix)
        known = ", ".join(target.quantizations)
        raise OpsError(f"{target.name} has no quantization {name!r}", f"Use one of {known}.")
    chosen = tuple(dict.fromkeys(names)) or (target.default,)
    if not target.is_gguf and len(chosen) > 1:
        fix = "Give one quantization, and export once per quantization."
        raise OpsError(f"a folder of {target.name} contains one model", fix)
    return chosen
