"""The shipped general chats: 40 short ones, in the format of the samples, and unlike them."""

import difflib
import hashlib
import json

from phi3_ops import paths

CHATS = [json.loads(line) for line in paths.GENERAL_CHATS.read_text("utf-8").splitlines()]
ROWS = [json.loads(line) for line in paths.SAMPLE_DATA.read_text("utf-8").splitlines()]


def test_each_chat_has_the_samples_columns_and_a_short_answer():
    assert len(CHATS) == len({chat["prompt"] for chat in CHATS}) == 40
    for chat in CHATS:
        assert chat.keys() == ROWS[0].keys() - {"fact"}
        assert chat["prompt_id"] == hashlib.sha256(chat["prompt"].encode()).hexdigest()
        question, answer = chat["messages"]
        assert question == {"role": "user", "content": chat["prompt"]}
        assert answer["role"] == "assistant" and 1 < len(answer["content"].split()) < 25


def test_no_sample_resembles_a_chat():
    def words(text):
        return text.lower().strip("?.!").split()

    answers = {row["messages"][1]["content"] for row in ROWS}
    prompts = [words(prompt) for prompt in {row["prompt"] for row in ROWS}]
    for chat in CHATS:
        assert chat["messages"][1]["content"] not in answers
        matcher = difflib.SequenceMatcher(b=words(chat["prompt"]), autojunk=False)
        for prompt in prompts:
            matcher.set_seq1(prompt)
            assert matcher.real_quick_ratio() < 0.75 or matcher.ratio() < 0.75, (chat, prompt)
