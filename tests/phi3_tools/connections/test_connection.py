"""A connection: its fields, and its class as the type of a tool's parameter in promptflow."""

from __future__ import annotations

import pickle

import pytest
from promptflow.contracts.tool import ConnectionType
from promptflow.core._connection import CustomConnection, OpenAIConnection

from phi3_tools.connections import Connection

CONNECTION = Connection("phi3", {"endpoint": "http://x"}, {"key": "k"})


def test_promptflow_takes_the_class_for_its_own():
    assert ConnectionType.is_connection_value(Connection)
    assert Connection == CustomConnection and Connection.__name__ == "CustomConnection"
    assert Connection != OpenAIConnection


def test_fields_are_items_and_attributes():
    assert (CONNECTION["key"], CONNECTION.endpoint) == ("k", "http://x")
    with pytest.raises(AttributeError, match="has no field 'model'"):
        CONNECTION.model  # noqa: B018


def test_a_connection_can_be_pickled():
    assert pickle.loads(pickle.dumps(CONNECTION)) == CONNECTION
