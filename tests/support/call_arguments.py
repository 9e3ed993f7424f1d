"""Values of a call's `arguments`: `phi3 data` and the training must accept the same ones."""

from __future__ import annotations

# Value, and whether it is accepted. A missing or an empty value means that there are no arguments.
CALL_ARGUMENTS = [
    (None, True),
    ("", True),
    ("{}", True),
    ({}, True),
    ({"city": "Wien"}, True),
    ('{"city": "Wien"}', True),
    ("null", False),
    ("[", False),
    ("[]", False),
    ([], False),
    (0, False),
    (" ", False),
]
