"""The state of one endpoint that all its calls share: connections, contract, streaming ability."""

from __future__ import annotations

import logging
import threading

from .contracts import Contract, Decoded, candidates, request_url
from .messages import Message, Usage, tokenizer_counter
from .settings import Settings
from .transport import Transport

log = logging.getLogger("phi3_tools")


class Session:
    """State of one endpoint. Safe to use from many threads.

    Args:
        settings: the checked connection.
        pool_size: number of connections to keep open, per URL.

    Attributes:
        counter: exact token counter, or None without a tokenizer file.
        contracts: contracts that the endpoint may speak, likeliest first.
        detected_contract: the contract that the endpoint speaks, or None while that is not known.
        can_stream: whether the endpoint streams, or None while that is not known.
    """

    def __init__(self, settings: Settings, pool_size: int) -> None:
        self.settings = settings
        self.counter = tokenizer_counter(settings.tokenizer) if settings.tokenizer else None
        self.contracts = candidates(settings.contract, settings.endpoint, settings.template)
        self.detected_contract: Contract | None = (
            self.contracts[0] if len(self.contracts) == 1 else None
        )
        self.can_stream: bool | None = None
        self._pool_size = pool_size
        self._transports: dict[str, Transport] = {}
        self._lock = threading.Lock()

    @property
    def has_tools(self) -> bool:
        """Whether the contract has fields for schemas and tools."""
        return all(contract.has_tools for contract in self.contracts)

    def transport(self, contract: Contract) -> Transport:
        """Return the transport for a contract's URL; it is made on first use."""
        url = request_url(self.settings.endpoint, contract)
        with self._lock:
            if url not in self._transports:
                self._transports[url] = Transport(url, pool_size=self._pool_size)
            return self._transports[url]

    def remember(self, contract: Contract) -> None:
        """Use this contract for all further calls."""
        if self.detected_contract is not contract:
            self.detected_contract = contract
            # The query is left out, because it may contain a secret.
            url = self.settings.endpoint.partition("?")[0]
            log.info("%s speaks the %s contract", url, contract.name)

    def usage(self, decoded: Decoded, messages: list[Message]) -> Usage | None:
        """Return the token counts that the endpoint reported, or counts of our own tokenizer."""
        if decoded.usage or self.counter is None:
            return decoded.usage
        prompt_tokens = self.counter.most_of(messages)
        return Usage(prompt_tokens, self.counter.most(decoded.text), counted=True)

    def close(self) -> None:
        """Close the kept connections."""
        with self._lock:
            transports, self._transports = self._transports, {}
        for transport in transports.values():
            transport.close()
