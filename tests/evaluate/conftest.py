"""Lines of evaluations."""

import pytest

from illada.evaluate.summary import AnswerLine


def make_line(number, *, task="gsm8k", correct=True, group="", extracted="4", **changes):
    values = {
        "task": task,
        "id": str(number),
        "group": group,
        "prompt": "2 + 2?",
        "output": "4",
        "extracted": extracted,
        "reference": "4",
        "correct": correct,
        "note": "",
        "forwards": number,
        "positions": 10 * number,
        "tokens": 2 * number,
        "scores": (),
        "seconds": 0.5,
    }
    return AnswerLine(**{**values, **changes})


@pytest.fixture
def line():
    """Makes one: number, and what is to be different."""
    return make_line
