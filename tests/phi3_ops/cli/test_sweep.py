"""`phi3 sweep`: what it prints, what it writes, and its exit codes."""

from __future__ import annotations

import argparse
import csv
import json
import shlex
from pathlib import Path

import pytest
import yaml

from documented_commands import documented
from pages import check_part
from phi3_ops.cli import main, sweep
from phi3_ops.cli.sweep import OUTPUT_FILES
from phi3_ops.pf.stored_runs import find_stored_run
from phi3_ops.sweeps.config import load_sweep
from sweep_files import server, write_sweep  # noqa: F401 - fixtures

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "sweep" / "sweep.yaml"


@pytest.fixture
def file(server, write_sweep, tmp_path, monkeypatch):  # noqa: F811
    """The file of a sweep in the current folder."""
    monkeypatch.chdir(tmp_path)
    return write_sweep()


@documented("phi3 sweep sweep.yaml")
def test_a_sweep(file, server, capsys, tmp_path):  # noqa: F811
    assert main(["sweep", "sweep.yaml"]) == 0
    output = capsys.readouterr()
    assert "Winner: B has the highest exact_match (1), and is better than" in output.out
    assert "A of B: plain, cells" in output.err
    folder = tmp_path / ".phi3" / "sweeps" / yaml.safe_load(file.read_text())["name"]
    assert {*OUTPUT_FILES} <= {path.name for path in folder.iterdir()}
    document = json.loads((folder / "sweep.json").read_text())
    first, second = document["cells"]
    assert output.out.splitlines()[-1] == f"next: phi3 compare {first['run']} {second['run']}"
    assert find_stored_run(first["run"]).status == "Completed"
    (_, row) = csv.DictReader((folder / "sweep.csv").read_text().splitlines())
    assert float(row["exact_match difference"]) == pytest.approx(8 / 12)
    assert "Winner: B" in (folder / "sweep.html").read_text()

    assert main(["sweep", "sweep.yaml"]) == 0  # asks nothing
    assert len(server.answered) == 24
    capsys.readouterr()
    assert main(["sweep", "sweep.yaml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == document


@documented("phi3 sweep sweep.yaml --dry-run")
def test_a_dry_run_calls_nothing(file, server, capsys, tmp_path):  # noqa: F811
    assert main(["sweep", "sweep.yaml", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "2 cells, 12 lines each" in printed
    assert "A, B: estimated from " in printed and "total: 24 calls" in printed
    assert main(["sweep", "sweep.yaml", "--dry-run", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["calls"] == 24 and [item["letter"] for item in document["items"]] == ["A", "B"]
    assert server.answered == [] and not (tmp_path / ".phi3").exists()


def test_too_many_calls_are_refused(file, server, capsys):  # noqa: F811
    assert main(["sweep", "sweep.yaml", "--max-calls", "23"]) == 1
    expected = (
        "phi3 sweep: the sweep makes at least 24 calls, more than --max-calls 23 allows. Raise"
    )
    assert expected in capsys.readouterr().err
    assert server.answered == []


def test_a_cell_without_any_answer_fails_the_command(file, write_sweep, capsys):  # noqa: F811
    write_sweep(prompts={"plain": None, "broken": {"inputs": {"answer.system_prompt": "fail"}}})
    assert main(["sweep", "sweep.yaml"]) == 1
    printed = capsys.readouterr().out
    assert "B  broken, cells (12 of 12 lines failed)" in printed
    assert "No winner: 12 of 12 lines of B failed; 5% is accepted." in printed


def test_a_table_fits_80_columns(file, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    main(["sweep", "sweep.yaml"])
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in lines if "─" in line) <= 80


def test_a_foreign_file_is_not_replaced(file, server, capsys, tmp_path):  # noqa: F811
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sweep.html").write_text("mine")
    assert main(["sweep", "sweep.yaml", "--out", "out"]) == 1
    assert "sweep.html exists, and phi3 did not write it" in capsys.readouterr().err
    assert server.answered == []


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--out", "an other", "--in-flight", "2", "--max-calls", "20000", "--seed", "3"],
        ["--retry-failed", "--json"],
    ],
)
def test_the_command_that_goes_on_has_the_same_options(options):
    parser = argparse.ArgumentParser()
    sweep.arguments(parser)
    words = shlex.split(sweep._command(parser.parse_args(["sweep.yaml", *options])))
    assert words == ["phi3", "sweep", "sweep.yaml", *options]


def test_the_example_is_valid():
    config = load_sweep(EXAMPLE)
    assert config.data.is_file() and config.metrics[0] == "token_f1"


def test_the_documentation_shows_the_example():
    check_part("sweeps.md", "example", f"```yaml\n{EXAMPLE.read_text(encoding='utf-8')}```\n")
