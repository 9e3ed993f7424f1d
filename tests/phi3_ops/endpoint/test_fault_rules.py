"""The rules by which the endpoint fails: files, headers, and what is wrong in them."""

import pytest

from phi3_ops.endpoint.fault_rules import (
    FaultError,
    Rule,
    load_fault_rules,
    read_header,
    read_rule,
)


def test_a_rule_file_gives_rules(tmp_path):
    path = tmp_path / "faults.yaml"
    path.write_text("- fault: 503\n- {fault: slow-body, every: 10, path: /score, seconds: 3}\n")
    assert load_fault_rules(path) == [
        Rule(fault="503"),
        Rule(fault="slow-body", every=10, path="/score", seconds=3),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fault: 503", "must be a list of rules"),
        ("", "must be a list of rules"),
        ("- [", "cannot be read: "),
        ("- 503", "rule 1 must be a mapping with a fault"),
        ("- fault: 503\n- times: 1", "rule 2 must be a mapping with a fault"),
        ("- {fault: 503, times: yes}", "rule 1: times = True: Input should be a valid integer"),
        (
            "- {fault: 503, times: 0}",
            "rule 1: times = 0: Input should be greater than or equal to 1",
        ),
        ("- {fault: 503, times: 1.5}", "rule 1: times = 1.5: Input should be a valid integer"),
        ("- {fault: 503, times: '2'}", "rule 1: times = '2': Input should be a valid integer"),
        ("- {fault: 503, times: }", "rule 1: times = None: the value is missing"),
        ("- {fault: 503, every: }", "rule 1: every = None: Input should be a valid integer"),
        ("- {fault: 503, seconds: }", "rule 1: seconds = None: the value is missing"),
        ("- {fault: 503, path: }", "rule 1: path = None: the value is missing"),
        ("- {fault: 503, path: 3}", "rule 1: path = 3: Input should be a valid string"),
        ("- {fault: slow-body, seconds: .nan}", "rule 1: seconds = nan: Input should be"),
        ("- {fault: slow-body, seconds: -1}", "rule 1: seconds = -1: Input should be greater"),
        ("- {fault: slow-body, seconds: true}", "rule 1: seconds = True: Input should be a valid"),
        (
            "- {fault: 503, often: 1}",
            "rule 1: often is unknown; the fields are fault, times, every",
        ),
        ("- {fault: [503]}", "rule 1: fault = [503]: Input should be a valid string"),
        ("- {fault: yes}", "rule 1: fault = True: Input should be a valid string"),
        ("- {fault: 503, 1: 2}", "rule 1: 1 is unknown"),
        ("- {fault: 50}", "rule 1: fault = 50: this fault does not exist; similar names: 504, 503"),
    ],
)
def test_a_wrong_rule_file_is_an_error_of_one_line(tmp_path, text, message):
    path = tmp_path / "faults.yaml"
    path.write_text(text)
    with pytest.raises(FaultError) as caught:
        load_fault_rules(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_rule_file_is_an_error(tmp_path):
    with pytest.raises(FaultError, match="No such file"):
        load_fault_rules(tmp_path / "none.yaml")


def test_headers_and_files_read_alike():
    assert read_header("slow-body;n=2 ; seconds=0.5; id=x") == read_rule(
        {"fault": "slow-body", "times": 2, "seconds": 0.5}, "here"
    )


@pytest.mark.parametrize(
    ("header", "rule"),
    [
        ("503", Rule(fault="503")),
        ("oversized; mib=3", Rule(fault="oversized", mib=3)),
        ("503; every=2; path=/score", Rule(fault="503", every=2, path="/score")),
        ("slow-body; seconds=600", Rule(fault="slow-body", seconds=600.0)),
    ],
)
def test_headers(header, rule):
    assert read_header(header) == rule


@pytest.mark.parametrize("fields", [("times", "every"), ("mib",)])
def test_a_rule_cannot_be_changed(fields):
    rule = Rule(fault="503")
    for field in fields:
        with pytest.raises(ValueError, match="frozen"):
            setattr(rule, field, 2)
