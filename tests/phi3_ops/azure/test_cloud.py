"""The clients' names and tags, and Azure's errors as one line."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timezone
from enum import Enum
from types import SimpleNamespace

import pytest

from offline_cloud import OWNED, SUBSCRIPTION, offline_cloud
from phi3_ops.azure import cloud as cloud_module
from phi3_ops.azure.cloud import is_created_by_us, is_expired, state_text
from phi3_ops.errors import OpsError


def test_paths():
    cloud = offline_cloud()
    assert cloud.group_path == f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg"
    provider = "/providers/Microsoft.MachineLearningServices/workspaces/work"
    assert cloud.workspace_path == cloud.group_path + provider


class TestTags:
    def test_product_workspace_owner_and_expiry_date(self, monkeypatch):
        clock = SimpleNamespace(now=lambda zone: datetime(2026, 2, 27, 23, tzinfo=timezone.utc))
        monkeypatch.setattr(cloud_module, "datetime", clock)
        tags = offline_cloud(tags={"owner": "me", "expires_days": 3}).tags()
        assert tags == {**OWNED, "expires": "2026-03-02"}

    @pytest.mark.parametrize(
        ("tags", "owned"),
        [
            (OWNED, True),
            ({**OWNED, "workspace": "other"}, False),
            ({**OWNED, "created-by": "somebody"}, False),
            ({}, False),
            (None, False),
        ],
    )
    def test_a_resource_is_owned_by_product_and_workspace(self, tags, owned):
        assert offline_cloud().owns(tags) is owned

    def test_the_product_alone(self):
        assert is_created_by_us({"created-by": "phi3-promptflow"})
        assert not is_created_by_us(None)

    @pytest.mark.parametrize(
        ("tags", "expired"),
        [
            ({"expires": "2026-01-01"}, True),
            ({"expires": "2026-01-02"}, False),
            ({"expires": ""}, False),
            ({}, False),
            (None, False),
        ],
    )
    def test_expiry(self, tags, expired):
        assert is_expired(tags, "2026-01-02") is expired


class TestRest:
    @pytest.fixture
    def sent(self):
        return []

    def cloud(self, sent, status, body):
        def send_request(request):
            sent.append(request)
            return SimpleNamespace(
                status_code=status,
                reason="",
                headers={},
                text=lambda: body,
                json=lambda: {"a": 1},
                raise_for_status=lambda: None,
            )

        return offline_cloud({"resources": SimpleNamespace(send_request=send_request)})

    def test_the_request_and_its_answer(self, sent):
        cloud = self.cloud(sent, 200, "{}")
        answer = cloud.rest("PUT", "/x", api="2024-01-01", body={"b": 2}, query={"c": "3"})
        assert answer == {"a": 1}
        (request,) = sent
        assert request.method == "PUT"
        assert request.url == "https://management.azure.com/x?api-version=2024-01-01&c=3"
        assert request.content == '{"b": 2}'

    def test_an_empty_answer(self, sent):
        assert self.cloud(sent, 204, "").rest("DELETE", "/x", api="1") is None

    @pytest.mark.parametrize(
        ("status", "name"), [(404, "ResourceNotFoundError"), (409, "ResourceExistsError")]
    )
    def test_statuses_with_a_class_of_their_own(self, sent, status, name):
        from azure.core import exceptions

        with pytest.raises(getattr(exceptions, name)):
            self.cloud(sent, status, "{}").rest("GET", "/x", api="1")


class TestOperation:
    """A request whose answer says that it began a long-running operation."""

    def cloud(self, *answers):
        queue = iter(answers)
        self.urls = []

        def send_request(request):
            self.urls.append(request.url)
            status, headers, body = next(queue)
            return SimpleNamespace(
                status_code=status,
                reason="",
                headers={"retry-after-ms": "0", **headers},
                text=lambda: json.dumps(body) if body else "",
                json=lambda: body,
                raise_for_status=lambda: None,
            )

        return offline_cloud({"resources": SimpleNamespace(send_request=send_request)})

    def test_a_status_is_followed_to_its_end(self):
        began = {"Azure-AsyncOperation": "https://a/status", "Location": "https://a/result"}
        states = [{"status": "InProgress"}, {"status": "Updating", "percentComplete": 50}]
        polls = [(200, {}, state) for state in [*states, {"status": "Succeeded"}]]
        assert self.cloud((202, began, None), *polls).rest("POST", "/x", api="1") is None
        assert self.urls[1:] == ["https://a/status"] * 3

    def test_a_location_is_followed_to_its_end(self):
        began = {"Location": "https://a/result"}
        self.cloud((202, began, None), (202, {}, None), (200, {}, None)).rest("POST", "/x", api="1")
        assert self.urls[1:] == ["https://a/result"] * 2

    def test_a_failure_is_explained(self):
        error = {"code": "UserError", "message": "No.", "innerError": {"code": "BadArgument"}}
        failed = {"status": "Failed", "error": error}
        cloud = self.cloud((202, {"Azure-AsyncOperation": "https://a/s"}, None), (200, {}, failed))
        with pytest.raises(OpsError, match="POST /x: Failed: UserError / BadArgument: No."):
            cloud.rest("POST", "/x", api="1")

    def test_an_operation_that_does_not_end(self, monkeypatch):
        monkeypatch.setattr(cloud_module, "OPERATION_S", 0.0)
        began = (202, {"Location": "https://a/result"}, None)
        with pytest.raises(OpsError, match="has not ended after 0 minutes. Look at the resource"):
            self.cloud(began, (202, {}, None)).rest("POST", "/x", api="1")


@pytest.mark.parametrize(
    ("credentials", "secret"),
    [({"sas_token": "sas"}, "sas"), ({"account_key": "key"}, "key"), ({}, None)],
)
def test_a_blob_is_looked_up_with_the_datastores_secret(monkeypatch, credentials, secret):
    from azure.storage import blob

    calls = []

    class Blob:
        def __init__(self, *words, credential):
            calls.append((*words, credential))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def exists(self):
            return True

    monkeypatch.setattr(blob, "BlobClient", Blob)
    store = SimpleNamespace(
        protocol="https",
        account_name="account",
        endpoint="core.windows.net",
        container_name="box",
        credentials=SimpleNamespace(**credentials),
    )
    get = lambda name, include_secrets: store  # noqa: E731
    cloud = offline_cloud({"ml": SimpleNamespace(datastores=SimpleNamespace(get=get))})
    assert cloud.has_blob("a/b")
    url = "https://account.blob.core.windows.net"
    assert calls == [(url, "box", "a/b", secret or cloud.credential)]


def test_without_the_azure_packages_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "azure.ai.ml", None)
    with pytest.raises(OpsError, match="pip install .*azure"):
        _ = offline_cloud().ml


def test_a_state_is_text_with_every_version_of_the_sdk():
    """azure-ai-ml 1.32 returns texts, and 1.35 members of an enumeration of texts."""

    class State(str, Enum):
        DELETING = "Deleting"

    states = (State.DELETING, "Succeeded", None)
    assert [state_text(state) for state in states] == ["Deleting", "Succeeded", ""]
