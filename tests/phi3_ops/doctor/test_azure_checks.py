"""The checks of what Azure will build and run."""

from __future__ import annotations

from dataclasses import replace

from phi3_ops import azure
from phi3_ops.doctor.azure_checks import environments
from phi3_ops.doctor.checks import CheckContext
from phi3_ops.doctor.runner import FAIL, OK


class TestEnvironments:
    def test_versions_are_shown(self):
        finding = environments(CheckContext())
        assert finding.status == OK
        assert "training: Python 3.11, torch 2.10.0, CUDA 12.8" in finding.what

    def test_a_torch_that_the_driver_cannot_run(self, monkeypatch):
        wrong = [replace(item, cuda="13.0") for item in azure.azure_environments()]
        monkeypatch.setattr(azure, "azure_environments", lambda: wrong)
        finding = environments(CheckContext())
        assert finding.status == FAIL
        assert "training: torch 2.10.0 needs CUDA 13.0, which driver 535" in finding.what
