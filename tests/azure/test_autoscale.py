"""Autoscale settings: in the plan, on Azure, in `phi3 status`, and their deletion."""

from __future__ import annotations

import pytest

from azure_fixtures import succeed
from golden_requests import compare

LIMITS = "{min: 2, max: 4, metric: requests, scale_out_above: 600, scale_in_below: 60}"


@pytest.fixture
def configure(tmp_path):
    def write(autoscale):
        text = f"endpoint: {{variant: score, autoscale: {autoscale}}}"
        (tmp_path / "phi3.yaml").write_text(text)

    return write


def settings(serving):
    return {item["name"]: item for item in serving.of("autoscaleSettings")}


def test_the_request_and_a_second_run(serving, configure):
    configure(LIMITS)
    done = succeed(serving.deploy("one"))
    text = "(2 to 4 machines, more above 600 requests/min, fewer below 60 requests/min)"
    assert text in done
    compare("autoscale", serving.azure.writes()[-1])
    (deployment,) = serving.of("onlineEndpoints/deployments")
    assert deployment["sku"]["capacity"] == 2
    assert "nothing to change" in succeed(serving.deploy("one"))


def test_other_limits_change_the_setting_only(serving, configure):
    configure("{max: 3}")
    succeed(serving.deploy("one"))
    before = len(serving.azure.writes())
    configure("{max: 4}")
    assert "1 to 4 machines" in succeed(serving.deploy("one"))
    assert len(serving.azure.writes()) == before + 1
    assert len(settings(serving)) == 1


def test_without_limits_the_setting_is_removed(serving, configure):
    configure("{max: 3}")
    succeed(serving.deploy("one"))
    configure("null")
    assert "removed autoscale setting phi3-endpoint-d-" in succeed(serving.deploy("one"))
    assert settings(serving) == {}


def test_the_setting_goes_with_the_old_deployment(serving, configure):
    configure("{max: 3}")
    succeed(serving.deploy("one"))
    (old,) = settings(serving)
    succeed(serving.deploy("two"))
    (new,) = settings(serving)
    assert new != old


def test_status_and_down(serving, configure, phi3):
    configure("{max: 3}")
    succeed(serving.deploy("one"))
    lines = [" ".join(line.split()) for line in succeed(phi3("status")).splitlines()]
    assert any("autoscale setting phi3-endpoint-d-" in line and "1 to 3" in line for line in lines)
    assert "deleted autoscale setting" in succeed(phi3("down", "--endpoint-only", "--yes"))
    assert settings(serving) == {}


def test_the_setting_of_somebody_else_stays(serving, configure):
    configure("{max: 3}")
    succeed(serving.deploy("one"))
    (setting,) = settings(serving).values()
    setting["tags"] = {}
    configure("null")
    succeed(serving.deploy("one"))
    assert len(settings(serving)) == 1
