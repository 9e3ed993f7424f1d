"""One question to a flow: a flow that fails is named."""

from __future__ import annotations

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.quickstart.ask import ask_flow, flow_test


def test_a_flow_that_fails_in_either_engine_is_named(tmp_path):
    with pytest.raises(OpsError, match="nowhere cannot run: "):
        ask_flow(tmp_path / "nowhere", {"question": "x"}, "phi3")
    with pytest.raises(OpsError, match="`pf flow test` of nowhere failed: ."):
        flow_test(tmp_path / "nowhere", {"question": "x"})
