"""Keys and values of earlier rows, for prompts that start with the same tokens.

Prompts share a long system prompt, or continue a chat. The common beginning is not run again.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from batching import Backend, Cache

SHORTEST_PREFIX = 128  # tokens; a shorter prefix is run again, together with other prompts
# Prefixes give their memory to rows that need it. The limits keep a server with much memory from filling
# it with chats that have ended.
MIB = 2**20
LARGEST_SHARE = 4  # prefixes take at most this part of the memory for all caches
USUAL_SHARE, USUAL_BYTES = 32, 512 * MIB  # and at most the larger one of this part and these bytes
KNOWN_SHARE = 0.75  # a row is not kept if so much of it is a prefix that is known already


def prefix_bytes(cache_bytes: int) -> int:
    """Return the memory in bytes that prefixes may take.

    Args:
        cache_bytes: memory in bytes for all caches.
    """
    return min(cache_bytes // LARGEST_SHARE, max(cache_bytes // USUAL_SHARE, USUAL_BYTES))


@dataclass(frozen=True)
class Prefix:
    """Tokens whose keys and values are known.

    Attributes:
        tokens: the tokens.
        cache: a cache with one slot, which contains them.
        rotary_key: key of the rotary factors that they were computed with.
    """

    tokens: list[int]
    cache: Cache
    rotary_key: Hashable

    def common_length(self, tokens: Sequence[int]) -> int:
        """Return how many tokens at the start are the same."""
        if self.tokens[:SHORTEST_PREFIX] != tokens[:SHORTEST_PREFIX]:
            return 0
        pairs = zip(self.tokens, tokens)
        different = (index for index, (mine, other) in enumerate(pairs) if mine != other)
        return next(different, min(len(self.tokens), len(tokens)))


class PrefixCache:
    """Keeps the keys and values of rows. The least recently used ones are dropped first."""

    def __init__(self, backend: Backend):
        self._backend = backend
        self._max_tokens = prefix_bytes(backend.max_cache_bytes) // backend.bytes_per_token
        self._prefixes: list[Prefix] = []  # the least recently used one is the first

    @property
    def tokens(self) -> int:
        """The size of all prefixes, in tokens."""
        return sum(len(prefix.tokens) for prefix in self._prefixes)

    def find(self, prompt: Sequence[int]) -> tuple[Prefix, int] | None:
        """Return the prefix that most tokens of a prompt start with, and their number.

        The prompt's last token is never counted: the model needs one token to start from.
        """
        prefix, length = self._longest(prompt[:-1], self._backend.rotary_key(len(prompt)))
        if prefix is None:
            return None
        self._prefixes.remove(prefix)
        self._prefixes.append(prefix)
        return prefix, length

    def keep(self, tokens: Sequence[int], cache: Cache, slot: int, rotary_key: Hashable) -> None:
        """Copy a row's keys and values, unless most of them are known or the row is too long."""
        length = len(tokens)
        if not SHORTEST_PREFIX <= length <= self._max_tokens:
            return
        prefix, common = self._longest(tokens, rotary_key)
        if common >= KNOWN_SHARE * length:
            return
        if prefix and common == len(prefix.tokens):
            self._prefixes.remove(prefix)  # the new one contains it
        while self.tokens + length > self._max_tokens:
            self.drop_oldest()
        copy = self._backend.make_cache(1, length)
        copy.copy(cache, slot, 0, length)
        self._prefixes.append(Prefix(list(tokens), copy, rotary_key))

    def drop_oldest(self) -> bool:
        """Drop the least recently used prefix. Return whether there was one."""
        return bool(self._prefixes) and bool(self._prefixes.pop(0))

    def _longest(self, tokens: Sequence[int], rotary_key: Hashable) -> tuple[Prefix | None, int]:
        """Return the prefix with the most common tokens, and their number; (None, 0) if too few."""
        candidates = [prefix for prefix in self._prefixes if prefix.rotary_key == rotary_key]
        lengths = [prefix.common_length(tokens) for prefix in candidates]
        longest = max(lengths, default=0)
        if longest < SHORTEST_PREFIX:
            return None, 0
        return candidates[lengths.index(longest)], longest
