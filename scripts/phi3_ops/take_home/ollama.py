"""The Modelfile with which Ollama takes a GGUF file.

Contract: "Ollama Model File" and "Template" of Ollama's documentation.
"""

from __future__ import annotations

import unicodedata

from ..errors import OpsError
from .chat_pieces import ASSISTANT, SYSTEM, USER, ChatPieces
from .source import SourceModel

TITLE = "Ollama"
LARGEST_CONTEXT = 8192  # the keys and values of a longer one take gigabytes


def make_modelfile(
    source: SourceModel, pieces: ChatPieces, gguf_name: str, system: str | None = None
) -> str:
    """Return the text of a Modelfile.

    Args:
        source: the model.
        pieces: its chat template.
        gguf_name: name of the GGUF file, which is in the same folder.
        system: system message; None takes the one of the chat template.

    Raises:
        OpsError: a text contains what ends a template in a Modelfile.
    """
    message = pieces.default_system if system is None else system
    context = min(source.config.max_position_embeddings, LARGEST_CONTEXT)
    lines = [
        f"FROM ./{gguf_name}",
        f'TEMPLATE """{_template(pieces)}"""',
        *([f'SYSTEM """{message}"""'] if message else []),
        *(f'PARAMETER stop "{token}"' for token in source.end_tokens),
        f"PARAMETER num_ctx {context}",
        "PARAMETER temperature 0",
    ]
    if '"""' in message or message.endswith('"'):
        what = f"the system message {message!r} cannot be in a Modelfile"
        raise OpsError(what, 'Remove """, and a quotation mark at the end.')
    for token in source.end_tokens:
        if '"' in token or any(unicodedata.category(character) == "Cc" for character in token):
            raise OpsError(
                f"the token {token!r} cannot be in a Modelfile", "Export to gguf instead."
            )
    return "\n".join(lines) + "\n"


def _template(pieces: ChatPieces) -> str:
    """Return the chat template in Go's template language.

    Raises:
        OpsError: a text contains an action of that language, or the end of a Modelfile's text.
    """
    for text in (pieces.start, *(piece.around("") for piece in pieces.pieces.values())):
        if any(mark in text for mark in ("{{", "}}", '"""')):
            fix = "Export the model to gguf instead."
            raise OpsError("the model's chat template cannot be in a Modelfile", fix)
    system, user, assistant = (pieces.pieces[role] for role in (SYSTEM, USER, ASSISTANT))
    content = "{{ .Content }}"
    return (
        f"{pieces.start}{{{{ range $i, $_ := .Messages }}}}"
        "{{ $last := eq (len (slice $.Messages $i)) 1 }}"
        f'{{{{ if eq .Role "{SYSTEM}" }}}}{system.around(content)}'
        f'{{{{ else if eq .Role "{USER}" }}}}{user.around(content)}'
        f'{{{{ else if eq .Role "{ASSISTANT}" }}}}{assistant.before}{content}'
        f"{{{{ if not $last }}}}{assistant.after}{{{{ end }}}}{{{{ end }}}}"
        f'{{{{ if and $last (ne .Role "{ASSISTANT}") }}}}{pieces.answer_start}{{{{ end }}}}{{{{ end }}}}'
    )
