import io
import re

import pytest
from rich.console import Console

from illada.track.console import ProgressBar, summarize

TRAIN = {
    "train/loss_nats_per_token": 2.34567,
    "train/tokens_per_second": 12_345.6,
    "train/mfu": 0.4149,
    "train/learning_rate": 1e-4,
}
HELD_OUT = {"held_out/bits_per_byte": 1.98765}

# --- the numbers beside the bar -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metrics", "text"),
    [
        ({}, ""),
        ({"train/learning_rate": 1.0}, ""),
        ({"train/loss_nats_per_token": 0.0}, "loss 0.000 nats/token"),
        (HELD_OUT, "held out 1.988 bits/byte"),
        (TRAIN, "loss 2.346 nats/token · 12,346 tokens/s · MFU 41%"),
        (TRAIN | HELD_OUT, "loss 2.346 nats/token · held out 1.988 bits/byte · 12,346 tokens/s · MFU 41%"),
    ],
)
def test_the_summary_names_units(metrics, text):
    assert summarize(metrics) == text


# --- without a terminal -------------------------------------------------------------------------------------------


def printed(readings: list[tuple[int, dict[str, float]]], *, total: int, title: str = "tiny") -> list[str]:
    """The lines on an output that is no terminal."""
    output = io.StringIO()
    console = Console(file=output, force_terminal=False, width=200)
    with ProgressBar(console, title=title, total_steps=total) as bar:
        for step, metrics in readings:
            bar.advance(step)
            bar.log(step, metrics)
        bar.close()
    return output.getvalue().splitlines()


def test_plain_lines_hold_loss_and_speed():
    lines = printed([(50, TRAIN)], total=100)
    assert lines == ["tiny 50/100 loss 2.346 nats/token · 12,346 tokens/s · MFU 41%"]


def test_there_is_a_line_for_every_tenth_of_the_run():
    lines = printed([(step, TRAIN) for step in range(1, 201)], total=200)
    assert [line.split()[1] for line in lines] == ["1/200", *(f"{step}/200" for step in range(20, 201, 20))]


def test_a_short_run_has_a_line_per_reading():
    assert [line.split()[1] for line in printed([(step, TRAIN) for step in range(1, 4)], total=3)] == [
        "1/3",
        "2/3",
        "3/3",
    ]


def test_every_validation_has_a_line():
    readings = [(step, TRAIN | (HELD_OUT if step in (3, 7) else {})) for step in range(1, 10)]
    assert [line.split()[1] for line in printed(readings, total=100)] == ["1/100", "3/100", "7/100"]


def test_the_newest_value_of_every_metric_is_kept():
    lines = printed([(1, HELD_OUT), (50, {"train/loss_nats_per_token": 2.0})], total=100)
    assert lines == [
        "tiny 1/100 held out 1.988 bits/byte",
        "tiny 50/100 loss 2.000 nats/token · held out 1.988 bits/byte",
    ]


def test_moving_the_bar_prints_nothing():
    output = io.StringIO()
    with ProgressBar(Console(file=output, force_terminal=False), title="tiny", total_steps=10) as bar:
        for step in range(10):
            bar.advance(step)
    assert output.getvalue().strip() == ""


def test_a_title_is_printed_as_it_is():
    """Square brackets are markup to rich, and part of a path or a name to us."""
    assert printed([(1, HELD_OUT)], total=1, title="run [bold]1[/]") == ["run [bold]1[/] 1/1 held out 1.988 bits/byte"]


# --- on a terminal ------------------------------------------------------------------------------------------------


def test_a_terminal_gets_a_bar_with_the_numbers():
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=160, _environ={"TERM": "xterm"})
    with ProgressBar(console, title="tiny", total_steps=100) as bar:
        bar.advance(10)
        bar.log(50, TRAIN)
    assert "\x1b[" in output.getvalue()
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.getvalue()).splitlines()[-1]
    assert all(part in last for part in ("tiny", "50/100", "loss 2.346 nats/token", "12,346 tokens/s", "left")), last


def test_the_bar_stops_when_the_run_fails():
    console = Console(file=io.StringIO(), force_terminal=True, width=160)

    def fail() -> None:
        with ProgressBar(console, title="tiny", total_steps=100):
            raise RuntimeError("the run failed")

    with pytest.raises(RuntimeError, match="the run failed"):
        fail()
    with ProgressBar(console, title="next", total_steps=1):  # a console has one live display at a time
        pass
