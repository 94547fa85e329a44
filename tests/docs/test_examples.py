"""The examples run as their first lines say they do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES = "\n".join(f"The {n}th line of a small book says that {n} and {n + 1} make {2 * n + 1}." for n in range(400))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The example's process, run on a generated text, and its run folder."""
    folder = tmp_path_factory.mktemp("example")
    text, out = folder / "book.txt", folder / "run"
    text.write_text(LINES, encoding="utf-8")
    script = ROOT / "examples" / "python_api.py"
    command = [sys.executable, str(script), str(text), "--out", str(out), "--steps", "20"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=_environment(), timeout=120)
    return done, out


def _environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error::UserWarning"}


def test_the_example_ends_well_and_complains_of_nothing(finished):
    done, _ = finished
    assert (done.returncode, done.stderr) == (0, "")


def test_the_example_trains_a_checkpoint_that_lowers_the_bound(finished):
    _, out = finished
    assert (out / "checkpoints" / "step_00000020" / "manifest.json").is_file()
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    bits = [line["held_out/bits_per_byte"] for line in lines if "held_out/bits_per_byte" in line]
    assert len(bits) == 2
    assert bits[1] < bits[0]


def test_the_example_generates_a_batch_and_fills_a_gap(finished):
    done, _ = finished
    starts = [line.split(":")[0] for line in done.stdout.splitlines() if ":" in line]
    assert [start for start in starts if start in {"a short one", "filled in"}] == ["a short one"] * 2 + ["filled in"]
    assert "generated in 32 forwards" in done.stdout
    assert "[MASK]" not in done.stdout


def test_the_example_leaves_nothing_outside_its_folder(finished):
    _, out = finished
    assert sorted(path.name for path in out.parent.iterdir()) == ["book.txt", "run"]


def test_every_example_has_a_test():
    assert sorted(path.name for path in (ROOT / "examples").glob("*.py")) == ["python_api.py"]
