"""A project of one's own: `phi3 init` lays out its files."""

from __future__ import annotations

from .layout import create_project

__all__ = ["create_project"]
