"""`phi3 compare`: exit codes, the printed tables, and the files that it writes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml

from phi3_ops.cli import main
from phi3_ops.installation import install_command


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"question": f"q{n}", "kind": "odd" if n % 2 else "even"} for n in range(60)]
    write(tmp_path / "data.jsonl", rows)
    for name, right in (("good", 50), ("bad", 10)):
        scores = [
            {"line_number": n, "answer": f"{name} {n}", "exact_match": float(n < right)}
            for n in range(60)
        ]
        write(tmp_path / f"{name}.jsonl", scores[:-1])
    return tmp_path


def phi3_compare(*words):
    return main(["compare", *words, "--data", "data.jsonl", "--resamples", "500"])


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("good.jsonl", "good.jsonl", "--gate", "exact_match"), 0),
        (("good.jsonl", "bad.jsonl", "--gate", "exact_match:0.1"), 1),
        (("good.jsonl", "bad.jsonl", "--gate", "all"), 1),
        (("bad.jsonl", "good.jsonl", "--gate", "exact_match:0.1"), 0),
        (("good.jsonl", "bad.jsonl"), 0),
        (("good.jsonl", "bad.jsonl", "--gate", "exact_match:0.7"), 2),
    ],
)
def test_exit_codes(files, capsys, words, code):
    assert phi3_compare(*words) == code
    printed = capsys.readouterr().out
    assert "59 answered, 1 failed" in printed
    assert "kind: odd" in printed
    assert ("gate:" in printed) == ("--gate" in words)


def test_it_writes_a_document_and_a_page(files, capsys):
    phi3_compare("good.jsonl", "bad.jsonl", "--out", "here")
    assert sorted(path.name for path in (files / "here").iterdir()) == [
        ".phi3-made",
        "compare.html",
        "compare.json",
    ]
    summary = json.loads((files / "here" / "compare.json").read_text())
    assert summary["schema"] == 1
    assert summary["data"]["lines"] == 60
    assert summary["comparisons"][0]["losses"] == 40
    assert "bad 3" in (files / "here" / "compare.html").read_text()


def test_nothing_compared_is_not_a_regression(files, capsys):
    """For CI, 1 means that the model got worse: an error of any other kind must not say so."""
    assert phi3_compare("good.jsonl", "none.jsonl") == 1
    assert phi3_compare("good.jsonl", "none.jsonl", "--gate", "exact_match") == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 2 and all("none.jsonl does not exist" in line for line in errors)
    assert not (files / ".phi3").exists()


@pytest.mark.finding(
    1,
    "`phi3 compare --out` with a folder that holds a foreign `compare.html`",
    "the file is not replaced",
)
def test_a_file_of_others_is_not_replaced(files, capsys):
    (files / "here").mkdir()
    page = files / "here" / "compare.html"
    page.write_text("mine")
    words = ("good.jsonl", "bad.jsonl", "--out", "here")
    assert phi3_compare(*words) == 1
    assert "here/compare.html exists, and phi3 did not write it" in capsys.readouterr().err
    assert page.read_text() == "mine" and len(list(page.parent.iterdir())) == 1
    page.unlink()
    assert phi3_compare(*words) == phi3_compare(*words) == 0  # its own files are replaced


def test_a_missing_package_is_named():
    code = (
        "import sys; sys.modules['numpy'] = None\n"
        "from phi3_ops.cli import main; sys.exit(main(['compare', 'a.jsonl', 'b.jsonl']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"numpy is not installed. {install_command('eval')}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("gate", ["x:-1", "x:nan", "x:much", ":1"])
def test_an_invalid_gate_is_wrong_usage(files, capsys, gate):
    with pytest.raises(SystemExit) as end:
        phi3_compare("good.jsonl", "bad.jsonl", "--gate", gate)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert "argument --gate: use METRIC:MARGIN, for example exact_match:0.02" in error


def test_another_thresholds_file(files, capsys):
    (files / "t.yaml").write_text(yaml.safe_dump({"metrics": {"exact_match": {"margin": 0.9}}}))
    words = ("good.jsonl", "bad.jsonl", "--gate", "all", "--thresholds", "t.yaml")
    assert phi3_compare(*words) == 0


def test_hostile_names_stay_text(files, capsys):
    rows = [{"kind": "[red]\x1b[31m\ud800", "question": "q"}] * 3
    write(files / "data.jsonl", rows)
    write(files / "a.jsonl", [{"s[bold]": 1}] * 3)
    assert phi3_compare("a.jsonl", "a.jsonl") == 0
    printed = capsys.readouterr().out
    assert "[red]‹U+001B›[31m‹U+D800›" in printed and "s[bold]" in printed
    assert "\x1b" not in printed


def test_several_comparisons_come_with_a_warning(files, capsys):
    phi3_compare("good.jsonl", "bad.jsonl", "good.jsonl")
    printed = capsys.readouterr().out
    assert "2 comparisons: about 1 in 20 comparisons looks significant by chance" in printed
    phi3_compare("good.jsonl", "bad.jsonl")
    assert "1 in 20" not in capsys.readouterr().out


def test_lines_without_a_score_are_reported(files, capsys):
    rows = [{"line_number": n, "exact_match": 1.0 if n % 4 else None} for n in range(60)]
    write(files / "unscored.jsonl", rows)
    assert phi3_compare("good.jsonl", "unscored.jsonl", "--gate", "exact_match:0.5") == 2
    printed = capsys.readouterr().out
    assert "B, exact_match: 25.0% of the lines have no score" in printed
    assert "gate: inconclusive" in printed


def test_json_is_the_document_that_is_written(files, capsys):
    assert phi3_compare("good.jsonl", "bad.jsonl", "--json") == 0
    output = capsys.readouterr().out
    assert output == (files / ".phi3/compare/compare.json").read_text(encoding="utf-8")
    assert json.loads(output)["schema"] == 1


def test_the_same_run_twice_is_said(files, capsys):
    assert phi3_compare("good.jsonl", "bad.jsonl", "./good.jsonl") == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        "  C  ./good.jsonl: 59 answered, 1 failed (the same run as A, so that they cannot differ)"
        in (lines)
    )
    assert sum("the same run" in line for line in lines) == 1
    assert "the same run as A" in (files / ".phi3" / "compare" / "compare.html").read_text()
