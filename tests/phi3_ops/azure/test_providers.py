"""Resource providers of a new subscription: checked before anything is created, and registered."""

from __future__ import annotations

import pytest

from offline_cloud import offline_cloud
from phi3_ops.azure import providers
from phi3_ops.azure.providers import PROVIDERS, registration_step, unregistered_providers
from phi3_ops.errors import OpsError

CDN, INSIGHTS = "Microsoft.Cdn", "Microsoft.Insights"


@pytest.fixture
def new_subscription(azure):
    azure.unregistered = {CDN.lower(), INSIGHTS.lower()}
    return azure


def test_all_are_registered(azure, phi3):
    assert "resource provider" not in phi3("provision", "--dry-run", "--create-group").out


def test_yes_alone_does_not_register(new_subscription, phi3):
    done = phi3("provision", "--create-group", "--yes")
    assert done.code == 1
    assert f"has not registered {CDN}, {INSIGHTS}. Run `phi3 provision --register`" in done.err
    assert new_subscription.writes() == []


def test_a_dry_run_lists_them(new_subscription, phi3):
    done = phi3("provision", "--create-group", "--dry-run")
    assert f"would register resource provider {CDN}\n" in done.out
    assert new_subscription.writes() == []


def test_they_are_registered_first(new_subscription, phi3):
    done = phi3("provision", "--create-group", "--yes", "--register")
    assert done.code == 0, done.err
    assert f"registered resource provider {INSIGHTS}" in done.out
    paths = [write.path for write in new_subscription.writes()]
    assert [path.split("/")[4] for path in paths[:2]] == [CDN, INSIGHTS]
    assert "nothing to change" in phi3("provision").out


def test_an_unregistered_provider_is_explained(new_subscription, phi3, monkeypatch):
    monkeypatch.setattr(providers, "PROVIDERS", ())
    new_subscription.unregistered = {"microsoft.containerregistry"}
    done = phi3("provision", "--create-group", "--yes")
    assert done.code == 1
    assert "create container registry" in done.err and "MissingSubscriptionRegistration" in done.err
    assert "Run `phi3 provision --register`." in done.err


class TestWithoutAzure:
    def cloud(self, answer):
        cloud = offline_cloud()
        cloud.rest = lambda method, path, *, api: answer(path)
        return cloud

    @pytest.mark.parametrize(("status", "missing"), [(403, []), (500, None)])
    def test_a_user_who_may_not_read_them(self, status, missing):
        from azure.core.exceptions import HttpResponseError

        def refuse(path):
            error = HttpResponseError("no")
            error.status_code = status
            raise error

        if missing is None:
            with pytest.raises(OpsError, match="reading the resource providers: 500"):
                unregistered_providers(self.cloud(refuse))
        else:
            assert unregistered_providers(self.cloud(refuse)) == missing

    def test_a_registration_that_does_not_end(self, monkeypatch):
        monkeypatch.setattr(providers, "REGISTRATION_S", 0.0)
        step = registration_step(self.cloud(lambda path: {"registrationState": "Registering"}), CDN)
        assert not step.exists()
        with pytest.raises(OpsError, match="has been Registering for 0 minutes. Run this again"):
            step.apply()

    def test_the_providers_of_the_known_pitfalls(self):
        assert {"Microsoft.PolicyInsights", CDN} < set(PROVIDERS)
