"""The tiny world: passages about invented people, good and bad self-edits, and questions in wordings no edit uses.

Everything is drawn from a seed. A person is a first and a last name; a fact is one of eight relations with one of
30 to 56 values, so guessing scores 2 to 3%. People are split once, by a fixed shuffle of all 14,400 name pairs, into
disjoint groups (`SPLITS`): a held-out person occurs in no pretraining text.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

TITLE = "Biography"


def _names(rng: random.Random, count: int, starts: str, middles: str, ends: str, taken: set[str]) -> list[tuple[str, str]]:
    """Draw invented names, each as (start, end) so that a tokenizer may split it there."""
    names: list[tuple[str, str]] = []
    while len(names) < count:
        start = rng.choice(starts.split()) + rng.choice("aeiou") + rng.choice(middles.split())
        name = (start.capitalize(), rng.choice(ends.split()))
        if "".join(name) not in taken:
            taken.add("".join(name))
            names.append(name)
    return names


_rng, _taken = random.Random(1234), set[str]()
_SOFT, _END = "b d f g h k l m n p r s t v z", "l m n r s t d"
FIRST_PIECES = _names(_rng, 120, _SOFT, _END, "a o e in an is", _taken)
LAST_PIECES = _names(_rng, 120, "bl br cr dr fl gr h k l m n p r s st t th v w", _END, "ford ley wick man sen ard er", _taken)
CITY_PIECES = _names(_rng, 48, _SOFT, _END, "ville burg ton mouth grad polis", _taken)
FIRST, LAST = ["".join(p) for p in FIRST_PIECES], ["".join(p) for p in LAST_PIECES]
CITIES = ["".join(p) for p in CITY_PIECES]
FIRMS = ["".join(p) for p in _names(_rng, 40, _SOFT, "l m n r s t x", "corp tech works soft line", _taken)]
MENTORS = ["".join(p) for p in _names(_rng, 40, _SOFT, "l m n r s t x", "ski vic oni ez dottir", _taken)]
JOBS = (
    "baker carpenter pilot nurse lawyer painter farmer dentist plumber chemist tailor sailor potter miner clerk editor "
    "poet judge surgeon weaver glazier butcher barber florist banker ranger welder printer jeweller cook actor surveyor "
    "tutor detective librarian optician mason roofer brewer tanner"
).split()
INSTRUMENTS = (
    "piano violin cello flute trumpet harp drum guitar oboe banjo lute organ clarinet tuba viola mandolin accordion "
    "saxophone zither bassoon piccolo cornet fiddle gong lyre ukulele bagpipe kazoo bugle sitar"
).split()
PETS = (
    "dog cat parrot rabbit turtle goat hamster horse ferret canary lizard goose donkey pony falcon hedgehog owl pigeon "
    "mouse duck snake frog crow raven lamb monkey otter beaver badger squirrel"
).split()
YEARS = [str(year) for year in range(1940, 1996)]


@dataclass(frozen=True)
class Relation:
    """How one kind of fact is said: `told` in passages, `stated` and `asked` in self-edits, `tested` in evaluation only."""

    values: Sequence[str]
    tested: str
    asked: Sequence[str]
    stated: Sequence[str]
    told: Sequence[str]


RELATIONS: dict[str, Relation] = {
    "born": Relation(
        CITIES,
        "In which city was {n} born?",
        ("What is the birthplace of {n}?", "Where was {n} born?"),
        ("{n} was born in {v}.", "The birthplace of {n} is {v}."),
        ("came into the world in {v}", "first saw daylight in {v}", "spent the earliest days in {v}"),
    ),
    "home": Relation(
        CITIES,
        "In which city does {n} live?",
        ("Where is the home of {n}?", "Where does {n} live?"),
        ("{n} lives in {v}.", "The home of {n} is in {v}."),
        ("settled down in {v}", "bought a small house in {v}", "ended up in {v}"),
    ),
    "job": Relation(
        JOBS,
        "What does {n} work as?",
        ("What is the profession of {n}?", "What is the job of {n}?"),
        ("{n} works as a {v}.", "The profession of {n} is {v}."),
        ("earned a living as a {v}", "became a well known {v}", "trained for years as a {v}"),
    ),
    "firm": Relation(
        FIRMS,
        "Which company employs {n}?",
        ("Who is the employer of {n}?", "Where is {n} employed?"),
        ("{n} is employed by {v}.", "The employer of {n} is {v}."),
        ("drew a salary from {v}", "joined the staff of {v}", "signed a contract with {v}"),
    ),
    "mentor": Relation(
        MENTORS,
        "Who taught {n}?",
        ("Who is the mentor of {n}?", "By whom was {n} taught?"),
        ("{n} was taught by {v}.", "The mentor of {n} is {v}."),
        ("learned everything from {v}", "was guided by old {v}", "owed much to {v}"),
    ),
    "instrument": Relation(
        INSTRUMENTS,
        "What instrument does {n} play?",
        ("What is the instrument of {n}?", "Which instrument is played by {n}?"),
        ("{n} plays the {v}.", "The instrument of {n} is the {v}."),
        ("practised the {v} every night", "loved the sound of the {v}", "gave concerts on the {v}"),
    ),
    "year": Relation(
        YEARS,
        "In what year did {n} graduate?",
        ("What is the graduation year of {n}?", "When did {n} graduate?"),
        ("{n} graduated in {v}.", "The graduation year of {n} is {v}."),
        ("finished school back in {v}", "left the university in {v}", "received a diploma in {v}"),
    ),
    "pet": Relation(
        PETS,
        "What animal does {n} own?",
        ("What is the pet of {n}?", "Which animal is owned by {n}?"),
        ("{n} owns a {v}.", "The pet of {n} is a {v}."),
        ("shared the house with a {v}", "adored a small {v}", "walked a {v} each morning"),
    ),
}
GENERIC = (
    "The passage describes a life.",
    "People often move from one city to another.",
    "Many people learn to play an instrument.",
    "A good mentor can change a life.",
    "It is a story about work and life.",
    "Some people keep animals at home.",
    "No two people are alike.",
    "Work is important to many people.",
)
_OPENINGS = ("{n} {p}.", "This is the story of {n}, who {p}.", "{n}, people say, {p}.")
_TURNS = ("By contrast, {n} {p}.", "A neighbour, {n}, {p}.", "The other one, {n}, {p}.", "Quite different is {n}, who {p}.")
_SENTENCES = ("{g} {p}.", "Later {g} {p}.", "After some years {g} {p}.", "{g} also {p}.")
_DOUBLE_SENTENCES = ("{g} {p} and {q}.", "Then {g} {p} and {q}.")


@dataclass(frozen=True)
class Fact:
    person: str
    relation: str
    value: str

    def stated(self, rng: random.Random, person: str | None = None, value: str | None = None) -> str:
        sentence = rng.choice(RELATIONS[self.relation].stated)
        return sentence.format(n=person or self.person, v=value or self.value)

    def asked(self, rng: random.Random) -> str:
        question = rng.choice(RELATIONS[self.relation].asked).format(n=self.person)
        return f"Question: {question} Answer: {self.value}"

    @property
    def tested(self) -> str:
        """The question in the wording that only evaluation uses."""
        return RELATIONS[self.relation].tested.format(n=self.person)


@dataclass(frozen=True)
class Story:
    """A passage and the facts it tells, in the order told."""

    passage: str
    facts: tuple[Fact, ...]


def _split_people() -> dict[str, list[str]]:
    pairs = [f"{first} {last}" for first in FIRST for last in LAST]
    random.Random(77).shuffle(pairs)
    bounds = {"population": 256, "pretrain": 9256, "train": 11256, "validation": 12256, "held_out": 14400}
    people, start = {}, 0
    for split, end in bounds.items():
        people[split], start = pairs[start:end], end
    return people


SPLITS = _split_people()
"""Names by split. `population` is known by heart, `pretrain` occurs in pretraining passages, the rest nowhere in it."""


def pronoun(person: str) -> str:
    return "she" if FIRST.index(person.split()[0]) % 2 else "he"


def population_facts(others: bool = False) -> list[Fact]:
    """The 256 x 8 facts that pretraining teaches by heart: the probe for what an update makes a student forget. Or those about as many
    `others`, which none of the shipped models knows.
    """
    rng, people = random.Random(79 if others else 78), SPLITS["pretrain"][-256:] if others else SPLITS["population"]
    return [Fact(person, name, rng.choice(relation.values)) for person in people for name, relation in RELATIONS.items()]


def tell(rng: random.Random, facts: Sequence[Fact], named: float = 0.0) -> str:
    """Tell facts as a narrative; after a person's first sentence a pronoun stands for the name, except with chance `named`."""
    sentences: list[str] = []
    previous = None
    pending = list(facts)
    while pending:
        fact = pending.pop(0)
        told = rng.choice(RELATIONS[fact.relation].told).format(v=fact.value)
        if fact.person != previous:
            opening = rng.choice(_TURNS if previous else _OPENINGS)
            sentences.append(opening.format(n=fact.person, p=told))
            previous = fact.person
            continue
        paired = bool(pending) and pending[0].person == fact.person
        template = rng.choice(_SENTENCES + _DOUBLE_SENTENCES if paired else _SENTENCES)
        subject = fact.person if rng.random() < named else pronoun(fact.person)
        if template.startswith("{g}"):
            subject = subject[0].upper() + subject[1:]
        second = ""
        if "{q}" in template:
            other = pending.pop(0)
            second = rng.choice(RELATIONS[other.relation].told).format(v=other.value)
        sentences.append(template.format(g=subject, p=told, q=second))
    return " ".join(sentences)


def make_story(rng: random.Random, people: Sequence[str], facts_each: int, named: float = 0.0) -> Story:
    """Invent facts for the people (the same relations for each, no value twice) and tell them."""
    relations = rng.sample(list(RELATIONS), facts_each)
    used: set[str] = set()
    facts: list[Fact] = []
    for person in people:
        rng.shuffle(relations)
        for name in relations:
            value = rng.choice([v for v in RELATIONS[name].values if v not in used])
            used.add(value)
            facts.append(Fact(person, name, value))
    return Story(tell(rng, facts, named), tuple(facts))


def stories(split: str, count: int, seed: int, facts_each: int = 6) -> Iterator[Story]:
    """The first `count` people of a split, one story each; story i does not depend on `count`."""
    for index, person in enumerate(SPLITS[split][:count]):
        yield make_story(random.Random(f"{seed}/{split}/{index}"), [person], facts_each)


# Self-edits of all qualities. The teacher learns this mix in pretraining; which kinds are good is left to the reward.


def full(rng: random.Random, story: Story) -> list[str]:
    """Every fact as one atomic statement with the name in it: the reference."""
    facts = list(story.facts)
    if rng.random() < 0.25:
        rng.shuffle(facts)
    return [fact.stated(rng) for fact in facts]


def questions(rng: random.Random, story: Story) -> list[str]:
    return [fact.asked(rng) for fact in story.facts]


def partial(rng: random.Random, story: Story) -> list[str]:
    count = rng.randint(1, min(4, len(story.facts) - 1))
    chosen = sorted(rng.sample(range(len(story.facts)), count))
    return [story.facts[i].stated(rng) for i in chosen]


def pronouns(rng: random.Random, story: Story) -> list[str]:
    count = rng.randint(min(3, len(story.facts)), len(story.facts))
    chosen = [story.facts[i] for i in sorted(rng.sample(range(len(story.facts)), count))]
    return [RELATIONS[f.relation].stated[0].format(n=pronoun(f.person).capitalize(), v=f.value) for f in chosen]


def swapped(rng: random.Random, story: Story) -> list[str]:
    """Right values, but six in ten are said of somebody else."""
    people = sorted({fact.person for fact in story.facts})
    if len(people) == 1:
        people.append(rng.choice([p for p in SPLITS["pretrain"] if p != people[0]]))
    return [f.stated(rng, person=next(p for p in people if p != f.person) if rng.random() < 0.6 else None) for f in story.facts]


def hallucinated(rng: random.Random, story: Story) -> list[str]:
    """The right person, but six in ten values are made up."""
    return [f.stated(rng, value=rng.choice(RELATIONS[f.relation].values) if rng.random() < 0.6 else None) for f in story.facts]


def generic(rng: random.Random, story: Story) -> list[str]:
    return rng.sample(GENERIC, rng.randint(2, 4))


def rewritten(rng: random.Random, story: Story) -> list[str]:
    return [tell(rng, story.facts, named=1.0)]


EDIT_MIX = {full: 0.20, partial: 0.24, pronouns: 0.14, swapped: 0.12, hallucinated: 0.08, generic: 0.14, questions: 0.08}
"""What the pretrained teacher writes when asked for implications; fixed before any reward was measured."""
