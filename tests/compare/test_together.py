"""A study by all processes of a job: the numbers of one process, and a death on the way."""

import json
import math
import time
from pathlib import Path

import pytest

from illada.compare.conduct import conduct
from illada.compare.folder import REPORT, RESULTS, write_study
from illada.compare.run import PLAN, RESULT, SECONDS, Pool
from illada.compare.summary import summarize

from .conftest import study_with_text

PROGRAM = Path(__file__).parent / "programs" / "together.py"


@pytest.fixture
def two(small_text, job, tmp_path):
    """Start the study by two processes, as from the command line."""

    def start(*flags, rows=8):
        where = ["--device", "cpu", "--pool", tmp_path / "pool", "--out", tmp_path]
        return job([small_text, rows, *where, *flags], tmp_path / "logs", size=2, program=PROGRAM)

    return start


@pytest.fixture
def logs(tmp_path):
    """What each of them has said."""
    return lambda: [(tmp_path / "logs" / str(rank)).read_text() for rank in (0, 1)]


def by_one(text: Path, folder: Path) -> None:
    pool = Pool(path=folder / "pool")
    conducted = conduct(study_with_text(text), pool, device="cpu")
    write_study(folder, summarize(conducted), conducted, pool, command="illada compare small")


@pytest.fixture(scope="module")
def of_one(small_text, tmp_path_factory) -> Path:
    """The study by one process."""
    folder = tmp_path_factory.mktemp("one")
    by_one(small_text, folder)
    return folder


def assert_close(got, expected, place=""):
    """The same, but for rounding in what was measured of likelihoods; answers may then be others."""
    if isinstance(expected, dict):
        assert got.keys() == expected.keys(), place
        for name, value in expected.items():
            if name.startswith(("exact", "forwards", "positions", "mflops")):
                continue
            assert_close(got[name], value, f"{place}/{name}")
    elif isinstance(expected, list):
        assert len(got) == len(expected), place
        for number, value in enumerate(expected):
            assert_close(got[number], value, f"{place}/{number}")
    elif isinstance(expected, float):
        assert math.isclose(got, expected, abs_tol=1e-4), (place, got, expected)
    else:
        assert got == expected, place


def assert_same_study(folder: Path, of_one: Path):
    """Every run is there, and came to what it came to in one process; and so is the report."""
    runs = {path.parent.name: json.loads(path.read_text()) for path in of_one.glob(f"pool/runs/*/{RESULT}")}
    assert len(runs) == 6
    for key, expected in runs.items():
        run = folder / "pool" / "runs" / key
        assert_close(json.loads((run / RESULT).read_text()), expected, key)
        assert (run / PLAN).read_bytes() == (of_one / "pool" / "runs" / key / PLAN).read_bytes()
        assert json.loads((run / SECONDS).read_text())["whole"] > 0
    got, expected = (json.loads((root / RESULTS).read_text()) for root in (folder, of_one))
    assert [arm["rate"] for arm in got["arms"]] == [arm["rate"] for arm in expected["arms"]]
    assert_close(got["runs"], expected["runs"])
    assert got["claims"][0]["sentence"] in (folder / REPORT).read_text().replace("&#x27;", "'")


def last_checkpoints(folder: Path) -> list[Path]:
    """Of all stages of all runs."""
    stages = [*folder.glob("pool/texts/*/checkpoints"), *folder.glob("pool/runs/*/lessons/checkpoints")]
    return [max(stage.glob("step_*")) for stage in stages]


def parts(checkpoint: Path) -> int:
    """The processes that wrote it."""
    return max(1, len(list(checkpoint.glob("model-*-of-*"))))


def test_two_processes_come_to_what_one_comes_to(two, logs, of_one, finish, tmp_path):
    assert finish(two()) == [0, 0], logs()
    assert_same_study(tmp_path, of_one)
    assert {parts(one) for one in last_checkpoints(tmp_path)} == {2}
    assert {parts(one) for one in last_checkpoints(of_one)} == {1}
    # one speaks for both
    first, second = logs()
    assert [line.split(":")[0] for line in first.splitlines()[:2]] == ["1 of 2 runs", "2 of 2 runs"]
    assert first.splitlines()[-1] == str(tmp_path / REPORT)
    assert second == ""


def test_killed_under_two_it_goes_on_under_one(two, logs, small_text, of_one, finish, tmp_path):
    # of a run at its half; those of the sweep are shorter
    halfway = "pool/runs/*/lessons/checkpoints/step_00000004/manifest.json"
    started = two()
    deadline = time.monotonic() + 120
    while not (found := list(tmp_path.glob(halfway))):
        assert all(process.is_alive() for process in started), logs()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    started[1].kill()
    assert finish(started)[0] == 1
    said = logs()[0].splitlines()[-1]
    assert said.startswith("illada: process 0: another process of the job has gone: the same command goes on")
    assert not (tmp_path / REPORT).exists()
    before = {path: path.stat().st_mtime_ns for path in found}
    by_one(small_text, tmp_path)
    # what was trained together was gone on with, and not begun again
    assert {path: path.stat().st_mtime_ns for path in found} == before
    assert {parts(path.parent) for path in found} == {2}
    assert_same_study(tmp_path, of_one)


@pytest.mark.parametrize(
    ("rows", "flags", "message"),
    [
        (8, ["--jobs", "2"], "all 2 processes of torchrun train one run after the other: leave jobs at 1, got 2"),
        (7, [], "a step of 7 rows (batch_size) does not divide among 2 processes"),
    ],
)
def test_what_two_cannot_share_is_refused_once(rows, flags, message, two, logs, finish, tmp_path):
    assert finish(two(*flags, rows=rows)) == [2, 2], logs()
    first, second = logs()
    assert message in first
    assert first.count("\n") == 1
    assert second == ""
    assert not (tmp_path / "pool").exists()
