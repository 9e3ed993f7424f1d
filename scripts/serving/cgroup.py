"""The limits of memory and of cores that Linux sets for this process, as for a container.

Sources: "Control Group v2" and "Memory Resource Controller" of the Linux kernel's documentation.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")  # a line "number:controllers:path" per hierarchy
V1_PERIOD_US = 100_000


def memory_limit() -> int | None:
    """Return the memory in bytes that this process may use, None if it is not limited."""
    limits = [_read_numbers(folder / "memory.max") for folder in _folders("")]
    limits += [_read_numbers(folder / "memory.limit_in_bytes") for folder in _folders("memory")]
    return min((limit[0] for limit in limits if limit), default=None)


def core_limit() -> float | None:
    """Return the number of cores that this process may use, None if it is not limited."""
    quotas = [_read_numbers(folder / "cpu.max") for folder in _folders("")]
    for folder in _folders("cpu"):
        quota = _read_numbers(folder / "cpu.cfs_quota_us")
        quotas.append(quota + (_read_numbers(folder / "cpu.cfs_period_us") or [V1_PERIOD_US]))
    return min((quota[0] / quota[1] for quota in quotas if len(quota) > 1), default=None)


def _folders(controller: str) -> list[Path]:
    """Return the folders of this process's group and of the groups that contain it.

    A container sees its own group as the root, but the path may be that of the host. Then only the root
    exists.

    Args:
        controller: a controller of version 1; "" for version 2, which has all in one hierarchy.
    """
    root = ROOT / controller
    try:
        lines = MEMBERSHIP.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return [root]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            group = root / path.lstrip("/")
            return [group, *(parent for parent in group.parents if parent.is_relative_to(root))]
    return [root]


def _read_numbers(file: Path) -> list[int]:
    """Return the numbers of a file: an empty list without a limit, "max" or -1."""
    try:
        words = file.read_text(encoding="utf-8").split()
        numbers = [int(word) for word in words]
    except (OSError, ValueError):
        return []
    return [] if any(number <= 0 for number in numbers) else numbers
