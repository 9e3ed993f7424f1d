"""Renders chat templates as transformers does, without importing torch.

transformers' own renderer gives templates a sandbox with `{% generation %}`, loop controls,
`strftime_now`, `raise_exception` and `tojson`. Every engine renders with this module, so all of them
render what `tokenizer.apply_chat_template` renders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template


class ChatTemplateError(ValueError):
    """A chat template refuses messages, for example because their roles do not alternate."""


class ChatTemplate:
    """The chat template of a model. Safe to call from many threads.

    Args:
        template: source of the template, in Jinja.
        special_tokens: names and texts of the special tokens, such as `bos_token`; the template can use
            them.
    """

    def __init__(self, template: str, special_tokens: Mapping[str, Any]):
        self._template = template
        self._special_tokens = dict(special_tokens)

    def render(self, messages: Sequence[dict[str, str]]) -> str:
        """Return messages in the template, up to where the answer starts.

        Raises:
            ChatTemplateError: the template refuses the messages, or is not valid.
        """
        try:
            rendered, _ = render_jinja_template(
                conversations=[list(messages)],
                chat_template=self._template,
                add_generation_prompt=True,
                **self._special_tokens,
            )
        except TemplateError as error:
            raise ChatTemplateError(str(error)) from error
        return rendered[0]
