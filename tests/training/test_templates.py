"""The published templates of the three models: what is trained on is each answer and its end."""

from pathlib import Path

import pytest
import templates
from inputs import MODELS, TrainError
from training_run import ROWS

pytestmark = pytest.mark.filterwarnings("ignore")

PUBLISHED = sorted((Path(__file__).parent / "chat_templates").glob("*.jinja"))
# Phi-3's template as people write it by hand: another text with the same result.
REWRITTEN = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{{ '<|assistant|>\n' if add_generation_prompt else eos_token }}"
)
CONVERSATION = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who founded Microsoft?"},
        {"role": "assistant", "content": "Bill Gates\nand Paul Allen."},
        {"role": "user", "content": "When?"},
        {"role": "assistant", "content": "In 1975."},
    ]
}


def make_tokenizer(template, swallows=False):
    """With `swallows`, the special tokens take the line break after them, as Phi-3's do."""
    import tiny
    from transformers import AddedToken

    texts = [turn["content"] for turn in CONVERSATION["messages"]]
    tokenizer = tiny.make_tokenizer(texts, vocab_size=300, window=128)
    if swallows:
        special = [AddedToken(t, rstrip=True, special=True) for t in tiny.SPECIAL_TOKENS[1:]]
        tokenizer.add_tokens(special, special_tokens=True)
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("swallows", [False, True])
@pytest.mark.parametrize("path", PUBLISHED, ids=lambda p: p.stem)
def test_the_answers_and_their_ends_are_trained_on_and_nothing_else(path, swallows):
    tokenizer = make_tokenizer(path.read_text(), swallows)
    template = templates.marked(tokenizer, path.stem)
    templates.check(tokenizer, CONVERSATION, template, path.stem)
    trained = [
        text
        for text, is_trained in templates.spans(tokenizer, CONVERSATION, template)
        if is_trained
    ]
    between = "" if swallows or path.stem == "phi-4-mini" else "\n"
    first, last = "Bill Gates\nand Paul Allen.<|end|>", "In 1975.<|end|>"
    # The text's end is trained on as well: a model that misses its turn's end still stops there.
    assert trained == [first + between, last + between + "<|endoftext|>"]


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda p: p.stem)
def test_the_marked_template_renders_what_the_published_one_does(path):
    tokenizer = make_tokenizer(path.read_text())
    marked = templates.marked(tokenizer, path.stem)
    assert "generation %}" in marked
    for prompt in (False, True):
        both = {
            tokenizer.apply_chat_template(
                CONVERSATION["messages"],
                tokenize=False,
                add_generation_prompt=prompt,
                chat_template=each,
            )
            for each in (marked, path.read_text())
        }
        assert len(both) == 1


def test_every_named_model_has_its_template_here():
    assert {path.stem for path in PUBLISHED} == MODELS.keys()


def test_a_template_that_only_looks_different_is_taken_for_phi3s():
    templates.marked(make_tokenizer(REWRITTEN), "a/b")


@pytest.mark.parametrize("other", [REWRITTEN.replace("eos_token", "''"), None])
def test_a_template_without_marks_is_refused(other):
    with pytest.raises(TrainError, match="does not show what the assistant says, a/b"):
        templates.marked(make_tokenizer(other), "a/b")


def test_a_template_with_marks_of_its_own_is_kept():
    own = templates.PHI4_MINI.replace("<|end|>", "<|end|> ")
    assert templates.marked(make_tokenizer(own), "a/b") == own


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        # The end of the turn is outside of the marks, so that the model never learns to stop.
        ("message['content'] + '<|end|>' }}{% endgen", "message['content'] }}{% endgen"),
        ("{% generation %}{{ message", "{{ message"),
    ],
)
def test_wrong_marks_are_refused(good, bad):
    wrong = templates.PHI4_MINI.replace(good, bad)
    if "{% generation %}{{ message" not in wrong:
        wrong = wrong.replace("<|end|>' }}{% endgeneration %}", "<|end|>' }}", 1)
    tokenizer = make_tokenizer(wrong)
    with pytest.raises(TrainError, match="are not the answers and their ends, a/b"):
        templates.check(tokenizer, CONVERSATION, wrong, "a/b")


def test_the_mask_is_printed(train_cli, tmp_path):
    done = train_cli(tmp_path / "out", "--show-mask")
    assert done.returncode == 0, done.stderr
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    marks = {
        mark: [eval(text) for _, each, text in lines if each == mark] for mark in ("train", "-")
    }
    question, answer = (turn["content"] for turn in ROWS[0]["messages"])
    assert "".join(marks["-"]) == f"<|user|>\n{question}<|end|>\n<|assistant|>\n"
    assert "".join(marks["train"]) == f"{answer}<|end|>\n<|endoftext|>"
    assert not (tmp_path / "out").exists()
