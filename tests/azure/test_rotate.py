"""`phi3 connect --azure --rotate`: at every moment, both connections have a key that works."""

from __future__ import annotations

import pytest

from azure_fixtures import one_line, succeed
from phi3_ops.deploy import keys as keys_module
from phi3_ops.pf.connections import connection_key


class TestRotate:
    @pytest.fixture
    def connected(self, serving, phi3, monkeypatch):
        """Both connections use the primary key."""
        monkeypatch.setattr(keys_module, "KEY_POLL_S", 0.0)
        succeed(serving.deploy("one"))
        succeed(phi3("connect", "--azure"))
        return serving

    def rotate(self, connected):
        return connected.phi3("connect", "--azure", "--rotate")

    def current(self, connected):
        """The keys of the local connection and of the workspace's connection."""
        (shared,) = connected.of("connections")
        return connection_key("phi3"), shared["properties"]["credentials"]["keys"]["key"]

    def test_a_key_that_is_accepted_late(self, connected):
        before = connected.keys
        connected.azure.fail("POST", "/score", 401, 2)
        assert "the secondary key" in succeed(self.rotate(connected))
        assert not set(before) & set(connected.keys)
        assert self.current(connected) == (connected.keys[1], connected.keys[1])
        assert "nothing to change" in succeed(connected.phi3("connect", "--azure"))
        assert "the primary key" in succeed(self.rotate(connected))
        assert self.current(connected) == (connected.keys[0], connected.keys[0])

    def test_a_key_that_is_never_accepted(self, connected, monkeypatch):
        monkeypatch.setattr(keys_module, "KEY_READY_S", 0.0)
        primary = connected.keys[0]
        connected.azure.fail("POST", "/score", 401, None)
        message = "the endpoint does not accept the new key. The old key still works"
        one_line(self.rotate(connected), message)
        assert connected.keys[0] == primary
        assert self.current(connected) == (primary, primary)
        assert "nothing to change" in succeed(connected.phi3("connect", "--azure"))

    def test_a_run_interrupted_between_the_connections_is_completed(self, connected):
        primary = connected.keys[0]
        connected.azure.fail("PUT", "/connections/", 403, code="AuthorizationFailed")
        one_line(self.rotate(connected), "connect: AuthorizationFailed")
        assert connected.keys[0] == primary  # which the workspace's connection still holds
        assert self.current(connected) == (connected.keys[1], primary)
        succeed(connected.phi3("connect", "--azure"))
        assert self.current(connected) == (connected.keys[1], connected.keys[1])

    # The unused key is regenerated first, then the connection is written, then the other key regenerated.
    @pytest.mark.parametrize("count", [1, 2, 3], ids=["new-key", "connection", "old-key"])
    def test_killed_after_any_write_the_next_run_completes(self, connected, kill_after, count):
        refused = []
        kill_after(count, lambda _: refused.append(connection_key("phi3") not in connected.keys))
        before = len(connected.azure.writes())
        assert self.rotate(connected).code == 1
        assert len(connected.azure.writes()) == before + count
        assert self.current(connected)[0] in connected.keys
        assert self.current(connected)[1] in connected.keys
        kill_after(0, lambda _: refused.append(connection_key("phi3") not in connected.keys))
        succeed(self.rotate(connected))
        assert set(self.current(connected)) <= set(connected.keys)
        assert len(refused) == len(connected.azure.writes()) - before and not any(refused)
        assert "nothing to change" in succeed(connected.phi3("connect", "--azure"))

    def test_connections_with_different_keys_get_the_same_key_first(self, connected):
        """An interrupted run leaves them like that, or a run on another machine."""
        (shared,) = connected.of("connections")
        shared["properties"]["credentials"]["keys"]["key"] = connected.keys[1]
        seen = []
        connected.azure.on_write(lambda _: seen.append(set(self.current(connected))))
        succeed(self.rotate(connected))
        connected.azure.on_write(None)
        assert [len(keys) for keys in seen[:2]] == [1, 1]

    def test_an_endpoint_without_keys(self, serving, phi3, tmp_path):
        (tmp_path / "phi3.yaml").write_text("endpoint: {auth: entra, variant: score}")
        one_line(phi3("connect", "--azure", "--rotate"), "does not use keys")
        assert serving.azure.requests == []
