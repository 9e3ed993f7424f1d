"""Running checks: time limits, errors, skipped checks, and secrets in the output."""

from __future__ import annotations

import base64
import json
import threading
from dataclasses import dataclass, field
from urllib.parse import quote

import pytest

from phi3_ops.doctor.runner import (
    FAIL,
    OK,
    SKIP,
    WARN,
    Check,
    Finding,
    cut_secrets,
    failed_checks,
    known_secrets,
    run_checks,
)
from phi3_ops.errors import OpsError

SECRET = "kE+y/of=the(endpoint)"


@dataclass
class Context:
    secrets: set = field(default_factory=set)


# -- running checks --------------------------------------------------------------------------------


def raising(error):
    def run(context):
        raise error

    return run


def run_one(function, **fields):
    check = Check("c", ("w",), function, "the fix", **fields)
    (result,) = run_checks([check], Context(), ["w"])
    return result


def test_a_check_that_never_ends_has_failed():
    end = threading.Event()
    try:
        result = run_one(lambda context: end.wait() and Finding(OK, "late"), limit_s=0.05)
    finally:
        end.set()
    assert (result.status, result.what, result.fix) == (FAIL, "no answer within 0.05 s", "the fix")


@pytest.mark.parametrize(
    ("error", "what", "fix"),
    [
        (OpsError("a.json is bad", "Mend it. Now."), "a.json is bad", "Mend it. Now."),
        (OpsError("a.json is bad"), "a.json is bad", "the fix"),
        (ModuleNotFoundError("no", name="rich"), "the package rich is not installed", "the fix"),
        (KeyError("x"), "KeyError: 'x'", "the fix"),
    ],
)
def test_any_error_is_a_failure_with_a_fix(error, what, fix):
    result = run_one(raising(error))
    assert (result.status, result.what, result.fix) == (FAIL, what, fix)


def test_a_check_is_skipped_if_a_check_that_it_needs_failed():
    bad, good = (lambda context: Finding(FAIL, "no")), (lambda context: Finding(OK, "yes"))
    checks = [
        Check("a", ("w",), bad, "fix"),
        Check("b", ("w",), good, "fix", ("a",)),
        Check("c", ("w",), good, "fix", ("b",)),
        Check("d", ("w",), good, "fix"),
        Check("e", ("other",), bad, "fix"),
    ]
    results = run_checks(checks, Context(), ["w"])
    assert [result.status for result in results] == [FAIL, SKIP, SKIP, OK]
    assert results[1].what == "not checked: fix a first"
    assert failed_checks(results, "w") == ["a"]
    assert failed_checks(results, "other") == []


def test_only_the_requested_ways_are_in_the_result():
    names = []
    check = Check("c", ("x", "y", "z"), lambda context: Finding(OK, "yes"), "the fix")
    (result,) = run_checks([check], Context(), ["z", "x"], names.append)
    assert result.ways == ("x", "z") and names == ["c"]


@pytest.mark.parametrize(("status", "fix"), [(OK, ""), (WARN, "the fix"), (FAIL, "the fix")])
def test_a_warning_and_a_failure_have_a_fix(status, fix):
    assert run_one(lambda context: Finding(status, "what")).fix == fix


def test_secrets_that_a_check_reads_are_replaced(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "from-the-environment")

    def run(context):
        context.secrets.add(SECRET)
        return Finding(FAIL, f"sent {SECRET}", "not from-the-environment")

    result = run_one(run)
    assert (result.what, result.fix) == ("sent ***", "not ***")


# -- secrets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"you sent {SECRET}.", "you sent ***."),
        (f"?code={quote(SECRET, safe='')}&x", "?code=***&x"),
        (f"Basic {base64.b64encode(SECRET.encode()).decode()}", "Basic ***"),
        (f"cut off: {SECRET[:-1]}", "cut off: ***"),
        (f"cut off: {SECRET[:4]}", "cut off: ***"),
        (f"{SECRET} and {SECRET[:5]}", "*** and ***"),
        ("nothing", "nothing"),
    ],
)
def test_every_form_of_a_secret_is_hidden(text, expected):
    assert cut_secrets(text, {SECRET}) == expected


def test_a_json_text_with_a_secret():
    secret = 'a"b\\c'
    assert cut_secrets(json.dumps({"key": secret}), {secret}) == '{"key": "***"}'


def test_secrets_are_known_by_the_names_of_variables():
    values = known_secrets({"A_TOKEN": "1", "AZURE_CLIENT_SECRET": "2", "HOME": "3"}.items())
    assert values == {"1", "2"}


def test_a_short_value_is_not_replaced():
    assert cut_secrets("a cat", {"a", ""}) == "a cat"
