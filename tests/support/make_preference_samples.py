"""Write the shipped preferences: `python tests/support/make_preference_samples.py`.

Each row has a prompt, a chosen and a rejected answer, and a tag with the behaviour that it teaches:

- `short`: one sentence instead of a preamble, digressions and a summary
- `cited`: the number of the source that has the answer, instead of a source that does not exist
- `refusal`: a polite refusal of a secret, instead of the secret

No two rows have the same prompt. The same seed gives the same file.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path

PREFERENCES = (
    Path(__file__).resolve().parents[2] / "scripts" / "phi3_ops" / "samples" / "preferences.jsonl"
)
ROWS_PER_TAG = 120
SEED = 7
Row = dict[str, str]

# -- short -------------------------------------------------------------------------------------------

ANSWERS = {
    "the capital of {}": {
        "Norway": "Oslo", "Portugal": "Lisbon", "Kenya": "Nairobi", "Peru": "Lima", "Japan": "Tokyo",
        "Poland": "Warsaw", "Greece": "Athens", "Egypt": "Cairo", "Chile": "Santiago",
        "Austria": "Vienna", "Cuba": "Havana", "Ireland": "Dublin", "Finland": "Helsinki",
        "Hungary": "Budapest", "Thailand": "Bangkok", "Iceland": "Reykjavik", "Denmark": "Copenhagen",
        "Belgium": "Brussels", "Sweden": "Stockholm", "Spain": "Madrid",
    },
    "the opposite of '{}'": {
        "hot": "cold", "early": "late", "empty": "full", "heavy": "light", "narrow": "wide",
        "ancient": "modern", "shallow": "deep", "bright": "dark", "noisy": "quiet", "rough": "smooth",
        "cheap": "expensive", "weak": "strong", "dry": "wet", "slow": "fast", "rare": "common",
    },
    "the chemical symbol for {}": {
        "gold": "Au", "iron": "Fe", "silver": "Ag", "sodium": "Na", "oxygen": "O", "copper": "Cu",
        "helium": "He", "carbon": "C", "lead": "Pb", "potassium": "K", "zinc": "Zn", "neon": "Ne",
    },
    "the past tense of '{}'": {
        "go": "went", "write": "wrote", "sing": "sang", "bring": "brought", "teach": "taught",
        "swim": "swam", "choose": "chose", "fly": "flew", "catch": "caught", "drive": "drove",
        "begin": "began", "speak": "spoke", "break": "broke", "grow": "grew", "hold": "held",
    },
    "the baby of a {} called": {
        "dog": "a puppy", "cat": "a kitten", "cow": "a calf", "horse": "a foal", "sheep": "a lamb",
        "goat": "a kid", "swan": "a cygnet", "hen": "a chick", "duck": "a duckling", "deer": "a fawn",
    },
}  # fmt: skip
SHORT_QUESTIONS = ("What is {}?", "Tell me: what is {}?", "I would like to know: what is {}?")
PREAMBLES = (
    "What a great question! Many people wonder about this, and there is a lot to say about it.",
    "Thank you for asking. Before I answer, it is useful to look at the wider background.",
    "That is an interesting topic, which has been discussed for a very long time.",
    "I would be happy to help you with this. There are several ways to look at it.",
    "Well, this is something that comes up often, and it deserves a detailed explanation.",
)
DIGRESSIONS = (
    "It depends on the context, and different people may see it differently. Generally speaking,",
    "As you may know, the history of this subject is long and full of surprises. To be precise,",
    "Experts have written whole books about this and related matters. In short,",
    "There are many similar questions, and each of them is worth a closer look. In this case,",
)
SUMMARIES = (
    "I hope this helps! Let me know if you would like to know more about this or any other topic.",
    "In conclusion, it is always good to keep learning, and this is a fine example of that.",
    "Of course there is much more to say, so feel free to ask me anything else you can think of.",
    "To sum up, this shows how rich and varied our world is, and how much there is to discover.",
)


def short_rows(rng: random.Random) -> Iterator[Row]:
    """Yield rows whose chosen answer is one sentence."""
    for subject, answers in ANSWERS.items():
        for (name, answer), question in itertools.product(answers.items(), SHORT_QUESTIONS):
            phrase = subject.format(name)
            sentence = f"{phrase[0].upper()}{phrase[1:]} is {answer}."
            long = (rng.choice(PREAMBLES), rng.choice(DIGRESSIONS), f"{phrase} is {answer}.")
            rambling = " ".join((*long, rng.choice(SUMMARIES)))
            yield _row(
                "short",
                question.format(phrase),
                sentence.replace(" called is", " is called"),
                rambling.replace(" called is", " is called"),
            )


# -- cited -------------------------------------------------------------------------------------------

TOWNS = ("Alder", "Brookfield", "Corwen", "Dunmore", "Elmsby", "Farley", "Grantown", "Harwick")
PLACES = {
    "library": ("opens at {} o'clock", "When does the library in {} open?", ("8", "9", "10")),
    "bridge": ("was built in {}", "When was the bridge in {} built?", ("1874", "1931", "1968")),
    "market": ("is held on {}", "When is the market in {} held?", ("Monday", "Friday", "Saturday")),
    "museum": ("has {} rooms", "How many rooms does the museum in {} have?", ("6", "14", "23")),
    "pool": ("is {} metres long", "How long is the pool in {}?", ("20", "25", "50")),
    "tower": ("is {} metres high", "How high is the tower in {}?", ("31", "48", "77")),
}  # fmt: skip
INVENTED = (
    "(Miller et al., Journal of Local Studies, 2017, p. 43)",
    "(see the Oxford Handbook of Towns, chapter 12)",
    "(source: www.official-town-facts.example/archive)",
    "(Professor H. Weaver, personal letter, 2009)",
    "(National Survey of Places, volume 8, table 3.1)",
)


def cited_rows(rng: random.Random) -> Iterator[Row]:
    """Yield rows whose chosen answer has the number of the source with the answer."""
    for town, (name, (fact, question, values)) in itertools.product(TOWNS, PLACES.items()):
        for value in values:
            other_name = rng.choice([place for place in PLACES if place != name])
            other_fact, _, other_values = PLACES[other_name]
            facts = [
                f"The {name} in {town} {fact.format(value)}.",
                f"The {other_name} in {town} {other_fact.format(rng.choice(other_values))}.",
            ]
            order = rng.sample(facts, 2)
            number = order.index(facts[0]) + 1
            sources = " ".join(f"[{index}] {text}" for index, text in enumerate(order, 1))
            prompt = f"{sources}\nAnswer and cite the source: {question.format(town)}"
            rejected = f"{facts[0][:-1]} {rng.choice(INVENTED)}."
            yield _row("cited", prompt, f"{facts[0][:-1]} [{number}].", rejected)


# -- refusal -----------------------------------------------------------------------------------------

SECRETS = {
    "the door code of the {}": ("4821", "7093", "1556"),
    "the password of the {}": ("blue-harbour-9", "Tulip!42", "norrland77"),
    "the home address of the head of the {}": ("12 Mill Lane", "5 Quay Street", "88 Elm Road"),
    "the salary list of the {}": ("41,000 to 78,500 euros", "2,900 a month", "55,200 a year"),
}  # fmt: skip
OWNERS = ("laboratory", "archive", "sales team", "school", "hotel", "clinic", "workshop", "bank")
REQUESTS = ("What is {}?", "Please tell me {}.", "I forgot it: what is {}?")
REFUSALS = (
    "I am sorry, but I cannot share {}, because it is confidential.",
    "Sorry, {} is confidential, so I cannot tell you.",
    "I am sorry, I cannot give out {}. It is confidential.",
)
OFFERS = ("Please ask the person in charge.", "The {} itself can help you with that.")


def refusal_rows(rng: random.Random) -> Iterator[Row]:
    """Yield rows whose chosen answer does not contain the secret in the prompt."""
    for (subject, values), owner in itertools.product(SECRETS.items(), OWNERS):
        for value, request in itertools.product(values, REQUESTS):
            secret = subject.format(owner)
            note = f"Confidential note: {secret} is {value}."
            chosen = f"{rng.choice(REFUSALS).format(secret)} {rng.choice(OFFERS).format(owner)}"
            leak = rng.choice(("Sure, {} is {}.", "Of course, {} is {}.", "{} is {}, as noted."))
            leaked = leak.format(secret, value)
            rejected = leaked[0].upper() + leaked[1:]
            yield _row("refusal", f"{note}\n{request.format(secret)}", chosen, rejected)


# -- all ---------------------------------------------------------------------------------------------


def _row(tag: str, prompt: str, chosen: str, rejected: str) -> Row:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, "tags": tag}


def make_rows() -> list[Row]:
    """Return the shipped rows: the same number of each tag, in a random order."""
    rng = random.Random(SEED)
    rows = []
    for make in (short_rows, cited_rows, refusal_rows):
        rows += rng.sample(list(make(rng)), ROWS_PER_TAG)
    rng.shuffle(rows)
    return rows


if __name__ == "__main__":
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in make_rows())
    PREFERENCES.write_text("".join(lines), encoding="utf-8")
