"""Exercises: facts told one way, gaps in a text, and answers that are made wrong on purpose."""

import pytest

from illada.compare.lessons import GAP_MARK, Facts, Lessons, Text, asked, exercises, gaps
from illada.data.corpus import CorpusConfig, prepare
from illada.data.skills.registry import items


def test_facts_told_forwards_are_never_told_backwards():
    facts = Facts(both=30, forward=20)
    both, forward = facts.pairs()
    told = facts.told()
    assert (len(both), len(forward), len(told)) == (30, 20, 80)
    assert all(asked(fact, "backward") in told for fact in both)
    assert not any(asked(fact, "backward") in told for fact in forward)
    assert all(asked(fact, "forward") in told for fact in (*both, *forward))


def test_every_name_stands_for_one_thing():
    both, forward = Facts(both=200, forward=100).pairs()
    names = [name for fact in (*both, *forward) for name in fact]
    assert len(set(names)) == len(names) == 600
    assert all(len(name) == 4 for name in names)


def test_skills_give_their_training_problems():
    pairs = exercises(Lessons(skills=("add", "compare"), problems=5, levels=(1,)))
    expected = [item.problem for skill in ("add", "compare") for item in items(skill, "train", 5, levels=(1,))]
    assert pairs == [(problem.prompt, problem.response) for problem in expected]


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_share_of_the_answers_is_that_of_others(share):
    right = exercises(Lessons(skills=("sort",), problems=400))
    wrong = exercises(Lessons(skills=("sort",), problems=400, wrong=share))
    assert [prompt for prompt, _ in right] == [prompt for prompt, _ in wrong]
    changed = sum(one != other for one, other in zip(right, wrong, strict=True)) / 400
    assert changed == pytest.approx(share, abs=0.07)
    assert {answer for _, answer in wrong} <= {answer for _, answer in right}


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Text:
    folder = tmp_path_factory.mktemp("text")
    (folder / "a.txt").write_text("\n".join(f"line {n}: the cat sat on mat {n * n}" for n in range(900)))
    config = CorpusConfig(sources=(str(folder / "a.txt"),), vocab_size=300, workers=1)
    corpus = prepare(config, folder / "cache")
    return Text(shards=corpus.train[0][0], tokenizer=corpus.tokenizer)


def test_gaps_are_pieces_of_the_text(text):
    lessons = Lessons(gaps=40, gap=3, context=8)
    whole = text.tokenizer.decode(text.shards.read(0, len(text.shards)).tolist())
    found = list(gaps(lessons, text, count=40))
    assert len(found) == 40
    for gap in found:
        assert f"{gap.before}{gap.missing}{gap.after}" in whole
        assert gap.missing == gap.missing.strip() != ""
        assert gap.exercise == (f"{gap.before}{GAP_MARK}{gap.after}", gap.missing)
    assert exercises(lessons, text) == [gap.exercise for gap in found]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Lessons(), "nothing to learn"),
        (lambda: Lessons(skills=("add",)), "nothing to learn"),
        (lambda: Lessons(skills=("ad",), problems=3), "no skill is called 'ad'"),
        (lambda: Lessons(facts=Facts(both=1), wrong=2.0), "between 0 and 1, got 2.0"),
        (lambda: exercises(Lessons(gaps=2)), "no text to make them in"),
    ],
)
def test_lessons_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
