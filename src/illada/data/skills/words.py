"""Skills about letters and names: repeat, reverse, count, look up."""

from dataclasses import dataclass
from string import ascii_lowercase

from illada.data.skills.problem import Draws, ExactSkill, Problem

_LENGTHS = {1: (3, 4), 2: (5, 6), 3: (7, 8)}
"""How many letters, names ... a problem of each level has."""

_LIST = (
    "ann bob cid dan eve fay gus hal ida jim kit lee mia ned ora pam ray sue tom una val wes zoe ben amy joe max roy"
)
_NAMES = tuple(_LIST.split())


@dataclass(frozen=True, kw_only=True)
class Repeat(ExactSkill):
    """Say some letters again: the easiest task that needs the prompt."""

    name: str = "repeat"

    def make(self, draws: Draws, level: int) -> Problem:
        """`Repeat: b q t` -> `b q t`."""
        text = " ".join(draws.sample(ascii_lowercase, draws.between(*_LENGTHS[level])))
        return Problem(key=text, prompt=f"Repeat: {text}", response=text)


@dataclass(frozen=True, kw_only=True)
class Reverse(ExactSkill):
    """Say some letters from the last to the first."""

    name: str = "reverse"

    def make(self, draws: Draws, level: int) -> Problem:
        """`Reverse: b q t` -> `t q b`. A sequence and its reverse are one key."""
        letters = draws.sample(ascii_lowercase, draws.between(*_LENGTHS[level]))
        text, back = " ".join(letters), " ".join(reversed(letters))
        return Problem(key=min(text, back), prompt=f"Reverse: {text}", response=back)


@dataclass(frozen=True, kw_only=True)
class Count(ExactSkill):
    """Count a letter among others."""

    name: str = "count"

    def make(self, draws: Draws, level: int) -> Problem:
        """`Count t in: t b t a` -> `2`. The key is the text with the letter asked for."""
        alphabet = draws.sample(ascii_lowercase, 3)
        letters = [draws.choice(alphabet) for _ in range(draws.between(*{1: (4, 6), 2: (7, 9), 3: (10, 12)}[level]))]
        text = " ".join(letters)
        asked = alphabet[0]
        return Problem(key=f"{asked}/{text}", prompt=f"Count {asked} in: {text}", response=str(letters.count(asked)))


@dataclass(frozen=True, kw_only=True)
class Lookup(ExactSkill):
    """Find a name in a list and say its number."""

    name: str = "lookup"

    def make(self, draws: Draws, level: int) -> Problem:
        """`ann 52, bob 17, cid 33. What number has bob?` -> `17`."""
        names = draws.sample(_NAMES, draws.between(*_LENGTHS[level]))
        numbers = [draws.between(10, 99) for _ in names]
        asked = draws.below(len(names))
        table = ", ".join(f"{name} {number}" for name, number in zip(names, numbers, strict=True))
        prompt = f"{table}. What number has {names[asked]}?"
        return Problem(key=prompt, prompt=prompt, response=str(numbers[asked]))
