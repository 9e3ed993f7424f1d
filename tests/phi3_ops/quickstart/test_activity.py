"""What a step shows while it waits."""

from __future__ import annotations

import io

from rich.console import Console

from phi3_ops.quickstart.activity import activity


def test_a_log_gets_one_line_per_state(capsys):
    with activity(Console(file=io.StringIO()), "loading a") as show:
        show("loading a")
        show("exporting a")
        show("exporting a")
    assert capsys.readouterr().err == "      loading a …\n      exporting a …\n"


def test_texts_that_change_often_are_thinned_out(capsys):
    with activity(Console(file=io.StringIO()), "asking", every_s=60) as show:
        for number in range(5):
            show(f"{number} of 5")
    assert capsys.readouterr().err == "      asking …\n"


def test_a_terminal_gets_a_spinner(capsys):
    console = Console(file=io.StringIO(), force_terminal=True, width=60)
    with activity(console, "loading a") as show:
        show("exporting a")
    assert "exporting a" in console.file.getvalue()
    assert capsys.readouterr().err == ""


def test_a_quiet_console_gets_nothing(capsys):
    with activity(Console(quiet=True), "loading a") as show:
        show("exporting a")
    assert capsys.readouterr().err == ""
