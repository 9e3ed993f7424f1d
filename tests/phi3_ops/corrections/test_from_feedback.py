"""What each kind of feedback becomes, and that every record is counted once."""

from correction_records import feedback
from phi3_ops.corrections.from_feedback import examples_of_feedback

Q, BAD, GOOD = "Who founded it?", "Bob.", "Ann."


def made_from(*records):
    source = examples_of_feedback(records, "feedback.sqlite")
    assert source.used + source.unused.total() == source.records == len(records)
    return source


def texts(source):
    return [(e.question, e.chosen, e.rejected, e.origin.basis) for e in source.examples]


def test_an_edit_gives_a_row_and_a_pair_with_their_origin():
    record = feedback("edit", Q, BAD, edited=GOOD, history=[("user", "hi"), ("assistant", "ho")])
    source = made_from(record)
    row, pair = (example.to_json() for example in source.examples)
    earlier = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    question = {"role": "user", "content": Q}
    assert row["messages"] == [*earlier, question, {"role": "assistant", "content": GOOD}]
    assert pair["prompt"] == [*earlier, question]
    assert (pair["chosen"], pair["rejected"]) == (GOOD, BAD)
    assert row["origin"] == {
        **{"source": "feedback", "name": "feedback.sqlite", "record": record.id, "basis": "edit"},
        **{"time": record.time, "flow": "chat", "flow_version": "1.0.0", "connection": "phi3"},
        "model": "mine",
    }
    assert "ann" not in str(row["origin"])  # who gave it is not training data


def test_an_edit_of_an_empty_answer_gives_no_pair_and_an_edit_without_change_nothing():
    source = made_from(
        feedback("edit", Q, "", edited=GOOD), feedback("edit", Q, BAD, edited=" Bob. ")
    )
    assert texts(source) == [(Q, GOOD, None, "edit")]
    assert source.unused == {"correction without a change": 1}


def test_thumbs_up_give_rows_and_other_kinds_are_counted():
    source = made_from(
        feedback("thumbs_up", Q, GOOD),
        feedback("thumbs_down", Q, BAD),
        feedback("comment", Q, BAD, comment="no"),
    )
    assert texts(source) == [(Q, GOOD, None, "thumb up")]
    assert source.unused == {"thumb down": 1, "comment": 1}


def test_the_later_thumb_of_a_person_replaces_the_earlier_one():
    turn = {"conversation": "c", "turn": 2}
    source = made_from(
        feedback("thumbs_down", Q, GOOD, **turn), feedback("thumbs_up", Q, GOOD, **turn)
    )
    assert texts(source) == [(Q, GOOD, None, "thumb up")]
    assert source.unused == {"replaced by the same person": 1}


def test_contradictory_thumbs_are_dropped_all():
    source = made_from(
        feedback("thumbs_up", Q, GOOD, who="ann"),
        feedback("thumbs_down", "who founded it", "Ann. ", who="bob"),
        feedback("thumbs_up", Q, GOOD, who="eve"),
        feedback("thumbs_up", Q, "Another answer."),
    )
    assert texts(source) == [(Q, "Another answer.", None, "thumb up")]
    assert source.unused == {"contradictory thumbs": 3}


def test_thumbs_in_another_context_do_not_contradict():
    source = made_from(
        feedback("thumbs_up", Q, GOOD),
        feedback("thumbs_down", Q, GOOD, history=[("user", "x"), ("assistant", "y")]),
    )
    assert len(source.examples) == 1 and source.unused == {"thumb down": 1}


def test_choices_give_pairs_and_the_latest_of_a_person_wins():
    turn = {"conversation": "c"}
    source = made_from(
        feedback("choice", Q, BAD, chosen=BAD, rejected=GOOD, **turn),
        feedback("choice", Q, GOOD, chosen=GOOD, rejected=BAD, **turn),
        feedback("choice", Q, "x", chosen="x", rejected=" x"),
    )
    assert texts(source) == [(Q, GOOD, BAD, "choice")]
    assert source.unused == {"replaced by the same person": 1, "equal answers": 1}


def test_choices_about_several_questions_of_a_conversation_are_all_used():
    turn = {"conversation": "ticket-1"}  # programs need not send `turn`
    source = made_from(
        *(feedback("choice", q, GOOD, chosen=GOOD, rejected=BAD, **turn) for q in ("One?", "Two?"))
    )
    assert [text[0] for text in texts(source)] == ["One?", "Two?"]
    assert not source.unused


def test_no_feedback_is_no_example():
    assert made_from().examples == []
