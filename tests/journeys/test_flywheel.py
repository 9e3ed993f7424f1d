"""The loop of examples/flywheel with a real model: what was corrected improves, the rest stays."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from phi3_ops import paths

pytestmark = pytest.mark.slow

EXAMPLE = paths.ROOT / "examples" / "flywheel"
HANG_S = 3600  # six minutes of CPU, on a machine that other tests share


@pytest.fixture(scope="module")
def loop(person, smollm2_cache):
    """The folder in which the example ran."""
    person.variables.update(smollm2_cache)
    done = subprocess.run(
        (sys.executable, EXAMPLE / "run.py", "--workdir", "loop"),
        env=person.environment,
        cwd=person.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=HANG_S,
    )
    assert done.returncode == 0, done.stdout
    assert not person.processes()
    return person.folder / "loop"


def token_f1(loop, name):
    """Return the comparison of a question file, and the verdict of its gate."""
    document = json.loads((loop / f"compare-{name}" / "compare.json").read_text())
    [result] = document["comparisons"]
    return result, document["gate"] and document["gate"]["verdict"]


def test_each_correction_becomes_a_row_or_a_preference(loop):
    manifest = json.loads((loop / "corrections" / "manifest.json").read_text())
    assert [source["used"] for source in manifest["sources"]] == [40]
    assert (manifest["rows"]["taken"], manifest["pairs"]["taken"]) == (20, 40)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("corrected", "corrected"), ("corrected", "chosen"), ("paraphrases", "corrected")],
)
def test_what_users_corrected_improves_also_in_words_that_were_not_trained(loop, name, kind):
    result, _ = token_f1(loop, name)
    assert result["low"] > 0
    [of_kind] = [entry for entry in result["slices"] if entry["value"] == kind]
    assert of_kind["low"] > 0


def test_the_rest_does_not_get_worse(loop):
    result, verdict = token_f1(loop, "guard")
    assert verdict == "pass", result
