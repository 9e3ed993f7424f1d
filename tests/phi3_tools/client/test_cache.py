"""The cache of clients: one per connection, the least recently used one is closed."""

from __future__ import annotations

import pytest

from phi3_tools import KeyAuth, Settings
from phi3_tools.client.cache import ClientCache

SECRET = "very-secret-key"
SIZE = 16


@pytest.fixture
def cache():
    cache = ClientCache(SIZE)
    yield cache
    cache.close()


def settings(server, key=SECRET):
    return Settings(server.url, KeyAuth(key))


def test_equal_settings_give_the_same_client(server, cache):
    client = cache.get(settings(server))
    assert cache.get(settings(server)) is client
    assert cache.get(settings(server, "another")) is not client
    assert len(cache) == 2


def test_cached_clients_do_not_show_their_keys(server, cache):
    server.json({"output": "x"})
    cache.get(settings(server)).chat("Hi")
    assert SECRET not in repr(cache._clients)
    assert SECRET not in repr([vars(client) for client in cache._clients.values()])
    assert SECRET not in repr([vars(client._session) for client in cache._clients.values()])


def test_only_the_clients_used_last_are_kept(server, cache):
    server.json({"output": "x"})
    keys = [f"key-{n}" for n in range(SIZE)]
    for key in [*keys, keys[0], "one-more"]:
        cache.get(settings(server, key)).chat("Hi")
    cached = [settings.auth for settings in cache._clients]
    assert cached == [KeyAuth(key) for key in [*keys[2:], keys[0], "one-more"]]


def test_a_closed_cache_is_empty(server, cache):
    cache.get(settings(server))
    cache.close()
    assert len(cache) == 0
