"""Checks of what Azure will build and run, before anything is paid for."""

from __future__ import annotations

from .runner import FAIL, OK, Finding


def environments(context: object) -> Finding:
    """Whether the torch of training, serving and vLLM can use the GPU: its CUDA version and image."""
    from ..azure import azure_environments

    listed = azure_environments()
    if problems := [f"{item.name}: {item.problem}" for item in listed if item.problem]:
        return Finding(FAIL, "; ".join(problems))
    return Finding(
        OK,
        "; ".join(
            f"{item.name}: Python {item.python}, torch {item.torch}, CUDA {item.cuda}"
            for item in listed
        ),
    )
