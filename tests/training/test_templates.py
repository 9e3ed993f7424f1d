"""Chat templates: exactly the answers and their end tokens are trained on."""

from pathlib import Path

import pytest
import templates
from inputs import MODELS, TrainError
from training_run import ROWS

pytestmark = pytest.mark.filterwarnings("ignore")

PUBLISHED = sorted((Path(__file__).parent / "chat_templates").glob("*.jinja"))
# Another template that renders the same text as Phi-3's.
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


def make_tokenizer(template, strips=False):
    """Make a tokenizer; with `strips`, special tokens strip a line break after them, like Phi-3's."""
    import tiny
    from transformers import AddedToken

    texts = [turn["content"] for turn in CONVERSATION["messages"]]
    tokenizer = tiny.make_tokenizer(texts, vocab_size=300, window=128)
    if strips:
        special = [
            AddedToken(token, rstrip=True, special=True) for token in tiny.SPECIAL_TOKENS[1:]
        ]
        tokenizer.add_tokens(special, special_tokens=True)
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("strips", [False, True])
@pytest.mark.parametrize("path", PUBLISHED, ids=lambda p: p.stem)
def test_exactly_the_answers_and_their_ends_are_trained_on(path, strips):
    tokenizer = make_tokenizer(path.read_text(), strips)
    template = templates.training_template(tokenizer, path.stem)
    templates.check_mask(tokenizer, CONVERSATION, template, path.stem)
    trained = [
        text
        for text, is_trained in templates.mask_spans(tokenizer, CONVERSATION, template)
        if is_trained
    ]
    between = "" if strips or path.stem == "phi-4-mini" else "\n"
    first, last = "Bill Gates\nand Paul Allen.<|end|>", "In 1975.<|end|>"
    # The end of the text is trained on too: a model that misses the end of its turn stops there.
    assert trained == [first + between, last + between + "<|endoftext|>"]


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda p: p.stem)
def test_the_training_template_renders_the_same_text_as_the_published_one(path):
    tokenizer = make_tokenizer(path.read_text())
    training = templates.training_template(tokenizer, path.stem)
    assert "generation %}" in training
    for prompt in (False, True):
        texts = {
            tokenizer.apply_chat_template(
                CONVERSATION["messages"],
                tokenize=False,
                add_generation_prompt=prompt,
                chat_template=template,
            )
            for template in (training, path.read_text())
        }
        assert len(texts) == 1


def test_every_short_name_has_a_published_template_here():
    assert {path.stem for path in PUBLISHED} == MODELS.keys()


def test_a_template_with_another_text_but_the_same_result_is_recognized():
    template = templates.training_template(make_tokenizer(REWRITTEN), "a/b")
    assert templates.GENERATION in template


@pytest.mark.parametrize("unknown", [REWRITTEN.replace("eos_token", "''"), None])
def test_an_unknown_template_without_marks_is_refused(unknown):
    with pytest.raises(TrainError, match="does not mark the assistant's answers, a/b"):
        templates.training_template(make_tokenizer(unknown), "a/b")


def test_a_template_that_has_marks_is_used_unchanged():
    marked = templates.PHI4_MINI.replace("<|end|>", "<|end|> ")
    assert templates.training_template(make_tokenizer(marked), "a/b") == marked


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        # The end of the turn is outside of the marks, so the model would never learn to stop.
        ("message['content'] + '<|end|>' }}{% endgen", "message['content'] }}{% endgen"),
        ("{% generation %}{{ message", "{{ message"),
    ],
)
def test_wrong_marks_are_refused(good, bad):
    wrong = templates.PHI4_MINI.replace(good, bad)
    if "{% generation %}{{ message" not in wrong:
        wrong = wrong.replace("<|end|>' }}{% endgeneration %}", "<|end|>' }}", 1)
    tokenizer = make_tokenizer(wrong)
    with pytest.raises(TrainError, match="are not exactly the answers and their end tokens, a/b"):
        templates.check_mask(tokenizer, CONVERSATION, wrong, "a/b")


def test_the_mask_is_printed(train_cli, tmp_path):
    finished = train_cli(tmp_path / "out", "--show-mask")
    assert finished.returncode == 0, finished.stderr
    lines = [line.split(maxsplit=2) for line in finished.stdout.splitlines()]
    tokens = {
        mark: [eval(text) for _, line_mark, text in lines if line_mark == mark]
        for mark in ("train", "-")
    }
    question, answer = (turn["content"] for turn in ROWS[0]["messages"])
    assert "".join(tokens["-"]) == f"<|user|>\n{question}<|end|>\n<|assistant|>\n"
    assert "".join(tokens["train"]) == f"{answer}<|end|>\n<|endoftext|>"
    assert not (tmp_path / "out").exists()
