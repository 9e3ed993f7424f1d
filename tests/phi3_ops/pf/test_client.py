"""Prompt flow is silenced before its first import, and what the user has decided stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import yaml

from phi3_ops.pf.client import PF_COMMAND, QUIET_ENVIRONMENT, pf_client, prepare, quiet_environment

PREPARE = """\
import json, os, sys
from phi3_ops.pf.client import QUIET_ENVIRONMENT, prepare
assert not any(name.startswith("promptflow") for name in sys.modules)
assert prepare() is None
print(json.dumps({name: os.environ[name] for name in [*QUIET_ENVIRONMENT, "PF_LOGGING_LEVEL"]}))
"""


def prepared(home, **variables):
    """Call `prepare` in a process of its own; return its variables and Prompt flow's configuration."""
    names = (*QUIET_ENVIRONMENT, "PF_LOGGING_LEVEL")
    bare = {name: value for name, value in os.environ.items() if name not in names}
    environment = {**bare, "PF_HOME_DIRECTORY": str(home), **variables}
    done = subprocess.run(
        [sys.executable, "-c", PREPARE], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), yaml.safe_load((home / "pf.yaml").read_text())


def test_telemetry_trace_service_and_log_are_off(tmp_path):
    variables, configuration = prepared(tmp_path)
    assert variables == {**QUIET_ENVIRONMENT, "PF_LOGGING_LEVEL": "CRITICAL"}
    assert configuration["telemetry"]["enabled"] is False


def test_the_users_variables_and_consent_win(tmp_path):
    (tmp_path / "pf.yaml").write_text("telemetry: {enabled: true}\n")
    users = {"PF_TRACING_SKIP_LOCAL_SETUP": "false", "PF_LOGGING_LEVEL": "INFO"}
    variables, configuration = prepared(tmp_path, **users)
    assert {name: variables[name] for name in users} == users
    assert configuration["telemetry"]["enabled"] is True


def test_the_client_is_prompt_flows():
    from promptflow.client import PFClient

    prepare()
    assert isinstance(pf_client(), PFClient)


@pytest.mark.parametrize("name", QUIET_ENVIRONMENT)
def test_a_childs_environment_is_quiet_unless_the_user_has_decided(name, monkeypatch):
    monkeypatch.delenv(name, raising=False)
    assert quiet_environment()[name] == "true"
    monkeypatch.setenv(name, "mine")
    assert quiet_environment()[name] == "mine"


def test_the_pf_command_runs(tmp_path):
    environment = {**quiet_environment(), "PF_HOME_DIRECTORY": str(tmp_path)}
    done = subprocess.run(
        [*PF_COMMAND, "--version"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0 and "1.18" in done.stdout, done.stderr
