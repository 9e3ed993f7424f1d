"""The checks of questions by rules; the numbers add up."""

from phi3_ops.data import KnownTexts
from phi3_ops.documents.candidates import check_drafts
from phi3_ops.documents.passages import Passage
from phi3_ops.documents.prompts import Draft

TEXT = "The pump A has a power of 40 watts. The pump B has a power of 90 watts."
ONE, TWO = (Passage(name, TEXT, 100, 100 + len(TEXT), ("H",), 2) for name in ("a.pdf", "b.pdf"))
QUOTE = "The pump A has a power of 40 watts"


def check(drafts, test=()):
    checked = check_drafts(drafts, KnownTexts(test))
    written = sum(map(len, drafts.values()))
    assert len(checked.passed) + len(checked.excluded) == written
    assert sum(checked.reasons.values()) == len(checked.excluded)
    return checked


def test_each_question_passes_or_has_one_reason():
    drafts = {
        ONE: [
            Draft("What power does the pump A have?", "40 watts.", QUOTE.lower()),
            Draft("", "40 watts.", QUOTE),
            Draft("Which pump is stronger?", "", QUOTE),
            Draft("What does pump C need?", "A cable.", "The pump C needs a cable"),
            Draft("How many watts has B?", "90.", "90 watts"),
            Draft("Who sells the pumps of the company?", "Nobody says.", QUOTE),
            Draft("Who made them?", None, ""),
        ],
        TWO: [
            Draft("What power does pump A have?", "40 watts.", QUOTE),
            Draft("who made them", None, ""),
            Draft("What power does the pump A have", None, ""),
            Draft(" ", None, ""),
            Draft("Who sells pumps of the company?", None, ""),
        ],
    }
    checked = check(drafts, ["Who sells the pumps of the company?"])
    assert [(c.draft.question, c.kind) for c in checked.passed] == [
        ("What power does the pump A have?", "answered"),
        ("Who made them?", "refusal"),
    ]
    assert checked.reasons == {
        "empty question or answer": 3,
        "question of the test data, or nearly one": 2,
        "question that another passage gave, or nearly one": 2,
        "quote that is not in the passage": 1,
        "quote of fewer than three words": 1,
        "unanswerable question that another passage answers": 1,
    }


def test_a_row_names_its_source_to_the_character():
    answered, refusal = check(
        {ONE: [Draft("What power?", "40 watts.", QUOTE), Draft("Who made it?", None, "")]}
    ).passed
    row = answered.to_json("I don't know.", 5.0)
    assert [message["content"] for message in row["messages"]] == ["What power?", "40 watts."]
    assert row["kind"] == "answered"
    assert row["origin"] == {
        **{"source": "document", "file": "a.pdf", "page": 2, "headings": ["H"]},
        **{"start": 100, "end": 100 + len(QUOTE), "quote": QUOTE, "groundedness": 5.0},
    }
    row = refusal.to_json("I don't know.", None)
    assert row["messages"][1] == {"role": "assistant", "content": "I don't know."}
    assert (row["kind"], row["origin"]["quote"], row["origin"]["end"]) == (
        *("refusal", ""),
        100 + len(TEXT),
    )
