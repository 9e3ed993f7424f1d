"""The names that flows and programs import from phi3_tools.flow. A change here changes it for them."""

from __future__ import annotations

import phi3_tools.flow

NAMES = """
AggregationResult CustomConnection Engine Flow FlowError LineError LineResult Node NodeError NodeRun
PromptTemplate ToolProvider load_flow log_metric package_tool tool tool_exception trace
"""


def test_the_public_names_are_there_and_documented():
    assert set(NAMES.split()) <= set(phi3_tools.flow.__all__)
    for name in NAMES.split():
        assert getattr(phi3_tools.flow, name).__doc__, name
