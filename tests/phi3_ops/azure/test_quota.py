"""Quota: the arithmetic, the names, the command."""

from __future__ import annotations

import pytest

from phi3_ops.azure import quota
from phi3_ops.azure.quota import (
    REGION,
    QuotaLine,
    QuotaNeed,
    find_usage,
    quota_shortage,
    refuse_retired,
)
from phi3_ops.errors import OpsError

A100, FAMILY = "Standard_NC24ads_A100_v4", "standardNCADSA100v4Family"
REGIONAL = "Total Cluster Dedicated Regional vCPUs"


def usage(value, limit, used=0, localized=None):
    """An entry of Azure's list, converted."""
    name = {"value": value, "localizedValue": localized}
    return quota._usage({"name": name, "limit": limit, "currentValue": used})


@pytest.mark.parametrize(
    ("need", "family", "cores"),
    [
        (QuotaNeed("cluster", A100, 2), FAMILY, 48),
        (QuotaNeed("endpoint", A100, 2, endpoint=True), FAMILY, 48),  # no reserve in this family
        (QuotaNeed("endpoint", "Standard_E4s_v3", 1, endpoint=True), "standardESv3Family", 48),
        (QuotaNeed("endpoint", "Standard_E4s_v3", 5, endpoint=True), "standardESv3Family", 144),
        (QuotaNeed("cluster", "Standard_E4s_v3", 5), "standardESv3Family", 120),
    ],
)
def test_cores(need, family, cores):
    assert quota.cores(need, 24, family) == cores


@pytest.mark.parametrize(
    ("limit", "used", "needed", "missing"),
    [(24, 0, 24, 0), (24, 24, 24, 24), (100, 90, 24, 14), (0, 0, 24, 24), (None, 0, 24, 0)],
)
def test_missing(limit, used, needed, missing):
    assert QuotaLine("cluster", A100, FAMILY, used, limit, needed).missing == missing


@pytest.mark.parametrize(
    "spelled",
    [
        FAMILY,
        "Standard NCADSA100v4 Family Cluster Dedicated vCPUs",
        "STANDARDNCADSA100V4FAMILY",
        "standard NCADS_A100_v4 Family",
    ],
)
def test_one_family_spelled_in_many_ways(spelled):
    assert find_usage([usage(spelled, 5)], FAMILY).limit == 5
    assert find_usage([usage("x", 5, localized=spelled)], FAMILY).limit == 5


def test_low_priority_spelled_in_two_ways():
    usages = [usage("Total Cluster Low Priority Regional vCPUs", 7)]
    assert find_usage(usages, REGION[True]).limit == 7


def test_of_two_limits_the_tighter_one_applies():
    both = [usage(FAMILY, 100, 10), usage(FAMILY, 40, 0), usage(FAMILY, -1, 0)]
    assert find_usage(both, FAMILY).limit == 40
    assert find_usage([usage("other", 1)], FAMILY) is None


def test_a_shortage_has_count_quota_and_region():
    lines = [
        QuotaLine("cluster", A100, FAMILY, 10, 24, 24),
        QuotaLine("cluster", A100, REGIONAL, 10, 300, 24),
    ]
    assert quota_shortage(lines, "eastus2") == (
        f"cluster: 10 cores of {FAMILY} are missing in eastus2 ({A100} needs 24, 10 of 24 are used)"
    )


@pytest.mark.parametrize("size", ["Standard_NC6s_v3", "STANDARD_NC24RS_V3"])
def test_a_retired_size_is_refused_and_its_replacement_named(size):
    with pytest.raises(OpsError, match=f"{size} was retired on 2025-09-30. Use {A100}"):
        refuse_retired([QuotaNeed("endpoint", size, 1)])


class TestCommand:
    def test_enough(self, azure, phi3):
        done = phi3("quota")
        assert (done.code, done.err) == (0, "")
        assert FAMILY in done.out and REGIONAL in done.out
        assert azure.writes() == []

    @pytest.mark.parametrize("name", [FAMILY, REGIONAL])
    def test_both_limits_apply(self, azure, phi3, name):
        azure.quota(name, 30, 10)
        done = phi3("quota")
        assert done.code == 1
        assert f"4 cores of {name} are missing in eastus2" in done.err
        assert "Azure Machine Learning > Quota" in done.err
        assert len(done.err.splitlines()) == 1

    def test_low_priority_has_one_limit(self, azure, phi3, tmp_path):
        (tmp_path / "phi3.yaml").write_text("compute: {low_priority: true, max_instances: 2}")
        azure.quota(FAMILY, 24)
        azure.quota(REGION[True], 40)
        done = phi3("quota")
        assert done.code == 1
        assert "cluster: 8 cores of Total Cluster LowPriority Regional vCPUs" in done.err
        assert "endpoint:" not in done.err

    def test_an_unlisted_family_does_not_block(self, azure, phi3):
        del azure.quotas[FAMILY]
        done = phi3("quota")
        assert done.code == 0
        assert "not listed" in done.out

    @pytest.mark.parametrize(
        ("size", "message"),
        [
            ("Standard_NC6s_v3", "was retired"),
            ("Standard_X1", "eastus2 does not offer Standard_X1"),
        ],
    )
    def test_a_size_that_is_not_available(self, azure, phi3, tmp_path, size, message):
        (tmp_path / "phi3.yaml").write_text(f"endpoint: {{size: {size}}}")
        done = phi3("quota")
        assert done.code == 1
        assert f"endpoint: {size}" in done.err or message in done.err
        assert message in done.err

    def test_a_restricted_size_is_noted(self, azure, phi3, tmp_path):
        (tmp_path / "phi3.yaml").write_text("endpoint: {size: Standard_E4s_v3}")
        assert "Standard_E4s_v3: new subscriptions" in phi3("quota").out

    def test_not_allowed_is_one_line(self, azure, phi3):
        azure.fail("GET", "/usages", 403, code="AuthorizationFailed", message="You may not.")
        done = phi3("quota")
        assert done.code == 1
        assert done.err.count("\n") == 1 and "AuthorizationFailed" in done.err
