"""The commands of Prompt flow's service say when it ends, and stop after that date."""

from datetime import date

import pytest

from phi3_ops.cli import main
from phi3_ops.publish import retirement

LAST_DAY, FIRST_DAY_AFTER = date(2027, 4, 19), date(2027, 4, 20)
COMMANDS = [
    ("phi3 flow upload", ["flow", "upload", "chat"]),
    ("phi3 flow promote", ["flow", "promote", "chat", "--from", "dev", "--to", "prod"]),
    ("phi3 run --on-foundry", ["run", "--flow", "qa", "--data", "data.jsonl", "--on-foundry"]),
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.jsonl").write_text('{"input_data": "Hi"}\n')


def test_the_notice_names_the_date_and_the_successor():
    notice = retirement.retirement_notice()
    assert "2027-04-20" in notice and "phi3 flow export" in notice


@pytest.mark.parametrize(("name", "words"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_until_the_date_a_command_of_the_service_runs(name, words, monkeypatch, capsys):
    monkeypatch.setattr(retirement, "today", lambda: LAST_DAY)
    assert main(words) == 1  # nothing is configured here
    assert "2027" not in capsys.readouterr().err


@pytest.mark.parametrize(("name", "words"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_from_the_date_on_a_command_of_the_service_is_refused(name, words, monkeypatch, capsys):
    monkeypatch.setattr(retirement, "today", lambda: FIRST_DAY_AFTER)
    assert main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{name} needs Prompt flow's service, which ended on 2027-04-20" in line
    assert "phi3 flow export" in line
