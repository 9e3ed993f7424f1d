"""`phi3 init`."""

from __future__ import annotations

import shlex

from documented_commands import documented, printed
from phi3_ops.cli import main


@documented("phi3 init shop")
def test_a_project(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(printed("phi3 init shop"))[1:]) == 0
    output = capsys.readouterr().out.splitlines()
    assert output[-1] == "next, in shop: phi3 quickstart --data data/faq.csv"
    assert (tmp_path / "shop/README.md").is_file()


def test_a_second_time(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init", "shop"]) == 0
    assert main(["init", "shop"]) == 1
    assert capsys.readouterr().err.startswith("phi3 init: shop is not empty.")
