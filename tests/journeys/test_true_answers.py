"""A run that is interrupted, refused and finished: every number that is printed is true."""

from __future__ import annotations

import json

from polling import wait_until
from slow_endpoint import slow_endpoint

QUESTIONS = 40
MAPPING = ("--column-mapping", "input_data=${data.question}")


def write_questions(person):
    rows = [{"question": f"q{n}", "ground_truth": f"q{n}"} for n in range(QUESTIONS)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (person.folder / "mine.jsonl").write_text(text)


def test_an_interrupted_run_is_finished_and_compared_by_its_display_name(visitor):
    write_questions(visitor)
    visitor.variables["PHI3_KEY"] = "a-key"
    with slow_endpoint(0.5) as server:
        connected = visitor.phi3("connect", "--endpoint", server.url, "--contract", "chat")
        assert connected.returncode == 0, connected.stderr
        server.asked.clear()  # `connect` asked a question, too
        words = ("--flow", "qa", "--data", "mine.jsonl", *MAPPING, "--name", "mine")
        run = visitor.start("run", *words, "--in-flight", "4")
        wait_until(lambda: sum(server.asked.values()) >= 4)
        assert run.press_ctrl_c() == 130
        answered = len(server.asked)
        counts = f"phi3: interrupted: {answered} answered, {QUESTIONS - answered} not asked; "
        assert f"{counts}go on with: phi3 run --resume mine-" in run.output
        assert "failed" not in run.output.partition("interrupted")[2]

        server.seconds = 0.01
        done = visitor.phi3("run", "--resume", "mine", "--evaluate")
        assert done.returncode == 0, done.stderr
        assert f"{QUESTIONS} lines, 0 failed" in done.stdout
        assert set(server.asked.values()) == {1}
        again = visitor.phi3("run", "--resume", "mine")
        assert again.returncode == 0
        assert f"{QUESTIONS} of {QUESTIONS} lines are answered; nothing to do" in again.stdout
    compared = visitor.phi3("compare", "mine", "mine", "--gate", "exact_match")
    assert compared.returncode == 0, compared.stderr
    assert "gate: pass" in compared.stdout
    assert not visitor.processes()
