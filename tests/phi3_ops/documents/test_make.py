"""From documents to rows by the command, with a scripted teacher: exact counts, budgets, failures."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from chats import chat_row, write_rows
from documented_commands import documented
from judge_endpoint import KEY, Crash, fields, judge_endpoint
from phi3_ops.cli import main
from phi3_ops.data.prepare import prepare_data
from phi3_ops.documents import make
from phi3_ops.documents.readers import read_document
from phi3_ops.files.json_files import read_jsonl
from polling import wait_until
from sample_documents import docx_bytes, encrypted_pdf_bytes, pdf_bytes, zip_bomb_bytes

PARTS = ("pump", "valve", "motor", "cable")
WRONG = "valve"  # the teacher invents the answer about it
COMMAND = ["data", "--from-docs", "docs", "--connection", "teacher", "--out", "out/rows.jsonl"]


def sentence(part):
    return f"The {part} of the machine Contoso {part.upper()}1 weighs {len(part)} kg and costs 20 euros."


def teach(messages):
    """Answer as a teacher and as a judge."""
    texts = fields(messages[0]["content"])
    if "answer" in texts:
        weight = re.search(r"\d+ kg", texts["answer"])[0]
        return json.dumps({"reason": "read", "score": 5 if weight in texts["context"] else 1})
    part = re.search(r"The (\w+) of", texts["passage"])[1]
    weight = 99 if part == WRONG else len(part)
    question = {
        "question": f"How heavy is the {part} of the Contoso machine?",
        "answer": f"It weighs {weight} kg.",
        "quote": sentence(part)[:-1],
    }
    invented = {
        **question,
        "question": f"What colour has the {part}?",
        "quote": "It is green and red.",
    }
    return json.dumps(
        {"questions": [question, invented], "unanswerable": [f"Who made the {part}?"]}
    )


class ReaderHere:
    """Reads documents in this process, to save the time of starting another one."""

    read = staticmethod(read_document)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass


@pytest.fixture
def isolated():
    """With this fixture, documents are read in another process, as users have it."""


@pytest.fixture
def teacher(tmp_path, monkeypatch, request):
    """A scripted teacher; the current folder has `docs` with four documents and some bad ones."""
    if "isolated" not in request.fixturenames:
        monkeypatch.setattr(make, "IsolatedReader", ReaderHere)
    monkeypatch.chdir(tmp_path)
    docs = tmp_path / "docs"
    docs.mkdir()
    pump, valve, motor, cable = map(sentence, PARTS)
    (docs / "a.md").write_text(f"# Pumps\n\n{pump}\n", encoding="utf-8")
    (docs / "b.html").write_text(f"<h1>Valves</h1><p>{valve}</p><h2>x</h2>", encoding="utf-8")
    (docs / "c.pdf").write_bytes(pdf_bytes(motor, "short"))
    (docs / "d.txt").write_text(cable, encoding="utf-8")
    with judge_endpoint() as server:
        server.judge = teach
        for field, value in {"ENDPOINT": server.url("/v1"), "KEY": KEY}.items():
            monkeypatch.setenv(f"PHI3_CONNECTION_TEACHER_{field}", value)
        monkeypatch.setenv("PHI3_CONNECTION_TEACHER_MAX_ATTEMPTS", "1")
        yield server


def manifest():
    with open("out/rows.manifest.json", encoding="utf-8") as file:
        content = json.load(file)
    passages, questions = content["passages"], content["questions"]
    files = content["files"]
    assert files["found"] == files["read"] + len(files["not_read"])
    states = ("short", "repeated", "asked", "failed", "not_asked")
    assert passages["found"] == sum(passages[name] for name in states)
    counts = [*questions["taken"].values(), *questions["excluded"].values()]
    assert questions["written"] == sum(counts) + questions["not_judged"]
    return content


@documented("phi3 data --from-docs FOLDER --connection TEACHER")
def test_documents_become_rows_and_nothing_is_asked_twice(isolated, teacher, capsys, tmp_path):
    assert main(COMMAND) == 0
    content = manifest()
    assert content["passages"] == {
        **{"found": 5, "short": 1, "repeated": 0, "asked": 4, "failed": 0, "not_asked": 0}
    }
    assert content["questions"] == {
        "written": 12,
        "taken": {"answered": 3, "refusal": 4},
        "excluded": {
            "quote that is not in the passage": 4,
            "answer that the passage does not support": 1,
        },
        "not_judged": 0,
    }
    assert content["calls"] == {
        **{"now": 8, "all": 8, "prompt_tokens": 800, "completion_tokens": 80}
    }
    output = capsys.readouterr().out
    assert output.startswith("7 rows from 4 documents, in out/rows.jsonl\n")
    assert "8 calls now; the answers so far took 8 calls: 800 tokens of prompts, 80" in output
    assert output.endswith("next: phi3 data --source out/rows.jsonl\n")
    rows = read_jsonl(tmp_path / "out/rows.jsonl")
    pump = rows[0]
    assert pump["origin"]["file"] == "a.md" and pump["origin"]["headings"] == ["Pumps"]
    text = (tmp_path / "docs/a.md").read_text("utf-8")
    assert text[pump["origin"]["start"] : pump["origin"]["end"]] == sentence("pump")[:-1]
    assert [row["origin"]["page"] for row in rows[:3]] == [None, 1, None]
    assert len(teacher.requests) == 8
    assert all("response_format" in body for body in teacher.requests[:4])

    assert main([*COMMAND, "--json"]) == 0
    assert len(teacher.requests) == 8
    again = json.loads(capsys.readouterr().out)
    assert again["calls"]["now"] == 0
    assert read_jsonl(tmp_path / "out/rows.jsonl") == rows
    split = prepare_data("out/rows.jsonl", tmp_path / "split", seed=1)
    assert (split.rows.read, split.rows.rejected) == (7, 0)


def test_the_report_shows_samples_and_stays_text(teacher, tmp_path):
    (tmp_path / "docs/a.md").write_text(f"<img src=x> {sentence('pump')}", encoding="utf-8")
    assert main(COMMAND) == 0
    page = (tmp_path / "out/rows.html").read_text("utf-8")
    assert "<mark>The pump of the machine Contoso PUMP1 weighs 4 kg" in page
    assert "&lt;img src=x&gt;" in page and "<img" not in page and "<script" not in page
    assert "answer that the passage does not support" in page
    assert "It is green and red." in page
    assert "default-src 'none'" in page


def test_the_contract_without_fields_for_schemas_works(teacher, monkeypatch):
    monkeypatch.setenv("PHI3_CONNECTION_TEACHER_ENDPOINT", teacher.url("/score"))
    teacher.judge = lambda messages: teach(messages[-1:])
    assert main(COMMAND) == 0
    assert manifest()["questions"]["taken"] == {"answered": 3, "refusal": 4}


def test_control_characters_of_a_document_are_counted(teacher, capsys):
    with open("docs/d.txt", "a", encoding="utf-8") as file:
        file.write("\n\nThe lid of the machine is \x1b[31mred\x1b[0m, and it is made of steel.")
    assert main(COMMAND) == 0
    assert manifest()["files"]["control_characters"] == {"d.txt": 2}
    assert "control characters in 1 file, now spaces" in capsys.readouterr().out


def test_unreadable_documents_are_listed_and_the_rest_goes_on(teacher, tmp_path, capsys):
    docs = tmp_path / "docs"
    (docs / "bomb.docx").write_bytes(zip_bomb_bytes(201 << 20))
    (docs / "broken.docx").write_bytes(docx_bytes()[:500])
    (docs / "empty.md").write_bytes(b"")
    (docs / "locked.pdf").write_bytes(encrypted_pdf_bytes("x", "pass"))
    (docs / "loop").symlink_to(docs)
    (docs / "picture.png").write_bytes(b"\x89PNG")
    assert main(COMMAND) == 0
    content = manifest()
    assert content["files"]["read"] == 4
    assert [(file["file"], file["reason"]) for file in content["files"]["not_read"]] == [
        ("bomb.docx", "it unpacks to more than 200 MiB"),
        ("broken.docx", "it is not a DOCX, or it is broken or encrypted"),
        ("empty.md", "it is empty"),
        ("locked.pdf", "it is encrypted with a password"),
        ("loop", "it is a link; links are not followed"),
        ("picture.png", "its format is not supported"),
    ]
    assert "- locked.pdf: it is encrypted with a password" in capsys.readouterr().out


def test_a_failing_teacher_loses_no_passage(teacher, capsys):
    def fails_on_motor(messages):
        if "motor" in messages[0]["content"]:
            raise Crash("out of memory")
        return teach(messages)

    teacher.judge = fails_on_motor
    assert main(COMMAND) == 1
    error = capsys.readouterr().err
    assert "1 passage and 0 verdicts are left, because the endpoint gave no usable answer" in error
    assert "out of memory" in error and KEY not in error
    content = manifest()
    assert not content["complete"] and content["passages"]["failed"] == 1
    assert content["calls"]["now"] == len(teacher.requests)
    teacher.judge = teach
    before = len(teacher.requests)
    assert main(COMMAND) == 0
    assert len(teacher.requests) == before + 2  # the passage, and its answer
    assert manifest()["questions"]["taken"] == {"answered": 3, "refusal": 4}


def test_an_incomplete_result_does_not_replace_more_rows(teacher, capsys, tmp_path):
    assert main(COMMAND) == 0
    files = [tmp_path / "out" / f"rows{end}" for end in (".jsonl", ".html", ".manifest.json")]
    before = [file.read_bytes() for file in files]
    teacher.judge = lambda messages: "garbage"
    capsys.readouterr()
    assert main([*COMMAND, "--questions", "2", "--json"]) == 1
    output, error = capsys.readouterr()
    assert [file.read_bytes() for file in files] == before
    assert json.loads(output)["passages"]["failed"] == 4
    assert "4 passages and 0 verdicts are left, because the answers did not fit" in error
    assert "try another model, or raise --max-new-tokens" in error
    assert "the files were not replaced, because out/rows.jsonl has more rows" in error


def test_the_budget_is_kept_and_the_next_run_goes_on(teacher, capsys):
    calls = 0
    for _ in range(8):
        code = main([*COMMAND, "--max-calls", "3"])
        error = capsys.readouterr().err
        content = manifest()
        assert len(teacher.requests) - calls == content["calls"]["now"] <= 3
        calls = len(teacher.requests)
        if code == 0:
            break
        assert "because --max-calls was reached; run the same command again" in error
    assert (code, calls) == (0, 8)
    assert content["questions"]["taken"] == {"answered": 3, "refusal": 4}


def test_questions_of_the_test_data_do_not_enter(teacher, tmp_path):
    row = chat_row("How heavy is the pump of the Contoso machine", "It weighs 4 kg.")
    write_rows(tmp_path / "test.jsonl", [row])
    assert main([*COMMAND, "--test", "test.jsonl"]) == 0
    content = manifest()
    assert content["questions"]["excluded"]["question of the test data, or nearly one"] == 1
    assert "pump of" not in (tmp_path / "out/rows.jsonl").read_text("utf-8").split("origin")[0]


def test_an_answer_that_is_no_json_fails_the_passage_after_one_repair(teacher):
    teacher.judge = lambda messages: "I would rather not."
    assert main([*COMMAND, "--in-flight", "1"]) == 1
    content = manifest()
    assert content["passages"]["failed"] == 4
    assert content["calls"]["now"] == len(teacher.requests) == 8
    assert content["errors"][0].startswith("InvalidAnswerError: the model's answer is not valid")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data", "--from-docs", "docs"], "--from-docs needs a teacher"),
        (["data", "--from-docs", "docs", "--connection", "gone"], "the connection 'gone' does not"),
        (["data", "--from-docs", "gone", "--connection", "teacher"], "gone does not exist"),
        ([*COMMAND[:-1], "out"], "--out out is not a JSONL file"),
        ([*COMMAND, "--feedback"], "--feedback has no effect with --from-docs"),
        ([*COMMAND, "--strict"], "--strict has no effect with --from-docs"),
        (["data", "--max-calls", "3"], "--max-calls has no effect with --source"),
        ([*COMMAND, "--max-calls", "1"], "--max-calls is 1, but an answer may take 2 calls"),
    ],
)
def test_wrong_options_are_one_line(teacher, words, message, capsys):
    assert main(words) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not teacher.requests


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_command_goes_on_where_it_was(teacher, tmp_path):
    asked = []

    def hangs_on_motor(messages):
        asked.append(messages)
        if "motor" in messages[0]["content"]:
            wait_until(lambda: len(asked) > 1000, timeout_s=20)
        return teach(messages)

    teacher.judge = hangs_on_motor
    words = [sys.executable, "-m", "phi3_ops", *COMMAND, "--in-flight", "1"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = tmp_path / "out/rows.journal.jsonl"
    wait_until(lambda: journal.is_file() and journal.read_text("utf-8").count("\n") == 3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(20)
    asked.extend([None] * 1000)
    before = len(teacher.requests)
    teacher.judge = teach
    assert main(COMMAND) == 0
    assert len(teacher.requests) - before == 2 + 4  # motor, cable, and the four verdicts
    assert manifest()["calls"]["all"] == 8
