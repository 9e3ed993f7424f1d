"""Models by short name and GGUF files: fetched, converted into a Phi-3, and kept in a cache of the user.

It may import `files` and the top-level modules.
"""

from __future__ import annotations

from .cache import EXPORT_NAMES, list_models, remove_model
from .catalog import SHORT_NAMES
from .resolve import is_converted_here, resolve_folder, resolve_model

__all__ = [
    "EXPORT_NAMES",
    "SHORT_NAMES",
    "is_converted_here",
    "list_models",
    "remove_model",
    "resolve_folder",
    "resolve_model",
]
