"""Read the weights of a model from its safetensors files, one tensor at a time.

Contract: "Safetensors", format: eight bytes with the length of a JSON header, the header, the data.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OpsError
from ..files import load_json_object

if TYPE_CHECKING:
    import numpy as np

INDEX_FILE, WEIGHTS_FILE = "model.safetensors.index.json", "model.safetensors"
ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
DAMAGES = (
    OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error,
)  # fmt: skip
DAMAGED_FIX = "The file is damaged or was not copied completely; get it again."


@dataclass(frozen=True)
class TensorLocation:
    """Where a tensor is stored.

    Attributes:
        file: the safetensors file.
        kind: type of the numbers, a key of ITEM_BYTES.
        shape: shape of the tensor.
        offset: position of the first byte in the file.
    """

    file: Path
    kind: str
    shape: tuple[int, ...]
    offset: int

    @property
    def count(self) -> int:
        """Number of values."""
        count = 1
        for size in self.shape:
            count *= size
        return count


class Weights:
    """The weights in a model's folder.

    Args:
        folder: the folder.

    Raises:
        OpsError: a file is missing or damaged, or has an unknown type of numbers.
    """

    def __init__(self, folder: Path) -> None:
        self._locations: dict[str, TensorLocation] = {}
        for file in _weight_files(folder):
            self._locations |= _read_header(file)

    @property
    def names(self) -> list[str]:
        """The names of the tensors, sorted."""
        return sorted(self._locations)

    @property
    def count(self) -> int:
        """Number of parameters."""
        return sum(location.count for location in self._locations.values())

    @property
    def kind(self) -> str:
        """The type of the numbers: `f32` unless all matrices have the same smaller type."""
        kinds = {entry.kind for entry in self._locations.values() if len(entry.shape) > 1}
        return kinds.pop().lower() if len(kinds) == 1 else "f32"

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self._locations[name].shape

    def read(self, name: str) -> np.ndarray:
        """Return a tensor in float32."""
        import numpy as np

        location = self._locations[name]
        types = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}
        raw = np.fromfile(
            location.file, types[location.kind], location.count, offset=location.offset
        ).reshape(location.shape)
        if location.kind == "BF16":  # the upper half of a float32
            return (raw.astype(np.uint32) << 16).view(np.float32)
        return raw.astype(np.float32, copy=False)


def _weight_files(folder: Path) -> list[Path]:
    index = folder / INDEX_FILE
    if not index.is_file():
        file = folder / WEIGHTS_FILE
        if not file.is_file():
            fix = "Save the model with save_pretrained, which writes it."
            raise OpsError(f"{folder} does not contain {WEIGHTS_FILE}", fix)
        return [file]
    try:
        names = sorted(map(str, set(load_json_object(index)["weight_map"].values())))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OpsError(f"cannot read {index}", DAMAGED_FIX) from error
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise OpsError(
                f"{folder / name} does not exist, and {index.name} names it", DAMAGED_FIX
            )
    return [folder / name for name in names]


def _read_header(path: Path) -> dict[str, TensorLocation]:
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                raise ValueError("the header is longer than the file")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        entries = {name: _read_entry(entry) for name, entry in header.items()}
        end = 8 + length + max(last for _, _, _, last in entries.values())
    except DAMAGES as error:
        raise OpsError(f"cannot read {path}", DAMAGED_FIX) from error
    locations = {
        name: TensorLocation(path, kind, shape, 8 + length + first)
        for name, (kind, shape, first, _) in entries.items()
    }
    if end > path.stat().st_size:
        raise OpsError(f"{path} is truncated", DAMAGED_FIX)
    for name, location in locations.items():
        if location.kind not in ITEM_BYTES:
            fix = "Save the model in float32, float16 or bfloat16."
            raise OpsError(f"{path} stores {name} as {location.kind}", fix)
        _, _, first, last = entries[name]
        if last - first != location.count * ITEM_BYTES[location.kind]:
            raise OpsError(f"cannot read {path}: {name} has another size", DAMAGED_FIX)
    return locations


def _read_entry(entry: dict[str, Any]) -> tuple[str, tuple[int, ...], int, int]:
    """Return type, shape, and first and last position of a tensor, as a header has them.

    Raises:
        ValueError, KeyError, TypeError: the entry is not valid.
    """
    sizes, (first, last) = entry["shape"], entry["data_offsets"]
    if not all(type(size) is int and size > 0 for size in sizes):
        raise ValueError("a size of a tensor is not a whole number above 0")
    if not (type(first) is type(last) is int and 0 <= first <= last):
        raise ValueError("the position of a tensor is not valid")
    return str(entry["dtype"]), tuple(sizes), first, last
