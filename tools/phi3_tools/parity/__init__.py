"""Proof that a flow gives the same answers elsewhere: recordings, their replay, and the comparison.

`phi3 flow record` writes a recording with the endpoint's answers. `check_recording` replays it over
loopback, without network and without Prompt flow, and compares outputs, streamed texts, requests, error
codes and metrics exactly.
"""

from __future__ import annotations

from .check import ParityReport, check_recording
from .exchanges import (
    Exchange,
    LoopbackServer,
    deployment_of,
    group_exchanges,
    loopback_server,
    request_hash,
)
from .recording import RECORDING_FILE, RecordedLine, Recording, read_recording, write_recording
from .subjects import (
    Subject,
    engine_subject,
    exported_subject,
    plain_outputs,
    served_subject,
)

__all__ = [
    "Exchange",
    "LoopbackServer",
    "ParityReport",
    "RECORDING_FILE",
    "RecordedLine",
    "Recording",
    "Subject",
    "check_recording",
    "deployment_of",
    "engine_subject",
    "exported_subject",
    "group_exchanges",
    "loopback_server",
    "plain_outputs",
    "read_recording",
    "request_hash",
    "served_subject",
    "write_recording",
]
