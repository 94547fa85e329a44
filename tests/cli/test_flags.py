"""What is wrong with a flag, in one line, whatever the terminal can draw."""

from dataclasses import dataclass

import pytest

from illada.cli.flags import parse


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Some flags."""

    count: int = 1
    name: str = "a"

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count must be at least 1, got {self.count}; there are: {', '.join(['things'] * 30)}")


@pytest.mark.parametrize("columns", ["40", "80", "200"])
@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        (["--count", "0"], "count must be at least 1, got 0; there are: things, things"),
        (["--count", "many"], "Error parsing --count: "),
        (["--nonsense", "1"], "Unrecognized options: --nonsense"),
    ],
)
def test_the_message_is_the_first_thing_and_no_frame_is_left(columns, arguments, start, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(ValueError, match=r"; illada try --help lists the flags$") as caught:
        parse(Flags, arguments, command="try")
    said = str(caught.value)
    assert said.startswith(start)
    assert not set("│╭╮╰╯─+|") & set(said)
    assert "----" not in said


def test_values_are_read():
    assert parse(Flags, ["--count", "3"], command="try") == Flags(count=3)
    assert parse(Flags, [], command="try", default=Flags(name="b")) == Flags(name="b")
