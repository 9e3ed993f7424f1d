"""Parts of the sample rows of structured training: words, schemas, dates and times."""

from __future__ import annotations

import random
from typing import Any, NamedTuple


def split(text: str) -> list[str]:
    return text.split(",")


MONTHS = split(
    "January,February,March,April,May,June,July,August,September,October,November,December"
)


class Words(NamedTuple):
    """The words of one side of the split; no word is on both sides."""

    people: list[str]
    cities: list[str]
    products: list[str]
    firms: list[str]
    topics: list[str]
    dishes: list[str]
    rooms: list[str]
    wording: int  # which of the wordings are used: 0 for the first ones, 1 for the last one


TRAIN = Words(
    people=split(
        "Anna Berger,Luis Ortega,Mei Tanaka,Paul Novak,Sara Lindqvist,Omar Haddad,Julia Weiss,"
        "David Cohen,Ines Moreau,Tom Fischer,Nadia Petrova,Ben Carter,Elif Demir,Marco Rossi,Ruth Okafor,"
        "Jonas Keller,Priya Nair,Felix Braun,Clara Jensen,Hugo Martin,Amir Rahimi,Lena Vogel"
    ),
    cities=split(
        "Vienna,Oslo,Lisbon,Toronto,Nairobi,Madrid,Seoul,Dublin,Prague,Chicago,Athens,Warsaw,Lima,"
        "Helsinki,Naples,Zurich,Denver,Osaka,Porto,Hamburg"
    ),
    products=split(
        "desk lamp,office chair,water bottle,notebook,keyboard,phone case,coffee mug,backpack,"
        "webcam,monitor stand,rain jacket,garden hose,tool box,bike helmet,yoga mat,tea kettle"
    ),
    firms=split(
        "Alpine Paper,Northwind Traders,Blue Harbor,Castle Print,Delta Freight,Evergreen Foods,"
        "Fjord Textiles,Granite Works,Hillside Dairy,Iris Media"
    ),
    topics=split(
        "budget review,sprint planning,design workshop,hiring interview,security training,"
        "product demo,customer call,quarterly report,release checklist,team retrospective"
    ),
    dishes=split("Italian,Thai,Mexican,Indian,Greek,Japanese,Lebanese"),
    rooms=split("Atlas,Birch,Cedar,Delta,Ember,Falcon"),
    wording=0,
)
TEST = Words(
    people=split(
        "Greta Hoffmann,Samuel Adeyemi,Yuki Mori,Laura Bianchi,Peter Dvorak,Aisha Khan,"
        "Erik Solberg,Maria Silva,Noah Walker,Zeynep Kaya"
    ),
    cities=split("Berlin,Cairo,Boston,Krakow,Geneva,Sydney,Bilbao,Turin,Riga,Austin"),
    products=split(
        "floor lamp,travel mug,headset,picture frame,hiking boots,rice cooker,laptop sleeve"
    ),
    firms=split("Juniper Tools,Kestrel Air,Lakeview Glass,Maple Furniture,Orchid Labs"),
    topics=split("board meeting,contract review,safety briefing,onboarding session,data audit"),
    dishes=split("Korean,Turkish,Spanish,Ethiopian"),
    rooms=split("Garnet,Harbor,Indigo"),
    wording=1,
)


class Task(NamedTuple):
    """One row before it is written: the user's text, and the answer or the calls with their results."""

    text: str
    answer: Any = None
    calls: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = ()
    closing: str = ""


def a_date(rng: random.Random) -> tuple[str, str]:
    """Return a date in words and in ISO form."""
    year, month, day = 2026, rng.randint(1, 12), rng.randint(1, 28)
    words = rng.choice((f"{day} {MONTHS[month - 1]} {year}", f"{MONTHS[month - 1]} {day}, {year}"))
    return words, f"{year}-{month:02d}-{day:02d}"


def a_time(rng: random.Random) -> str:
    return f"{rng.randint(8, 18):02d}:{rng.choice(('00', '15', '30', '45'))}"


def wording(rng: random.Random, words: Words, *texts: str) -> str:
    """Return one of the wordings; the last one is for the test rows only."""
    return texts[-1] if words.wording else rng.choice(texts[:-1])


def properties(**fields: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


STRING, INTEGER, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
BOOLEAN, DATE = {"type": "boolean"}, {"type": "string", "pattern": "^\\d{4}-\\d{2}-\\d{2}$"}

ORDER = properties(
    customer=STRING,
    items={"type": "array", "items": properties(product=STRING, quantity=INTEGER)},
    deliver_on=DATE,
    express=BOOLEAN,
)
MEETING = properties(
    title=STRING,
    date=DATE,
    start=STRING,
    minutes=INTEGER,
    attendees={"type": "array", "items": STRING},
)
TICKET = properties(
    reporter=STRING,
    product=STRING,
    category={"enum": ["damage", "delivery", "refund"]},
    urgent=BOOLEAN,
)
INVOICE = properties(
    number=STRING, vendor=STRING, total=NUMBER, currency={"enum": ["EUR", "USD", "GBP"]}, due=DATE
)
TRIP = properties(traveller=STRING, origin=STRING, destination=STRING, depart=DATE, nights=INTEGER)
