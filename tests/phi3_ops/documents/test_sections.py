"""Sections of documents: control characters become spaces, and no position changes."""

from phi3_ops.documents.sections import Section, without_controls


def test_control_characters_become_spaces():
    sections = [Section("a\x1b[31mb\0c\x0c\n\td\x9b", 7, ("x\x07", "ü"), 2), Section("plain", 0)]
    cleaned, count = without_controls(sections)
    assert cleaned == [Section("a [31mb c \n\td ", 7, ("x ", "ü"), 2), Section("plain", 0)]
    assert count == 4
