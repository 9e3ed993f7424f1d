"""Values of a call's `arguments`: `phi3 data` and the training must accept the same ones."""

from __future__ import annotations

# Pairs of a value and whether both accept it. None and "" are calls without arguments.
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
