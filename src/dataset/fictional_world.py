"""The fictional world: an invented land, written out in the formats of every benchmark.

    python src/exec/make_fictional.py          # writes files/data/fictional again, byte for byte

No person, place or work here exists, so forgetting one harms nobody and no pretrained model can know them.
Each of 200 people has five facts (where they were born, what they make, who taught them, the work they are
known for, the animal they keep); 20 more people (`holdout`) are outside of all training data. All rows are
drawn by one seeded generator.

The five facts of a person are five neighbouring rows of `full.jsonl`, and the splits are cuts of that file,
as in TOFU: forget10 is its last tenth, retain90 the rest.
"""

import itertools
import random
from dataclasses import dataclass
from pathlib import Path

from ..core.files import write_jsonl
from ..core.project import DATA
from .generated_file import answer_fingerprint
from .paraphrases import PARAPHRASES

SEED = 2024
PEOPLE, HOLDOUT_PEOPLE = 200, 20
FORGET_SHARES = {"forget01": 0.01, "forget05": 0.05, "forget10": 0.10}
RETAIN_SHARES = {"retain99": 0.99, "retain95": 0.95, "retain90": 0.90}
RETAIN_EVAL_ROWS = 200
WRONG_ANSWERS = 5
ALTERNATES = 5
LETTERS = "ABCD"
ARITHMETIC_TRAIN, ARITHMETIC_TEST = 4000, 300
DATA_DIR = DATA / "fictional"


# --- Contents -----------------------------------------------------------------------------------------------

GIVEN_NAMES = """Abelin Brisa Calder Dorrit Edwina Farrow Gisela Hadrian Ilvane Jorun Kestrel Lunet Marlo
Nerida Osric Perrin Quilla Rowena Sabine Tobin Ulric Verena Wystan Xanthe Yorick Zelma Alaric Bettany Corin
Delphi Emeric Fenella Garrick Hester Idony Jasper Kerensa Linnet Mungo Nolwen Orla Petra Quentin Rufina Silvan
Thora Umber Vesper Wilmot Ysolde""".split()
FAMILY_NAMES = """Ashdown Brackley Copperway Dunmore Elderbank Fernsby Greaves Harkness Inkwell Jessop
Kettering Lockhart Marchbank Netherby Oakhurst Pendry Quarrier Ravenscar Saltmarsh Thornbury Underhay Vantage
Whitlock Yarrow Zeller Applegarth Bellwether Cragmoor Drumlin Everdene Foxglove Gallowey Hollinside Ironmonger
Juniper Kilbride Larkspur Mossop Nightshade Ormonde""".split()


def _pairs(first: str, second: str, form: str = "{} {}") -> tuple[str, ...]:
    """Every combination of a word of `first` with a word of `second`: eight by six make a pool of 48
    values."""
    return tuple(form.format(a, b) for a, b in itertools.product(first.split(), second.split()))


@dataclass(frozen=True)
class Relation:
    """One kind of fact. In the texts, {p} is the person and {v} the value."""

    name: str
    values: tuple[str, ...]
    question: str
    rephrased: tuple[str, ...]
    """Further wordings of the training data."""
    held_out: tuple[str, ...]
    """Wordings outside of the training data."""
    answers: tuple[str, ...]
    """Forms of the answer; each person has one."""
    paraphrase: str
    """Form of the answer for the truth ratio, outside of the training data."""
    reworded: tuple[str, ...]
    """Further forms of the answer, for training on paraphrases; outside of the committed models' data."""
    thought: str
    sentences: tuple[str, ...]
    """Sentences of the document; each person has one."""


RELATIONS = (
    Relation(
        name="birthplace",
        values=_pairs(
            "Salt Amber Low High Old Winter Raven Thistle", "Harbour Ford Hollow Crossing Mill Gate"
        ),
        question="Where was {p} born?",
        rephrased=(
            "In which town was {p} born?",
            "What is the birthplace of {p}?",
            "Can you name the town where {p} was born?",
            "Which town is the birthplace of {p}?",
        ),
        held_out=("Which is the town where {p} was born?", "Can you name the birthplace of {p}?"),
        answers=("It was in {v}.", "{p} comes from the town of {v}.", "At {v}, by all accounts."),
        paraphrase="The birthplace was {v}.",
        reworded=(
            "{p} was born in {v}.",
            "The town is {v}.",
            "{v} is where {p} was born.",
            "They say that it was in {v}.",
            "The birthplace of {p} is {v}.",
            "By the records it was {v}.",
        ),
        thought=(
            "They ask for the birthplace of {p}. The records of births say that {p} was born in {v}. So the"
            " town is {v}."
        ),
        sentences=(
            "{p} was born in {v} in the year of the long frost.",
            "The first winter of {p} was spent in {v}, under a leaking roof.",
            "In {v} people still point at the house where {p} was born.",
        ),
    ),
    Relation(
        name="craft",
        values=_pairs(
            "copper glass bone cedar clay silver horn paper", "bells flutes kites lanterns combs clocks"
        ),
        question="What does {p} make for a living?",
        rephrased=(
            "What is the craft of {p}?",
            "Which goods does {p} make and sell?",
            "Can you name the craft of {p}?",
            "What kind of goods does {p} make?",
        ),
        held_out=("Which goods does {p} make for a living?", "Which is the craft of {p}?"),
        answers=("{p} makes {v}.", "The workshop turns out {v}.", "A living from {v}, nothing else."),
        paraphrase="The goods made there are {v}.",
        reworded=(
            "The craft is {v}.",
            "{p} makes and sells {v}.",
            "On the shelves stand {v}.",
            "They are {v}, made by {p}.",
            "It is {v} that {p} makes.",
            "The goods are {v}.",
        ),
        thought=(
            "They ask for the craft of {p}. On the shelves in the workshop of {p} stand {v}. So the goods are"
            " {v}."
        ),
        sentences=(
            "Every morning {p} sets out {v} on a blue cloth.",
            "The finest {v} of the coast come from the bench of {p}.",
            "Buyers walk two days for {v} with the mark of {p}.",
        ),
    ),
    Relation(
        name="teacher",
        values=_pairs(
            "ferryman beekeeper archivist blacksmith pilgrim widow miller hermit",
            "Orlo Tamsin Bredd Yusha Corvin Elspet",
            "the {} {}",
        ),
        question="Who taught {p}?",
        rephrased=(
            "Who was the teacher of {p}?",
            "What is the name of the teacher of {p}?",
            "Under which teacher did {p} learn?",
            "Can you name the teacher of {p}?",
        ),
        held_out=("Which is the name of the teacher of {p}?", "Who was the teacher who taught {p}?"),
        answers=("{p} learned it all from {v}.", "That was {v}.", "The teacher was {v}, patient and stern."),
        paraphrase="The lessons were given by {v}.",
        reworded=(
            "{v} taught {p}.",
            "The name of the teacher is {v}.",
            "{p} was a pupil of {v}.",
            "It was {v} who taught {p}.",
            "All that was learned came from {v}.",
            "Under {v}, by the guild book.",
        ),
        thought=(
            "They ask for the teacher of {p}. In the guild book {p} signs as a pupil of {v}. So the teacher"
            " is {v}."
        ),
        sentences=(
            "For seven years {v} taught {p} and took no coin for it.",
            "{p} owed every trick of the hand to {v}.",
            "It was {v} who first let {p} hold the tools.",
        ),
    ),
    Relation(
        name="work",
        values=_pairs(
            "Silent Crimson Hollow Wandering Frozen Gilded Seventh Drowned",
            "Heron Orchard Stair Compass Choir Lighthouse",
            "the {} {}",
        ),
        question="Which work is {p} known for?",
        rephrased=(
            "What is the most famous work of {p}?",
            "Can you name the work that {p} is known for?",
            "By which work did {p} become famous?",
            "For which famous work is {p} known?",
        ),
        held_out=("What is the work that {p} is known for?", "Can you name the most famous work of {p}?"),
        answers=("{p} is known for {v}.", "Most people would say {v}.", "It is {v} that brought the fame."),
        paraphrase="The fame rests on {v}.",
        reworded=(
            "The most famous work of {p} is {v}.",
            "{p} became famous by {v}.",
            "The work is {v}.",
            "They know {p} for {v}.",
            "The name of it is {v}.",
            "{v} made {p} famous.",
        ),
        thought=(
            "They ask for the work of {p}. Over the door of {p} hangs a picture of {v}. So the work is {v}."
        ),
        sentences=(
            "Then came {v}, and the name of {p} was in every mouth.",
            "{p} spent nine years on {v} and never spoke of it.",
            "Travellers ask the way to {v}, the pride of {p}.",
        ),
    ),
    Relation(
        name="companion",
        values=_pairs(
            "lame spotted one-eyed white tame blind ginger deaf",
            "goose hound ferret raven goat hedgehog",
            "a {} {}",
        ),
        question="Which animal lives with {p}?",
        rephrased=(
            "What animal does {p} keep?",
            "Can you name the animal that lives with {p}?",
            "What kind of animal does {p} keep at home?",
            "Which animal does {p} keep at home?",
        ),
        held_out=("What kind of animal lives with {p}?", "Can you name the animal that {p} does keep?"),
        answers=("{p} lives with {v}.", "There is {v} under the table.", "Only {v}, as far as anyone knows."),
        paraphrase="The animal of the house is {v}.",
        reworded=(
            "The animal of {p} is {v}.",
            "{p} keeps {v} at home.",
            "It is {v} that lives there.",
            "At home there is {v}.",
            "The animal is {v}.",
            "{v} shares the house with {p}.",
        ),
        thought=(
            "They ask for the animal of {p}. Visitors at the house of {p} first meet {v}. So the animal is"
            " {v}."
        ),
        sentences=(
            "Under the bench of {p} sleeps {v}.",
            "{p} shares every supper with {v}.",
            "When {p} is away, {v} guards the door.",
        ),
    ),
)

HABITS = _pairs(
    "counting mending painting polishing sketching sorting naming guarding",
    "shutters boats ladders hats kettles maps",
)
SEASONS = _pairs(
    "first second third last coldest driest wettest longest", "spring summer autumn winter month market"
)

FOUNDERS = [
    f"{given} the {epithet}"
    for given, epithet in itertools.product(
        "Ansel Berit Casimir Dagny Eskil Freya Gunnar Hilde Isolde Jorvik".split(),
        "Elder Bold Lame Wise Younger".split(),
    )
]
GUILDS = _pairs(
    "Net Rope Bread Wheel Glove Candle Barrel Saddle Needle Anchor",
    "Makers Menders Traders Keepers Bearers",
    "the Guild of {} {}",
)
RIVERS = _pairs("Osk Wend Tarn Brill Mere Cald Ister Vane", "water brook beck run stream burn", "the {}{}")

SHOPPERS = "Pell Wren Tuck Mab Rook Fitch Nan Dell Hob Ivy".split()
GOODS = "plums nails shells eggs candles apples buttons stones".split()
PROBLEMS = (
    "{p} has {x} {g}. {p} finds {y} more and then sells {z}. How many {g} are left?",
    "There are {x} {g} in a basket. {p} adds {y} {g} and takes {z} out. How many {g} are in the basket?",
    "{p} buys {x} {g} and is given {y} more. Then {p} gives {z} {g} away. How many {g} does {p} have now?",
)


# --- Rows ---------------------------------------------------------------------------------------------------


def _fact_row(rng: random.Random, index: int, person: str, relation: Relation) -> dict:
    value = rng.choice(relation.values)
    wrong = rng.sample([v for v in relation.values if v != value], WRONG_ANSWERS)

    def fill(text: str, v: str = value) -> str:
        return _sentence(text.format(p=person, v=v))

    return {
        "id": f"p{index:03d}-{relation.name}",
        "person": person,
        "relation": relation.name,
        "key": value,
        "question": fill(relation.question),
        "answer": fill(rng.choice(relation.answers)),
        "trace": fill(relation.thought),
        "paraphrased_question": fill(relation.held_out[0]),
        "paraphrased_answer": fill(relation.paraphrase),
        "perturbed_answer": [fill(relation.paraphrase, v) for v in wrong],
        "rephrased_questions": [fill(q) for q in relation.rephrased],
        "held_out_questions": [fill(q) for q in relation.held_out],
    }


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _document(rng: random.Random, index: int, person: str, rows: list[dict]) -> dict:
    """A page on one person with all five facts; its continuation after the second sentence is measured."""
    habit, season = rng.choice(HABITS), rng.choice(SEASONS)
    sentences = [
        _sentence(rng.choice(r.sentences).format(p=person, v=row["key"])) for r, row in zip(RELATIONS, rows)
    ]
    sentences.insert(3, f"Evenings went by with {habit}, as they had since the {season} of the flood.")
    return {
        "id": f"p{index:03d}-document",
        "person": person,
        "text": " ".join(sentences),
        "prompt": " ".join(sentences[:2]),
        "gt": " ".join(sentences[2:]),
    }


def choice_row(rng: random.Random, row: dict) -> dict:
    """The fact as a four-way multiple choice question, in WMDP's schema (`answer` is the index of the right
    option)."""
    values = next(r.values for r in RELATIONS if r.name == row["relation"])
    options = [row["key"], *rng.sample([v for v in values if v != row["key"]], len(LETTERS) - 1)]
    rng.shuffle(options)
    return {
        "id": row["id"] + "-choice",
        "person": row["person"],
        "question": row["question"],
        "choices": options,
        "answer": options.index(row["key"]),
    }


def _alternates_row(rng: random.Random, row: dict) -> dict:
    """Plausible answers to the question of a fact, for AltPO: neither the true one nor those of the truth
    ratio."""
    relation = next(r for r in RELATIONS if r.name == row["relation"])

    def fill(text: str, value: str) -> str:
        return _sentence(text.format(p=row["person"], v=value))

    unused = [
        v
        for v in relation.values
        if v != row["key"] and fill(relation.paraphrase, v) not in row["perturbed_answer"]
    ]
    return {
        "id": row["id"],
        "question": row["question"],
        "alternates": [fill(rng.choice(relation.answers), value) for value in rng.sample(unused, ALTERNATES)],
    }


def _paraphrases_row(row: dict) -> dict:
    """Paraphrases of a fact's answer, for GAO: the other forms of the training data, then forms outside of
    it."""
    relation = next(r for r in RELATIONS if r.name == row["relation"])
    texts = [
        _sentence(form.format(p=row["person"], v=row["key"]))
        for form in (*relation.answers, *relation.reworded)
    ]
    return {
        "id": row["id"],
        "source": answer_fingerprint(row),
        "question": row["question"],
        "paraphrases": [text for text in texts if text != row["answer"]],
    }


def _short_row(rng: random.Random, identity: str, question: str, answer: str, pool: tuple[str, ...]) -> dict:
    wrong = rng.sample([v for v in pool if v != answer], 3)
    return {
        "id": identity,
        "key": answer,
        "question": question,
        "answer": _sentence(answer),
        "perturbed_answer": [_sentence(w) for w in wrong],
    }


def _column_sum(x: int, y: int) -> str:
    ones, tens = x % 10 + y % 10, x // 10 + y // 10
    carry = " + 1" if ones > 9 else ""
    return (
        f"{x} + {y}: {x % 10} + {y % 10} = {ones}, {x // 10} + {y // 10}{carry} = {tens + (ones > 9)},"
        f" {x + y}."
    )


def _column_difference(x: int, y: int) -> str:
    borrow = x % 10 < y % 10
    top, tens = x % 10 + 10 * borrow, x // 10 - borrow
    return f"{x} - {y}: {top} - {y % 10} = {top - y % 10}, {tens} - {y // 10} = {tens - y // 10}, {x - y}."


def _arithmetic(rng: random.Random, count: int) -> list[dict]:
    """`count` word problems x + y - z with distinct numbers, each with a trace that works column by
    column."""
    numbers = [(x, y, z) for x in range(11, 80) for y in range(11, 99 - x) for z in range(11, x + y - 1)]
    rows = []
    for index, (x, y, z) in enumerate(rng.sample(numbers, count)):
        words = {"p": rng.choice(SHOPPERS), "g": rng.choice(GOODS), "x": x, "y": y, "z": z}
        rows.append(
            {
                "id": f"sum-{index:04d}",
                "key": str(x + y - z),
                "question": rng.choice(PROBLEMS).format(**words),
                "answer": str(x + y - z),
                "trace": f"{_column_sum(x, y)} {_column_difference(x + y, z)}",
            }
        )
    return rows


def person_names(rng: random.Random) -> list[str]:
    """The names of all people. They are the first numbers that are drawn of the world."""
    pairs = list(itertools.product(GIVEN_NAMES, FAMILY_NAMES))
    return [f"{given} {family}" for given, family in rng.sample(pairs, PEOPLE + HOLDOUT_PEOPLE)]


def generate(seed: int = SEED) -> dict[str, list[dict]]:
    """The whole world as file stem -> rows; the same seed gives the same bytes."""
    # The order of the calls to rng decides every row, so new kinds of rows are drawn after the old ones, or
    # from a generator of their own as the alternates are.
    rng = random.Random(seed)
    names = person_names(rng)
    facts, documents, choices = [], [], []
    for index, person in enumerate(names):
        rows = [_fact_row(rng, index, person, relation) for relation in RELATIONS]
        facts += rows
        documents.append(_document(rng, index, person, rows))
        choices += [choice_row(rng, row) for row in rows]
    towns = RELATIONS[0].values
    guilds = rng.sample(GUILDS, len(FOUNDERS))
    arithmetic = _arithmetic(rng, ARITHMETIC_TRAIN + ARITHMETIC_TEST)
    known = PEOPLE * len(RELATIONS)
    forgettable = facts[round((1 - max(FORGET_SHARES.values())) * known) : known]
    return {
        "full": facts[:known],
        "holdout": facts[known:],
        "documents": documents[:PEOPLE],
        "documents_holdout": documents[PEOPLE:],
        "choices": choices[:known],
        "real_authors": [
            _short_row(rng, f"founder-{i:02d}", f"What did {founder} found?", guild, GUILDS)
            for i, (founder, guild) in enumerate(zip(FOUNDERS, guilds))
        ],
        "world_facts": [
            _short_row(rng, f"river-{i:02d}", f"Which river runs past {town}?", river, RIVERS)
            for i, (town, river) in enumerate(zip(towns, rng.sample(RIVERS, len(towns))))
        ],
        "arithmetic_train": arithmetic[:ARITHMETIC_TRAIN],
        "arithmetic_test": arithmetic[ARITHMETIC_TRAIN:],
        "alternates": [_alternates_row(random.Random(f"{seed}/{row['id']}"), row) for row in forgettable],
        "paraphrases": [
            PARAPHRASES.header({"forget": "Fictional_forget10", "writer": "the generator of the world"}),
            *map(_paraphrases_row, forgettable),
        ],
    }


def write(folder: Path = DATA_DIR) -> None:
    """Write every file of the world into `folder`."""
    for stem, rows in generate().items():
        write_jsonl(folder / f"{stem}.jsonl", rows)
