"""Tests of an environment of its own, without promptflow: see tests/test_after_promptflow.py."""

from importlib.util import find_spec

if find_spec("agent_framework") is None:
    collect_ignore_glob = ["test_*.py"]
