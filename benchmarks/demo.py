"""The demo, as a newcomer runs it: the fall of the held-out bits per byte, the boards solved, the minutes it takes.

python benchmarks/demo.py --out benchmarks/results/demo_cpu2_202611.json
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from rich.table import Table

from card import describe_run, print_card, publish


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How long the demo trains; the defaults are the demo's own."""

    text_minutes: float = 2.5
    sudoku_minutes: float = 1.0
    keep: Path | None = None
    """The run folder, with its report; by default a temporary one."""
    out: Path | None = None
    """Where the result is written."""


def main() -> None:
    settings = tyro.cli(Settings)
    with tempfile.TemporaryDirectory() as scratch:
        folder = settings.keep or Path(scratch) / "demo"
        command = [sys.executable, "-m", "illada", "demo", "--out", str(folder), "--cache", scratch]
        command += ["--text-minutes", str(settings.text_minutes), "--sudoku-minutes", str(settings.sudoku_minutes)]
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=sys.stderr)
        minutes = (time.perf_counter() - began) / 60
        measured = json.loads((folder / "demo.json").read_text())
    fall = 1 - measured["bits_per_byte"] / measured["bits_per_byte_untrained"]
    table = Table("what", "value")
    table.add_row("held-out bits per byte, untrained", f"{measured['bits_per_byte_untrained']:.3f}")
    table.add_row("held-out bits per byte, trained", f"{measured['bits_per_byte']:.3f}")
    table.add_row("fall", f"{fall:.1%}")
    table.add_row("sudoku boards solved", f"{measured['sudoku_solved']} of {measured['sudoku_boards']}")
    table.add_row("minutes, corpus and start included", f"{minutes:.2f}")
    print_card("illada demo", table)
    head = describe_run(
        "demo",
        torch.device("cpu"),
        {"text_minutes": settings.text_minutes, "sudoku_minutes": settings.sudoku_minutes},
    )
    publish(head | {"fall": fall, "wall_minutes": minutes, "measured": measured}, settings.out)


if __name__ == "__main__":
    main()
