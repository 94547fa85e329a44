"""The commands that made the models of the package, as the how-to page has them, in small.

Always on generated data, at a few steps. `ILLADA_DATA=FOLDER pytest tests/docs/test_training_commands.py` runs them on
the real data, laid out as the page says, at a fiftieth of the steps.
"""

import gzip
import json
import os
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from illada.checkpoint.native import find_checkpoint
from illada.recipes.pretraining import PRETRAINING

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "train-illada-tiny.md"
BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MEASURING = {
    "pretrain": ("--held-out.rows", "4", "--held-out.samples", "1"),
    "benchmarks/base_bound.py": ("--rows", "2", "--samples", "1"),
    "eval": ("--limit", "2"),
}
"""What the commands that measure are told in addition, lest they take longer than the training."""


def commands():
    """Every command of the page as a list of words, `$DATA` as it stands there."""
    text = "".join(BLOCK.findall(PAGE.read_text(encoding="utf-8"))).replace("\\\n", " ")
    return [shlex.split(line) for line in text.splitlines() if line]


def scaled(command, part):
    """The command at `part` of its steps and of its problems, at least two of each."""
    words = list(command)
    for flag in ("--steps", "--count"):
        if flag in words:
            place = words.index(flag) + 1
            words[place] = str(max(2, round(int(words[place]) * part)))
    if words[:2] == ["illada", "pretrain"]:
        assert "--steps" not in words
        words += ["--steps", str(max(2, round(PRETRAINING[words[2]]().loop.steps * part)))]
    return words + list(MEASURING.get(words[1], ()))


def run_page(data, folder, part):
    """Run the page from its first command to its last, in `folder`.

    Models that are exported are asked for by their path: a bare name is the package's own.
    """
    for command in commands():
        words = [word.replace("$DATA", str(data)) for word in scaled(command, part)]
        if "--model" in words:
            words[words.index("--model") + 1] = f"./{words[words.index('--model') + 1]}"
        program, *rest = words
        prefix = [sys.executable, "-m", "illada"] if program == "illada" else [sys.executable, ROOT / rest.pop(0)]
        done = subprocess.run([*prefix, *rest], cwd=folder, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": "cache"}


def write_data(folder):
    """Books, stories with questions, and word problems, all of made-up words."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 8))) for _ in range(3000)]

    def prose(count):
        return " ".join(draw.choices(words, k=count)).capitalize() + "."

    stories = [{"story": f"tale {n}", "sections": [prose(60), prose(60)]} for n in range(30)]
    questions = [
        {"story": f"tale {n}", "cor_section": "1,2", "question": f"{prose(5)[:-1]}?", "answer1": prose(3)}
        for n in range(30)
        for _ in range(3)
    ]
    problems = [{"question": prose(20), "answer": f"<<1+1=2>>{prose(10)}\n#### {n}"} for n in range(60)]
    files = {
        "children_train.jsonl.gz": [{"text": prose(3000)} for _ in range(12)],
        "children_valid.jsonl.gz": [{"text": prose(3000)} for _ in range(2)],
        "fairytaleqa/stories_train.jsonl": stories,
        "fairytaleqa/qa_train.jsonl": questions,
        "gsm8k/train.jsonl": problems,
    }
    for name, rows in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def check_models(folder):
    for name in ("tiny", "tiny-instruct"):
        made = json.loads((folder / name / "manifest.json").read_text())
        shipped = json.loads((find_checkpoint(Path(name)) / "manifest.json").read_text())
        assert made["format"] == shipped["format"]
        assert set(made["files"]) == set(shipped["files"])


def test_the_page_has_the_commands_that_make_both_models():
    exported = [words[words.index("--out") + 1] for words in commands() if words[:2] == ["illada", "export"]]
    assert exported == ["tiny", "tiny-instruct"]
    folders = [words[words.index("--out") + 1] for words in commands() if words[1] in ("pretrain", "sft")]
    starts = [words[words.index("--from") + 1] for words in commands() if words[1] == "sft"]
    assert starts == folders[:-1], "each run starts from the one before"


def test_a_part_of_the_steps_keeps_the_rest_of_the_command():
    command = ["illada", "sft", "tiny", "--steps", "250", "--out", "x"]
    assert scaled(command, 1 / 50) == ["illada", "sft", "tiny", "--steps", "5", "--out", "x"]


def test_the_commands_of_the_page_work(tmp_path):
    data = tmp_path / "given"
    write_data(data)
    run_page(data, tmp_path, 1 / 1000)
    check_models(tmp_path)


@pytest.mark.skipif("ILLADA_DATA" not in os.environ, reason="ILLADA_DATA names no folder with the real data")
def test_the_commands_of_the_page_work_on_the_real_data_at_a_fiftieth(tmp_path):
    run_page(Path(os.environ["ILLADA_DATA"]).resolve(), tmp_path, 1 / 50)
    check_models(tmp_path)
