"""Clients that stay open for the life of the process, one per connection."""

from __future__ import annotations

import threading
from collections import OrderedDict

from .client import Phi3Client
from .settings import Settings


class ClientCache:
    """The most recently used clients, with their open connections and detected contracts.

    Args:
        size: number of clients to keep; the least recently used one is closed.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._clients: OrderedDict[Settings, Phi3Client] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._clients)

    def get(self, settings: Settings) -> Phi3Client:
        """Return the client for these settings; it is made on first use."""
        with self._lock:
            client = self._clients.get(settings) or Phi3Client(settings)
            self._clients[settings] = client
            self._clients.move_to_end(settings)
            while len(self._clients) > self._size:
                self._clients.popitem(last=False)[1].close()
        return client

    def close(self) -> None:
        """Close all clients and forget them."""
        with self._lock:
            while self._clients:
                self._clients.popitem()[1].close()
