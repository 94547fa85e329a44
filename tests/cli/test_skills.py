"""`illada skills`: the rows in the file, and what is refused."""

import json
from collections import Counter

import pytest

from illada.cli import skills as module
from illada.data.skills.registry import SKILLS, items


def rows(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def expected(name, count, **options) -> list[dict]:
    split = options.pop("split", "train")
    return [
        {
            "prompt": item.problem.prompt,
            "response": item.problem.response,
            "skill": item.skill,
            "level": item.level,
        }
        for item in items(name, split, count, **options)
    ]


# --- the file -----------------------------------------------------------------------------------------------------


def test_the_skills_take_turns(tmp_path, illada):
    answer = illada("skills", "--count", 3, "--out", tmp_path / "a.jsonl")
    assert (answer.code, answer.out) == (0, "")
    assert answer.err == f"33 problems of 11 skills in {tmp_path / 'a.jsonl'}\n"
    found = rows(tmp_path / "a.jsonl")
    assert [row["skill"] for row in found] == [*SKILLS] * 3
    for name in SKILLS:
        assert [row for row in found if row["skill"] == name] == expected(name, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_flags_choose_side_seed_levels_and_skills(tmp_path, illada):
    flags = ["--split", "test", "--seed", 5, "--levels", 1, 3, "--skills", "add,sort", "--count", 8]
    assert illada("skills", "--out", tmp_path / "a.jsonl", *flags).code == 0
    found = rows(tmp_path / "a.jsonl")
    assert [row["skill"] for row in found] == ["add", "sort"] * 8
    for name in ("add", "sort"):
        options = {"split": "test", "seed": 5, "levels": (1, 3)}
        assert [row for row in found if row["skill"] == name] == expected(name, 8, **options)


def test_names_with_blanks_between_them_are_those_with_commas(tmp_path, illada):
    for number, names in enumerate((["add", "sort"], ["add,sort"])):
        assert illada("skills", "--out", tmp_path / str(number), "--count", 2, "--skills", *names).code == 0
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()


def test_weights_change_how_many_and_keep_them_spread(tmp_path, illada):
    flags = ["--skills", "add", "sort", "next", "--weights", "add=2", "next=0.25", "--count", 40]
    answer = illada("skills", "--out", tmp_path / "a.jsonl", *flags)
    assert answer.err.startswith("130 problems of 3 skills")
    found = rows(tmp_path / "a.jsonl")
    assert Counter(row["skill"] for row in found) == {"add": 80, "sort": 40, "next": 10}
    for name, count in (("add", 80), ("sort", 40), ("next", 10)):
        assert [row for row in found if row["skill"] == name] == expected(name, count)
    # every tenth of the file is mixed like the whole
    for start in range(0, 130, 13):
        some = Counter(row["skill"] for row in found[start : start + 13])
        assert abs(some["add"] - 8) <= 1
        assert abs(some["sort"] - 4) <= 1
        assert abs(some["next"] - 1) <= 1


def test_a_folder_is_made_for_the_file(tmp_path, illada):
    assert illada("skills", "--out", tmp_path / "new" / "a.jsonl", "--count", 1).code == 0
    assert len(rows(tmp_path / "new" / "a.jsonl")) == 11


def test_progress_is_told_where_there_is_much(tmp_path, illada, monkeypatch):
    monkeypatch.setattr(module, "_SHOWN_EVERY", 10)
    answer = illada("skills", "--out", tmp_path / "a.jsonl", "--count", 20, "--skills", "sort", "add")
    assert [line.strip() for line in answer.err.splitlines()] == [
        "problems 10/40",
        "problems 20/40",
        "problems 30/40",
        "problems 40/40",
        f"40 problems of 2 skills in {tmp_path / 'a.jsonl'}",
    ]


# --- refused ------------------------------------------------------------------------------------------------------


def test_a_file_that_is_there_is_kept_unless_told_otherwise(tmp_path, illada, refusal):
    path = tmp_path / "a.jsonl"
    path.write_text("precious")
    call = ["skills", "--out", path, "--count", 1, "--skills", "sort"]
    assert refusal(*call) == f"{path} is there already: add --overwrite, or choose another file"
    assert path.read_text() == "precious"
    assert illada(*call, "--overwrite").code == 0
    assert len(rows(path)) == 1


def test_what_fails_half_way_leaves_nothing(tmp_path, illada, monkeypatch):
    def broken(item):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_line", broken)
    path = tmp_path / "a.jsonl"
    path.write_text("precious")
    answer = illada("skills", "--out", path, "--count", 1, "--overwrite")
    assert (answer.code, path.read_text()) == (1, "precious")
    assert [one.name for one in tmp_path.iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--skills", "juggle"], "no skill is called 'juggle'; there are: repeat, reverse"),
        (["--skills", "add,add"], "the skill 'add' is named twice"),
        (["--count", 0], "count must be at least 1, got 0"),
        (["--levels", 4], "there is no level 4: choose among 1, 2, 3"),
        (["--split", "dev"], "dev"),
        (["--weights", "juggle=2"], "the weight 'juggle=2' is of no chosen skill"),
        (["--skills", "add", "--weights", "sort=2"], "is of no chosen skill; those are: add"),
        (["--weights", "add=0.001", "--count", 10], "the weight 'add=0.001' leaves 0 of 10 problems"),
        *[
            (["--weights", f"add={factor}"], "a weight has the form NAME=FACTOR with a factor above 0")
            for factor in ("0", "-1", "nan", "inf", "two", "")
        ],
        (["--weights", "add"], "a weight has the form NAME=FACTOR"),
    ],
)
def test_what_cannot_be_written_is_refused(flags, message, tmp_path, refusal):
    assert message in refusal("skills", "--out", tmp_path / "a.jsonl", *flags)
    assert list(tmp_path.iterdir()) == []


def test_a_file_must_be_named(illada):
    answer = illada("skills", "--count", 1)
    assert (answer.code, answer.out) == (2, "")
    assert "--out" in answer.err
