"""The README's figures are those of the result files, and its commands are those of the program."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from illada.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_results_is_what_the_result_files_say():
    check = [sys.executable, str(ROOT / "benchmarks" / "readme.py"), "--check"]
    assert subprocess.run(check, check=False).returncode == 0, "run python benchmarks/readme.py"


def test_every_command_shown_is_one_of_the_program():
    shown = set(re.findall(r"^illada (\w+)", README, re.MULTILINE))
    assert shown
    assert shown <= COMMANDS.keys()


def test_every_make_target_shown_is_in_the_makefile():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make (\w+)", README)) <= targets


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:tests|benchmarks|docs|src)/[\w./-]+)`", README))))
def test_every_path_named_exists(path):
    assert (ROOT / path).exists()
