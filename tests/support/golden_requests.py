"""Requests to Azure, compared with golden files in which volatile values are masked."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "azure"


def compare(name: str, request: Any) -> None:
    """Compare a request with its golden file; PHI3_WRITE_GOLDEN=1 writes the file instead."""
    file, masked = GOLDEN / f"{name}.json", _masked(request)
    if os.environ.get("PHI3_WRITE_GOLDEN"):
        file.write_text(json.dumps(masked, indent=2) + "\n")
    assert masked == json.loads(file.read_text()), name


# Patterns of hashes, random names and dates, and their replacements.
VOLATILE = (
    (r"o[ed]idp:[0-9a-f:-]+", "<operation>"),
    (r"\d{4}-\d\d-\d\dT[\d:.]+(\+0000|\+00:00|Z)?", "<time>"),
    (r"\d{4}-\d\d-\d\d(?=\")", "<date>"),
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(?=/)", "<uuid>"),
    (r"\bphi3-[0-9a-f]{12}\b", "phi3-<hash>"),
    (r"\bd-[0-9a-f]{10}\b", "d-<hash>"),
    (r"\b([0-9a-f]{64}|[0-9a-f]{32}|[0-9a-f]{12})\b", "<hash>"),
    (r'(?<="condaFile": ")([^"\\]|\\.)*', "<conda.yaml>"),
    (r'(?<="key": ")[\w-]{32}(?=")', "<key>"),
)


def _masked(request: Any) -> Any:
    """Return a request with its volatile parts replaced."""
    subscription = "11111111-1111-4111-8111-111111111111"
    text = json.dumps({"method": request.method, "path": request.path, "body": request.body})
    text = text.replace(subscription, "<subscription>")
    for pattern, replacement in VOLATILE:
        text = re.sub(pattern, replacement, text)
    return json.loads(text)
