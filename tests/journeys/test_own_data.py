"""From a table of an invented company to a page with a model that answers from it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import requests

from phi3_ops.data import TextColumns
from phi3_ops.data.sources import open_source

COMPANY = Path(__file__).with_name("company.csv")
FIRST = (
    "What does Brinlow Kettles make?",
    "Brinlow Kettles makes solar tea kettles for hikers and sailors.",
)


def bring(visitor, header="Question,Answer"):
    """Put the table into the current folder of the person."""
    text = COMPANY.read_text(encoding="utf-8").replace("Question,Answer", header, 1)
    (visitor.folder / "mine.csv").write_text(text, encoding="utf-8")


def test_a_table_becomes_data_without_an_option(visitor):
    bring(visitor)
    done = visitor.phi3("data", "--source", "mine.csv", "--out", "data")
    assert done.returncode == 0, done.stderr
    assert "32 rows to train, 8 to test, in data" in done.stdout
    assert "Question → Answer" in done.stdout
    row = json.loads((visitor.folder / "data" / "train.jsonl").read_text().splitlines()[0])
    assert tuple(message["content"] for message in row["messages"]) == FIRST


def test_unclear_columns_end_with_a_command_that_works(visitor):
    bring(visitor, header="Thema,Text")
    for command in ("quickstart --data mine.csv", "data --source mine.csv"):
        done = visitor.shell(f"phi3 {command}")
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
        printed = re.search(r"Run `(phi3 [^`]+)`", done.stderr)[1]
        options = "--prompt-column Thema --answer-column Text"
        assert printed == f"phi3 {command} {options}"
    done = visitor.shell(printed)
    assert done.returncode == 0, done.stderr
    assert "32 rows to train" in done.stdout


def test_a_spreadsheet_of_another_country_is_read(visitor):
    rows = [f'"Was kostet Nummer {n}?";"{n},50 Euro"' for n in range(10)]
    path = visitor.folder / "faq.csv"
    path.write_text("\n".join(["Frage;Antwort", *rows]), encoding="utf-8-sig")
    source = open_source(path, split=None, revision=None, columns=None)
    assert source.columns == TextColumns("Frage", "Antwort")
    assert visitor.phi3("data", "--source", "faq.csv").returncode == 0


# -- the whole path --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(person):
    """The output of a quickstart of the tiny model with the table, in a Git repository."""
    subprocess.run(["git", "init", "-q", person.folder], check=True)
    bring(person)
    subprocess.run(["git", "-C", person.folder, "add", "mine.csv"], check=True)
    done = person.phi3("quickstart", "--data", "mine.csv", "--model", "tiny", timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def summary(person):
    return json.loads((person.folder / ".phi3-mine" / "summary.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_one_command_leads_to_a_page_about_the_table(person, tiny):
    assert summary(person)["exact_match"]["after"]["trained"] >= 0.9
    answer = summary(person)["answer"]
    assert (answer["question"], answer["reference"]) == FIRST
    assert f"“{FIRST[0]}” → " in tiny.stdout and "Microsoft" not in tiny.stdout
    assert "trained rows" in tiny.stdout and "unknown facts" not in tiny.stdout
    assert "32 rows are few for this recipe: training " in tiny.stderr
    for waiting in ("loading the libraries", "loading .phi3-mine", "running the flow"):
        assert waiting in tiny.stderr
    page = summary(person)["page"]
    assert tiny.stdout.strip().splitlines()[-1].split()[:2] == ["open", page]
    shown = requests.get(f"{page}page.json", timeout=30).json()
    assert shown["questions"][0] == FIRST[0] and len(shown["questions"]) == 3
    assert [side["caption"] for side in shown["sides"]] == ["", "not fine-tuned"]


@pytest.mark.slow
def test_git_sees_only_the_table(person, tiny):
    status = subprocess.run(
        ["git", "-C", person.folder, "status", "--porcelain"], capture_output=True, text=True
    )
    assert status.stdout.split("\n") == ["A  mine.csv", ""]


@pytest.mark.slow
def test_everything_is_removed_but_the_table(person, tiny):
    removed = person.phi3("quickstart", "--remove", "--data", "mine.csv", "--yes")
    assert removed.returncode == 0, removed.stderr
    assert {path.name for path in person.folder.iterdir()} == {".git", "mine.csv"}
    assert not person.processes()


@pytest.mark.slow
def test_forty_rows_are_enough_for_smollm2(visitor, smollm2_cache):
    visitor.variables.update(smollm2_cache)
    shutil.copy(COMPANY, visitor.folder)
    words = ("quickstart", "--data", "company.csv", "--stop-endpoint")
    done = visitor.phi3(*words, timeout=3000)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((visitor.folder / ".phi3-company" / "summary.json").read_text())
    assert document["exact_match"]["after"]["trained"] >= 0.9
    assert "word for word" not in done.stdout and "note" not in done.stdout
