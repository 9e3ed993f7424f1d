"""The machines that an estimate can be made for: this one, sizes of Azure, and cards.

Sources: "GPU accelerated virtual machine sizes" and "Sizes for virtual machines in Azure" for the sizes,
NVIDIA's data sheets for the memory of the cards.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from inputs import TrainError

GB = 10**9
GIB = 2**30
# Memory of a card in bytes. The names are those of speed.PEAKS, which are parts of torch's names.
CARDS = {
    "T4": 16 * GIB, "V100": 32 * GIB, "A10": 24 * GIB, "L4": 24 * GIB, "L40S": 48 * GIB,
    "A100 40GB": 40 * GIB, "A100 80GB": 80 * GIB, "H100 NVL": 94 * GIB, "H100": 80 * GIB,
    "H200": 141 * GB, "RTX 3090": 24 * GIB, "RTX 4090": 24 * GIB,
}  # fmt: skip
# Size of Azure -> its card and the number of cards. The smaller NVadsA10_v5 sizes have parts of a card.
SIZES = {
    "Standard_NC4as_T4_v3": ("T4", 1),
    "Standard_NC8as_T4_v3": ("T4", 1),
    "Standard_NC16as_T4_v3": ("T4", 1),
    "Standard_NC64as_T4_v3": ("T4", 4),
    "Standard_NV36ads_A10_v5": ("A10", 1),
    "Standard_NV72ads_A10_v5": ("A10", 2),
    "Standard_NC24ads_A100_v4": ("A100 80GB", 1),
    "Standard_NC48ads_A100_v4": ("A100 80GB", 2),
    "Standard_NC96ads_A100_v4": ("A100 80GB", 4),
    "Standard_NC40ads_H100_v5": ("H100 NVL", 1),
    "Standard_NC80adis_H100_v5": ("H100 NVL", 2),
    "Standard_ND40rs_v2": ("V100", 8),
    "Standard_ND96asr_v4": ("A100 40GB", 8),
    "Standard_ND96amsr_A100_v4": ("A100 80GB", 8),
    "Standard_ND96isr_H100_v5": ("H100", 8),
    "Standard_ND96isr_H200_v5": ("H200", 8),
}
# Sizes without a GPU, and the GiB of memory that their families have for each core.
CPU_SIZE = re.compile(r"standard_([def])(\d+)[a-z]*(_v\d+)?", re.IGNORECASE)
CPU_GIB_PER_CORE = {"d": 4, "e": 8, "f": 2}
WITHOUT_BF16 = ("T4", "V100")


@dataclass(frozen=True)
class Machine:
    """A machine to train on.

    Attributes:
        name: name of the size or the card, or "this machine".
        device: key of devices.PRECISIONS.
        card: name of the card, or "" for a CPU.
        memory: bytes of one card, or of the machine for a CPU.
        cards: number of cards, each of which gets a process; 1 for a CPU.
        is_here: whether it is this machine.
    """

    name: str
    device: str
    card: str
    memory: int
    cards: int = 1
    is_here: bool = False


def find_machine(name: str | None) -> Machine:
    """Return the machine of that name, or this machine.

    Args:
        name: size of Azure or card, in any case; None for this machine.

    Raises:
        TrainError: the name is not known.
    """
    if name is None:
        return _this_machine()
    for size, (card, count) in SIZES.items():
        if name.lower() == size.lower():
            return Machine(size, _device(card), card, CARDS[card], count)
    for card, memory in CARDS.items():
        if name.lower() == card.lower():
            return Machine(card, _device(card), card, memory)
    if match := CPU_SIZE.fullmatch(name):
        memory = int(match[2]) * CPU_GIB_PER_CORE[match[1].lower()] * GIB
        return Machine(name, "cpu", "", memory)
    fix = f"use one of {', '.join(SIZES)}; a size of the families D, E or F; or {', '.join(CARDS)}"
    raise TrainError("the memory of the machine is not known", name, fix)


def larger_sizes(machine: Machine) -> list[Machine]:
    """Return the sizes of Azure whose cards have more memory, the smallest first; one for each card."""
    sizes: dict[str, Machine] = {}
    for size in SIZES:
        candidate = find_machine(size)
        more = not machine.card or candidate.memory > machine.memory
        if more and candidate.device != "cuda without bf16":
            sizes.setdefault(candidate.card, candidate)
    return sorted(sizes.values(), key=lambda size: (size.memory, size.cards))


def _device(card: str) -> str:
    return "cuda without bf16" if card in WITHOUT_BF16 else "cuda"


def _this_machine() -> Machine:
    import devices
    import psutil
    import torch

    device = devices.choose_device()
    if device == "cpu":
        memory = psutil.virtual_memory().total
        return Machine("this machine", device, "", memory, is_here=True)
    properties = torch.cuda.get_device_properties(0)
    count = torch.cuda.device_count()
    return Machine("this machine", device, properties.name, properties.total_memory, count, True)
