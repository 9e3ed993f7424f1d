"""A backend of the serving engine whose tokens are bytes and whose answers a test determines."""

import threading

import numpy as np
from constraints import GrammarCompiler

HANG_S = 30  # a limit for something that must not hang, never a measurement
ANSWER = 1000  # added to the bytes of an answer, to tell them from the prompt's
END = 256


class ByteBackend:
    """Answers every prompt with `text`, or with the prompt itself, and then the end token.

    The next token is read from the cache alone, so a row whose cache is mixed up gets a wrong answer.
    With a gate, every forward pass waits for it, so a test determines which rows share a pass.
    """

    context_window = 1_000_000
    vocabulary_size = ANSWER + END
    end_tokens = frozenset({END})
    pad_token = 0
    max_rows, prefill_chunk, is_paged = 16, 512, False
    bytes_per_token, max_cache_bytes = 1, 10_000_000
    tool_format = "generic"
    short_window = None  # the length after which the rotary factors change

    def __init__(self, text=None, gate=None, **attributes):
        self.text = None if text is None else list(text.encode())
        self.gate = gate
        self.prompts = []  # the prompts of each forward pass that started some
        self.passes = []  # the tokens of each forward pass
        self.started = threading.Event()
        self.released = threading.Event()
        # It refuses every grammar, because it does not know the tokenizer.
        self.grammars = GrammarCompiler("", self.vocabulary_size, self.end_tokens)
        self.start_tokens = attributes.get("prefill_chunk", self.prefill_chunk)
        for name, value in attributes.items():
            setattr(self, name, value)

    def encode(self, text):
        return list(text.encode())

    def render(self, messages):
        return messages[-1]["content"]

    def encode_chat(self, messages, tools=()):
        return self.encode(self.render(messages))

    def decode(self, ids):
        return bytes(i - ANSWER if i >= ANSWER else i for i in ids).decode(errors="replace")

    def rotary_key(self, length):
        return self.short_window is not None and length > self.short_window

    def make_cache(self, slots, length):
        return ByteCache(self, slots, length)

    def release_memory(self):
        self.released.set()


class ByteCache:
    def __init__(self, backend, slots, length):
        self.backend = backend
        self.length = length
        self.slots = [[] for _ in range(slots)]

    def forward(self, slot, tokens, past, guest=None):
        backend = self.backend
        pieces = list(zip(self.slots[slot:], tokens, past, strict=False))
        if guest:
            pieces.append((guest.cache.slots[0], guest.tokens, guest.past))
        tokens, past = [ids for _, ids, _ in pieces], [start for _, _, start in pieces]
        backend.passes.append([list(ids) for ids in tokens])
        if not any(past):
            backend.prompts.append([bytes(ids).decode() for ids in tokens if max(ids) < ANSWER])
        backend.started.set()
        if backend.gate:
            assert backend.gate.wait(HANG_S)
        if list(b"fail") in backend.passes[-1]:
            raise RuntimeError("out of memory")
        if not backend.is_paged and any(past):
            assert len({len(ids) for ids in tokens}) == 1
        rows = [row for row, _, _ in pieces]
        for row, ids, length in pieces:
            assert len(row) >= length
            row[length:] = ids
        assert all(len(row) <= self.length for row in self.slots)
        assert len({backend.rotary_key(len(row)) for row in rows}) == 1 or len(rows) == 1
        return ByteLogits([self.next_token(row) for row in rows])

    def next_token(self, row):
        prompt = [token for token in row if token < ANSWER]
        answer = prompt if self.backend.text is None else self.backend.text
        count = len(row) - len(prompt)
        return ANSWER + answer[count] if count < len(answer) else END

    def copy(self, source, from_slot, slot, length):
        self.slots[slot] = source.slots[from_slot][:length]

    def release(self, slot):
        self.slots[slot] = []


class ByteLogits:
    def __init__(self, tokens):
        self.tokens = tokens

    def after(self, rows):
        return ByteLogits(self.tokens[rows:])

    def best(self, allowed):
        return self.tokens

    def row(self, index):
        return np.eye(ANSWER + END, dtype=np.float32)[self.tokens[index]] * 1000
