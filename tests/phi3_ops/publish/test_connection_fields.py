"""The fields of a connection: from the local store or the project, and whether they work."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from echo_endpoint import KEY
from phi3_ops.errors import OpsError
from phi3_ops.publish import connection_fields
from phi3_ops.publish.connection_fields import (
    ConnectionFields,
    check_connection,
    find_workspace_connection,
    local_connection,
    shared_connection,
)
from phi3_tools.connections import find_connection


def cloud(**properties):
    """A workspace whose connection has these properties."""
    azure = SimpleNamespace(workspace="ws-one")

    def rest(method, path, api):
        assert (method, path) == ("POST", "/workspace/connections/phi3/listsecrets")
        return {"properties": properties}

    return SimpleNamespace(
        workspace_path="/workspace", rest=rest, config=SimpleNamespace(azure=azure)
    )


CUSTOM = {"category": "CustomKeys", "authType": "CustomKeys"}


def test_a_local_connection(endpoint):
    fields = local_connection("phi3")
    assert fields.configs["endpoint"] == endpoint.url
    assert fields.secrets == {"key": KEY}
    assert KEY not in repr(fields)


def test_a_local_connection_that_does_not_exist():
    with pytest.raises(OpsError, match="the connection 'none' does not exist"):
        local_connection("none")


def test_a_shared_connection():
    keys = {"key": KEY}
    fields = shared_connection(
        cloud(**CUSTOM, metadata={"endpoint": "http://a"}, credentials={"keys": keys}), "phi3"
    )
    assert fields == ConnectionFields({"endpoint": "http://a"}, {"key": KEY})
    assert fields.all == {"endpoint": "http://a", "key": KEY}


@pytest.mark.parametrize("properties", [{}, {"metadata": None, "credentials": None}])
def test_a_shared_connection_without_fields_is_empty(properties):
    assert shared_connection(cloud(**CUSTOM, **properties), "phi3") == ConnectionFields()


@pytest.mark.parametrize("key", CUSTOM)
def test_a_connection_of_another_kind_is_refused(key):
    with pytest.raises(OpsError, match=f"'phi3' in ws-one has the {key} ApiKey. A flow needs"):
        shared_connection(cloud(**{**CUSTOM, key: "ApiKey"}), "phi3")


def test_a_connection_of_the_workspace_is_found_by_its_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert find_workspace_connection("phi3") is None  # there is no phi3.yaml
    (tmp_path / "phi3.yaml").write_text("{}")
    assert find_workspace_connection("phi3") is None  # it is not complete
    shared = cloud(**CUSTOM, metadata={"endpoint": "http://a"}, credentials={"keys": {"key": KEY}})
    monkeypatch.setattr(connection_fields, "load_config", lambda: None)
    monkeypatch.setattr(connection_fields, "Cloud", lambda config: shared)
    found = find_connection("phi3", {"workspace": find_workspace_connection})
    assert (dict(found.configs), dict(found.secrets)) == ({"endpoint": "http://a"}, {"key": KEY})
    assert found.source == "the workspace ws-one" and KEY not in repr(found)


def test_a_connection_whose_endpoint_answers(endpoint):
    text = check_connection("phi3", local_connection("phi3"))
    assert text.startswith("answers in ") and text.endswith(" contract)")
    assert len(endpoint.requests) == 1


def test_the_fields_are_checked_before_the_endpoint_is_asked(endpoint):
    fields = ConnectionFields({"endpoint": endpoint.url, "read_timeout_s": "soon"}, {"key": KEY})
    with pytest.raises(OpsError, match="the connection 'phi3': .*read_timeout_s"):
        check_connection("phi3", fields)
    assert not endpoint.requests
