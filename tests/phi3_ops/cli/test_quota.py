"""`phi3 quota`: its table, its notes and its exit code."""

from __future__ import annotations

import json

import pytest

from offline_cloud import write_config
from phi3_ops import azure
from phi3_ops.azure.quota import QuotaLine
from phi3_ops.cli import main


@pytest.fixture
def lines(monkeypatch, tmp_path):
    """The lines that Azure's quota gives; the test fills them in."""
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path, endpoint={"size": "Standard_E4s_v3"})
    lines = []
    monkeypatch.setattr(azure, "quota_lines", lambda cloud, needs: lines)
    return lines


def test_enough(lines, capsys):
    lines += [
        QuotaLine("cluster", "S", "family", 1, 24, 20),
        QuotaLine("endpoint", "S", "q", 0, None, 4),
    ]
    assert main(["quota"]) == 0
    head, first, second, note = (
        " ".join(line.split()) for line in capsys.readouterr().out.splitlines()
    )
    assert head == "for machine quota used limit needed missing"
    assert first == "cluster S family 1 24 20 0"
    assert second == "endpoint S q 0 not listed 4 0"
    assert note.startswith("Standard_E4s_v3: new subscriptions")


def test_json(lines, capsys):
    lines.append(QuotaLine("endpoint", "S", "q", 0, None, 4))
    assert main(["quota", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["items"][0]["limit"] is None and document["items"][0]["needed"] == 4
    assert document["notes"][0].startswith("Standard_E4s_v3: new subscriptions")


def test_missing_cores(lines, capsys):
    lines.append(QuotaLine("cluster", "S", "family", 10, 24, 20))
    assert main(["quota"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("phi3 quota: cluster: 6 cores of family are missing in eastus2")
    assert line.endswith("Request more on the portal's page Azure Machine Learning > Quota.")
