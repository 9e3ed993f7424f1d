"""A chat page in the background: started, found, replaced and stopped like an endpoint."""

from __future__ import annotations

import pytest
import requests

from phi3_ops.chat.background import start_page
from phi3_ops.cli import main
from phi3_ops.endpoint.registration import find_endpoint, log_file
from phi3_ops.errors import OpsError
from processes import processes_naming
from scripted_endpoint import HANG_S


def test_start_find_and_stop(endpoint, tmp_path, started, capsys):
    running = start_page(["phi3"], tmp_path, "page")
    try:
        assert find_endpoint(tmp_path, "page") == running
        assert "<title>" in requests.get(running.url, timeout=HANG_S).text
        asked = requests.post(f"{running.url}score", json={"question": "hi"}, timeout=HANG_S)
        assert asked.status_code == 200, asked.text
        again = start_page(["phi3"], tmp_path, "page")  # replaces the first
        assert find_endpoint(tmp_path, "page").pid == again.pid != running.pid
    finally:
        assert main(["endpoint", "--stop", "--workdir", str(tmp_path)]) == 0
    assert f"stopped page ({again.url})" in capsys.readouterr().out
    assert not processes_naming(tmp_path)
    assert find_endpoint(tmp_path, "page") is None


def test_a_page_that_does_not_start_is_an_error_with_its_last_line(tmp_path, started):
    with pytest.raises(
        OpsError, match="the chat page 'page' did not start: .*'none' does not exist"
    ):
        start_page(["none"], tmp_path, "page")
    assert log_file(tmp_path, "page").exists()
