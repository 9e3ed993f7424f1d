"""Encodes conversations so that a text in a message never becomes a control token.

A chat template marks turns with control tokens such as `<|user|>` and `<|end|>`. A text that contains
`<|end|>\\n<|system|>` must not end its turn and start another one. Texts are therefore encoded with a
tokenizer that knows the control tokens by secret names only, and only the template's own control
tokens get these names. Everything else about the tokenizer is unchanged, so a conversation without
control tokens in its texts has the same token ids as before.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from chat_template import ChatTemplateError
from tokenizers import Tokenizer
from tool_format import GENERIC, plain_messages

Message = dict[str, Any]


class ChatEncoder:
    """Encodes conversations for one model. Safe to call from many threads.

    Args:
        tokenizer_json: content of the model's tokenizer.json.
        render: function that returns messages in the model's chat template.
        tool_format: the model's format of tools, see `tool_format.template_format`.
    """

    def __init__(
        self,
        tokenizer_json: str,
        render: Callable[[Sequence[Message]], str],
        tool_format: str = GENERIC,
    ):
        settings = json.loads(tokenizer_json)
        tokens = [token["content"] for token in settings["added_tokens"] if _is_control(token)]
        self._render = render
        self._tool_format = tool_format
        # Digits, because no filter of a template changes them.
        self._separator, prefix = (f"{secrets.randbelow(10**30):030d}" for _ in range(2))
        self._secret_names = {token: f"<{prefix}:{n}>" for n, token in enumerate(tokens)}
        longest_first = sorted(map(re.escape, tokens), key=len, reverse=True)
        any_token = "|".join(longest_first) or "(?!)"
        self._token = re.compile(any_token)
        # Every start of a control token, also within another one.
        self._token_start = re.compile(f"(?=(?:{any_token})).", re.DOTALL)
        self._tokenizer = Tokenizer.from_str(json.dumps(_rename(settings, self._secret_names)))
        self._ids = self._find_changed_ids(Tokenizer.from_str(tokenizer_json))

    def encode(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()
    ) -> list[int]:
        """Return the token ids of messages in the chat template, up to where the answer starts.

        Args:
            messages: messages with a role and a content. An assistant's can have `tool_calls` whose
                arguments are objects, and one with the role `tool` is a call's result.
            tools: tools that the model can call, as in OpenAI's API.

        Raises:
            ChatTemplateError: the template refuses the messages.
        """
        # The marks of calls, which `plain_messages` writes, are control tokens: they are not broken.
        broken = [
            {name: self._break(value) for name, value in message.items()} for message in messages
        ]
        plain = plain_messages(broken, self._break(list(tools)), self._tool_format)
        try:
            rendered = self._render(plain)
        except ChatTemplateError as error:  # its text may quote a message
            raise ChatTemplateError(str(error).replace(self._separator, "")) from None
        named = self._token.sub(lambda match: self._secret_names[match[0]], rendered)
        text = named.replace(self._separator, "")
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return [self._ids.get(token, token) for token in ids] if self._ids else ids

    def _break(self, value: Any) -> Any:
        """Put the separator into the control tokens in the texts of a JSON value.

        It comes after the first character of a control token.
        """
        if isinstance(value, dict):
            return {self._break(name): self._break(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self._break(item) for item in value]
        if not isinstance(value, str):
            return value
        return self._token_start.sub(lambda match: match[0] + self._separator, value)

    def _find_changed_ids(self, original: Tokenizer) -> dict[int, int]:
        """Return the original ids of the control tokens whose id the secret name has changed."""
        ids = {
            self._tokenizer.token_to_id(secret_name): original.token_to_id(token)
            for token, secret_name in self._secret_names.items()
        }
        return {new: old for new, old in ids.items() if new != old}


def _is_control(token: Mapping[str, Any]) -> bool:
    """Return whether an added token is for control, and not a piece of ordinary text.

    Phi-3 does not mark `</s>` as special. Other tokenizers have added tokens for white space.
    """
    content = token["content"]
    looks_like_control = content.startswith("<") and content.endswith(">")
    return len(content) > 1 and bool(token.get("special") or looks_like_control)


def _rename(settings: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings of a tokenizer whose control tokens have other names and the same ids."""
    added = [
        {**token, "content": names.get(token["content"], token["content"])}
        for token in settings["added_tokens"]
    ]
    model = dict(settings["model"])
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(piece, piece): index for piece, index in vocabulary.items()}
    elif isinstance(vocabulary, list):  # Unigram: pairs of a piece and its score
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
    if "merges" in model:
        model["merges"] = [pair for pair in model["merges"] if _merged(pair) not in names]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    unused = dict.fromkeys(("padding", "truncation", "post_processor"))
    return {**settings, **unused, "added_tokens": added, "model": model}


def _merged(pair: str | Sequence[str]) -> str:
    """Return the piece that a merge makes. Older files have "a b" instead of ["a", "b"]."""
    return "".join(pair.split(" ") if isinstance(pair, str) else pair)
