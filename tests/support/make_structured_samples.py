"""Writes the samples of structured answers: texts to extract fields from, and questions that need tools.

    python tests/support/make_structured_samples.py

The rows are in scripts/phi3_ops/samples/structured: train.jsonl and test.jsonl. The test rows use names,
products, places and wordings that no training row has. The same seed always gives the same files.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from structured_parts import (
    DATE,
    INTEGER,
    INVOICE,
    MEETING,
    NUMBER,
    ORDER,
    STRING,
    TEST,
    TICKET,
    TRAIN,
    TRIP,
    Task,
    Words,
    a_date,
    a_time,
    wording,
)

FOLDER = Path(__file__).parents[2] / "scripts" / "phi3_ops" / "samples" / "structured"
SEED = 20
TRAIN_ROWS, TEST_ROWS = 240, 80


# -- extraction --------------------------------------------------------------------------------------

SYSTEM = {
    "order": "Extract the order as JSON: customer, items (product, quantity), deliver_on, express.",
    "meeting": "Extract the meeting as JSON: title, date, start, minutes, attendees.",
    "ticket": "Extract the complaint as JSON: reporter, product, category, urgent.",
    "invoice": "Extract the invoice as JSON: number, vendor, total, currency, due.",
    "trip": "Extract the trip as JSON: traveller, origin, destination, depart, nights.",
}
SCHEMAS = {"order": ORDER, "meeting": MEETING, "ticket": TICKET, "invoice": INVOICE, "trip": TRIP}


def order(rng: random.Random, words: Words) -> Task:
    person, (day, iso) = rng.choice(words.people), a_date(rng)
    items = [(rng.randint(1, 12), name) for name in rng.sample(words.products, rng.randint(1, 3))]
    listed = " and ".join(f"{count} x {name}" for count, name in items)
    express = rng.random() < 0.5
    speed = rng.choice(("Please use express shipping.", "It is urgent, send it express."))
    slow = rng.choice(("Standard shipping is fine.", "There is no hurry with the shipping."))
    text = wording(
        rng,
        words,
        f"Hello, this is {person}. I would like {listed}, delivered on {day}.",
        f"Please send {listed} to {person}. Delivery date: {day}.",
        f"New order from {person}: {listed}. Needed on {day}.",
        f"{person} here. Could you ship {listed}? It should arrive on {day}.",
    )
    answer = {
        "customer": person,
        "items": [{"product": name, "quantity": count} for count, name in items],
        "deliver_on": iso,
        "express": express,
    }
    return Task(f"{text} {speed if express else slow}", answer)


def meeting(rng: random.Random, words: Words) -> Task:
    title, (day, iso), start = rng.choice(words.topics), a_date(rng), a_time(rng)
    minutes = rng.choice((30, 45, 60, 90))
    guests = rng.sample(words.people, rng.randint(1, 3))
    names = " and ".join(guests)
    text = wording(
        rng,
        words,
        f"Let's hold the {title} on {day} at {start} for {minutes} minutes with {names}.",
        f"Invite {names} to the {title}: {day}, {start}, {minutes} minutes.",
        f"The {title} is on {day}. It starts at {start}, lasts {minutes} minutes, and {names} attend.",
        f"Can {names} join the {title}? I booked {minutes} minutes from {start} on {day}.",
    )
    answer = {"title": title, "date": iso, "start": start, "minutes": minutes, "attendees": guests}
    return Task(text, answer)


def ticket(rng: random.Random, words: Words) -> Task:
    person, product = rng.choice(words.people), rng.choice(words.products)
    category = rng.choice(("damage", "delivery", "refund"))
    urgent = rng.random() < 0.5
    problem = {
        "damage": (
            f"The {product} arrived broken.",
            f"My {product} has a crack.",
            f"The new {product} came with a dent.",
        ),
        "delivery": (
            f"The {product} has not arrived.",
            f"I am still waiting for my {product}.",
            f"Where is my {product}? It is late.",
        ),
        "refund": (
            f"I want my money back for the {product}.",
            f"Please refund the {product}.",
            f"I returned the {product} and expect my money.",
        ),
    }[category]
    hurry = ("I need an answer today.", "This is urgent.", "Please hurry, it cannot wait.")
    calm = ("Take your time.", "It is not urgent.", "There is no rush.")
    end = wording(rng, words, *(hurry if urgent else calm))
    text = f"{wording(rng, words, *problem)} {end} Regards, {person}"
    answer = {"reporter": person, "product": product, "category": category, "urgent": urgent}
    return Task(text, answer)


def invoice(rng: random.Random, words: Words) -> Task:
    number = f"{rng.choice('ABKRTW')}{rng.randint(100, 999)}-{rng.randint(10, 99)}"
    vendor, (day, iso) = rng.choice(words.firms), a_date(rng)
    currency = rng.choice(("EUR", "USD", "GBP"))
    total = rng.randint(12, 990) + rng.choice((0.5, 0.25, 0.75, 0.9))
    money = f"{total:.2f} {currency}"
    text = wording(
        rng,
        words,
        f"{vendor} sent invoice {number} over {money}, due on {day}.",
        f"Invoice {number}\nVendor: {vendor}\nTotal: {money}\nDue: {day}",
        f"Please pay {money} to {vendor} by {day}. The invoice number is {number}.",
        f"We received bill {number} from {vendor}. The amount of {money} is payable until {day}.",
    )
    answer = {"number": number, "vendor": vendor, "total": total, "currency": currency, "due": iso}
    return Task(text, answer)


def trip(rng: random.Random, words: Words) -> Task:
    person, (day, iso) = rng.choice(words.people), a_date(rng)
    origin, destination = rng.sample(words.cities, 2)
    nights = rng.randint(1, 9)
    text = wording(
        rng,
        words,
        f"{person} flies from {origin} to {destination} on {day} and stays {nights} nights.",
        f"Book {nights} nights in {destination} for {person}, leaving {origin} on {day}.",
        f"On {day}, {person} travels to {destination}. The trip from {origin} takes {nights} nights.",
        f"{person} needs {nights} nights in {destination}. Departure: {origin}, {day}.",
    )
    answer = {
        "traveller": person,
        "origin": origin,
        "destination": destination,
        "depart": iso,
        "nights": nights,
    }
    return Task(text, answer)


EXTRACTIONS = {
    "order": order,
    "meeting": meeting,
    "ticket": ticket,
    "invoice": invoice,
    "trip": trip,
}


# -- tools -------------------------------------------------------------------------------------------


def tool(name: str, description: str, **fields: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": fields, "required": list(fields)}
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


TOOLS = {
    "get_weather": tool("get_weather", "Weather of a city.", city=STRING),
    "convert_money": tool(
        "convert_money", "Convert an amount.", amount=NUMBER, source=STRING, target=STRING
    ),
    "order_status": tool("order_status", "State of an order.", order_id=STRING),
    "find_restaurant": tool("find_restaurant", "Find a restaurant.", city=STRING, cuisine=STRING),
    "book_room": tool("book_room", "Book a room.", room=STRING, date=DATE, minutes=INTEGER),
    "set_reminder": tool("set_reminder", "Set a reminder.", text=STRING, time=STRING),
}


def weather(rng: random.Random, words: Words) -> Task:
    count = rng.choice((1, 1, 2))
    cities = rng.sample(words.cities, count)
    degrees = [rng.randint(-5, 34) for _ in cities]
    skies = [rng.choice(("sunny", "cloudy", "rainy", "windy")) for _ in cities]
    calls = tuple(
        ("get_weather", {"city": city}, {"celsius": degree, "sky": sky})
        for city, degree, sky in zip(cities, degrees, skies)
    )
    names = " and in ".join(cities)
    text = wording(
        rng,
        words,
        f"What is the weather in {names}?",
        f"How warm is it in {names} right now?",
        f"Tell me the weather in {names}.",
        f"Do I need a coat in {names} today?",
    )
    parts = [
        f"it is {sky} in {city}, {degree} degrees"
        for city, degree, sky in zip(cities, degrees, skies)
    ]
    closing = " and ".join(parts)
    return Task(text, None, calls, f"{closing[0].upper()}{closing[1:]}.")


def money(rng: random.Random, words: Words) -> Task:
    amount, (source, target) = (
        rng.randint(5, 900),
        rng.sample(("EUR", "USD", "GBP", "JPY", "CHF"), 2),
    )
    result = round(amount * rng.uniform(0.5, 2), 2)
    text = wording(
        rng,
        words,
        f"How much is {amount} {source} in {target}?",
        f"Convert {amount} {source} to {target}.",
        f"What are {amount} {source} worth in {target}?",
        f"I have {amount} {source}. How many {target} do I get?",
    )
    arguments = {"amount": amount, "source": source, "target": target}
    call = ("convert_money", arguments, {"result": result})
    return Task(text, None, (call,), f"{amount} {source} are {result} {target}.")


def status(rng: random.Random, words: Words) -> Task:
    number = f"{rng.choice('CDEFH')}{rng.randint(1000, 9999)}"
    state = rng.choice(("packed", "on its way", "delivered", "waiting for payment"))
    text = wording(
        rng,
        words,
        f"Where is my order {number}?",
        f"What is the status of order {number}?",
        f"Has order {number} been shipped?",
        f"Any news about order {number}?",
    )
    call = ("order_status", {"order_id": number}, {"state": state})
    return Task(text, None, (call,), f"Order {number} is {state}.")


def restaurant(rng: random.Random, words: Words) -> Task:
    city, cuisine = rng.choice(words.cities), rng.choice(words.dishes)
    adjective = rng.choice(("Golden", "Little", "Green", "Old"))
    name = f"{adjective} {rng.choice(('Lantern', 'Kitchen', 'Garden', 'Mill'))}"
    text = wording(
        rng,
        words,
        f"Find me a {cuisine} restaurant in {city}.",
        f"Where can I eat {cuisine} food in {city}?",
        f"I would like {cuisine} food tonight. I am in {city}.",
        f"Which {cuisine} place in {city} can you recommend?",
    )
    call = ("find_restaurant", {"city": city, "cuisine": cuisine}, {"name": name})
    return Task(text, None, (call,), f"Try {name} in {city}.")


def room(rng: random.Random, words: Words) -> Task:
    name, (day, iso), minutes = rng.choice(words.rooms), a_date(rng), rng.choice((30, 45, 60, 90))
    text = wording(
        rng,
        words,
        f"Book room {name} on {day} for {minutes} minutes.",
        f"I need room {name} for {minutes} minutes on {day}.",
        f"Reserve {minutes} minutes in room {name} on {day}.",
        f"Is room {name} free on {day}? If so, take it for {minutes} minutes.",
    )
    call = ("book_room", {"room": name, "date": iso, "minutes": minutes}, {"booked": True})
    return Task(text, None, (call,), f"Room {name} is booked for {minutes} minutes on {day}.")


def reminder(rng: random.Random, words: Words) -> Task:
    time, person = a_time(rng), rng.choice(words.people)
    todo = rng.choice(
        (f"call {person}", f"send the offer to {person}", f"pay {rng.choice(words.firms)}")
    )
    text = wording(
        rng,
        words,
        f"Remind me at {time} to {todo}.",
        f"Set a reminder for {time}: {todo}.",
        f"At {time} I have to {todo}. Please remind me.",
        f"Don't let me forget to {todo} at {time}.",
    )
    call = ("set_reminder", {"text": todo, "time": time}, {"saved": True})
    return Task(text, None, (call,), f"I will remind you at {time} to {todo}.")


def small_talk(rng: random.Random, words: Words) -> Task:
    """Return a task that needs no tool although some are offered."""
    name = rng.choice(words.people).split()[0]
    first = wording(
        rng,
        words,
        f"Hi, I am {name}.",
        f"Good morning, {name} here.",
        f"Hello from {name}!",
        f"Hey, it's {name}.",
    )
    last = rng.choice(("How are you?", "Thanks for your help yesterday.", "What can you do?"))
    reply = {
        "How are you?": "I am fine, thank you.",
        "Thanks for your help yesterday.": "You are welcome.",
        "What can you do?": "I can answer with the help of my tools.",
    }[last]
    return Task(f"{first} {last}", None, (), f"Hello {name}! {reply}")


QUESTIONS = (weather, money, status, restaurant, room, reminder, small_talk)


# -- rows --------------------------------------------------------------------------------------------


def extraction_row(name: str, task: Task) -> dict[str, Any]:
    answer = json.dumps(task.answer, ensure_ascii=False)
    return {
        "messages": [
            {"role": "system", "content": SYSTEM[name]},
            {"role": "user", "content": task.text},
            {"role": "assistant", "content": answer},
        ],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": name, "schema": SCHEMAS[name], "strict": True},
        },
    }


def tool_row(rng: random.Random, task: Task) -> dict[str, Any]:
    needed = dict.fromkeys(name for name, _, _ in task.calls)
    others = [name for name in TOOLS if name not in needed]
    offered = [*needed, *rng.sample(others, 3 - len(needed))]
    rng.shuffle(offered)
    messages: list[dict[str, Any]] = [{"role": "user", "content": task.text}]
    calls, results = [], []
    for number, (name, arguments, result) in enumerate(task.calls, 1):
        function = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
        calls.append({"id": f"call_{number}", "type": "function", "function": function})
        content = json.dumps(result, ensure_ascii=False)
        results.append({"role": "tool", "tool_call_id": f"call_{number}", "content": content})
    if calls:
        messages += [{"role": "assistant", "content": None, "tool_calls": calls}, *results]
    messages.append({"role": "assistant", "content": task.closing})
    return {"messages": messages, "tools": [TOOLS[name] for name in offered]}


def make_rows(rng: random.Random, words: Words, count: int) -> list[dict[str, Any]]:
    """Return rows of both tasks in turn, without two equal user texts."""
    rows: list[dict[str, Any]] = []
    texts: set[str] = set()
    names = list(EXTRACTIONS)
    while len(rows) < count:
        number = len(rows) // 2
        if len(rows) % 2 == 0:
            name = names[number % len(names)]
            task = EXTRACTIONS[name](rng, words)
            row = extraction_row(name, task)
        else:
            task = QUESTIONS[number % len(QUESTIONS)](rng, words)
            row = tool_row(rng, task)
        if task.text not in texts:
            texts.add(task.text)
            rows.append(row)
    return rows


def write_samples(folder: Path) -> None:
    """Write train.jsonl and test.jsonl."""
    rng = random.Random(SEED)
    folder.mkdir(parents=True, exist_ok=True)
    for name, words, count in (("train", TRAIN, TRAIN_ROWS), ("test", TEST, TEST_ROWS)):
        lines = [json.dumps(row, ensure_ascii=False) for row in make_rows(rng, words, count)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_samples(FOLDER)
