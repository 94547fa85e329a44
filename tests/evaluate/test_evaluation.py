"""A whole evaluation with models whose answers are known: what is asked, judged, kept, and gone on with."""

import json
from dataclasses import replace

import pytest

from illada.evaluate import run
from illada.evaluate.evaluation import evaluate, questions_digest
from illada.evaluate.fitting import Room
from illada.evaluate.folder import read_answers
from illada.evaluate.run import Prepared, check_code, prepare
from illada.evaluate.sandbox import Limits, launcher
from illada.evaluate.scoring import CandidateScore, ScoringParams
from illada.evaluate.suites import SUITES, Asking
from illada.evaluate.task import Question, Shot, Verdict
from illada.evaluate.tasks.registry import TASKS
from illada.sample.request import Completion, SamplingParams

ROOM = Room(context=10_000, encode=lambda text: [ord(c) for c in text], decode=lambda ids: "".join(map(chr, ids)))
SETTINGS = {"model": "a table", "run": {"command": "illada eval"}}


class Numbers:
    """Asks for numbers; the answer to number n is n."""

    name, hub = "numbers", ()

    def __init__(self, kind="text", count=10):
        self.kind = kind
        self.count = count

    def local_rows(self, folder):
        return ({"n": n} for n in range(self.count))

    def hub_row(self, row):
        return row

    def questions(self, rows, folder, shots):
        for row in rows:
            yield Question(
                id=str(row["n"]),
                ask=f"number {row['n']}:",
                shots=tuple(Shot(ask=f"number {n}:", answer=f" {n}") for n in range(shots or 0)),
                candidates=tuple(f" {row['n'] + k}" for k in range(3)) if self.kind == "choice" else (),
                gold=0,
                reference=str(row["n"]),
                stop=("!",) if row["n"] % 2 else ("?",),
                group="odd" if row["n"] % 2 else "even",
            )

    def judge(self, question, answer):
        return Verdict(correct=answer.strip() == question.reference, extracted=answer.strip() or None, note="judged")

    def program(self, question, answer):
        return f"assert {answer} == {question.reference}"


class Table:
    """Answers with the last number of a prompt, and likes the candidate that is it; remembers what it was asked."""

    def __init__(self, wrong=()):
        self.wrong = wrong
        self.calls = []

    def _say(self, prompt):
        number = prompt.rpartition("number ")[2].rstrip(":")
        return "-1" if int(number) in self.wrong else number

    def generate(self, prompts, params):
        self.calls.append(("generate", prompts, params))
        return [completion(f" {self._say(prompt)}") for prompt in prompts]

    def chat(self, conversations, params):
        self.calls.append(("chat", conversations, params))
        return [completion(self._say(turns[-1].content)) for turns in conversations]

    def score(self, prompts, candidates, params):
        self.calls.append(("score", prompts, params))
        return [
            [score(0.0 if text.strip() == self._say(prompt) else -5.0 - len(text)) for text in few]
            for prompt, few in zip(prompts, candidates, strict=True)
        ]

    def score_chat(self, conversations, candidates, params):
        self.calls.append(("score_chat", conversations, params))
        assert not [text for few in candidates for text in few if text != text.strip()]
        return [
            [score(0.0 if text == self._say(turns[-1].content) else -5.0) for text in few]
            for turns, few in zip(conversations, candidates, strict=True)
        ]


def completion(text):
    return Completion(
        text=text,
        tokens=(1, 2),
        finish_reason="stop",
        prompt_tokens=3,
        forwards=7,
        positions=70,
        seconds=1.0,
        revealed_at=(1, 2),
    )


def score(value):
    return CandidateScore(
        log_probability=value,
        standard_error=0.0,
        tokens=1,
        bytes=2,
        order=(),
        terms=(),
        greedy=None,
        forwards=1,
        positions=5,
    )


def prepared(kind="text", count=10, **asking):
    return prepare(Numbers(kind, count), Asking(task="numbers", **asking), data=None, limit=None)


def evaluated(model, *tasks, **options):
    return evaluate(model, tasks, settings=SETTINGS, room=ROOM, **options)


# --- asking -------------------------------------------------------------------------------------------------------


def test_written_answers_are_judged_and_kept():
    found = evaluated(Table(wrong={3}), prepared())
    assert [line.correct for line in found.lines] == [n != 3 for n in range(10)]
    line = found.lines[3]
    assert (line.output, line.extracted, line.reference, line.note) == (" -1", "-1", "3", "judged")
    assert (line.forwards, line.positions, line.tokens, line.group) == (7, 70, 2, "odd")
    [summary] = found.summaries
    assert (summary.whole.correct, summary.groups["odd"].correct) == (9, 4)


def test_questions_with_other_stop_strings_are_asked_apart_and_answered_in_order():
    model = Table()
    evaluated(model, prepared(sampling=SamplingParams(stop=("STOP",), length=5)))
    assert [call[2].stop for call in model.calls] == [("STOP", "?"), ("STOP", "!")]
    assert [call[2].length for call in model.calls] == [5, 5]


def test_examples_stand_in_front_or_are_turns():
    model = Table()
    evaluated(
        model,
        prepared(count=1, shots=2),
    )
    assert model.calls[0][:2] == ("generate", ["number 0: 0\n\nnumber 1: 1\n\nnumber 0:"])
    model = Table()
    evaluated(model, prepared(count=1, shots=1, chat=True))
    kind, [turns], _ = model.calls[0]
    assert kind == "chat"
    assert [(turn.role, turn.content) for turn in turns] == [
        ("user", "number 0:"),
        ("assistant", "0"),
        ("user", "number 0:"),
    ]


def test_choices_take_the_best_candidate():
    scoring = ScoringParams(method="chain")
    model = Table(wrong={2})
    found = evaluated(model, prepared("choice", scoring=scoring))
    assert [line.correct for line in found.lines].count(False) == 0, "of equally bad ones the first, which is right"
    line = found.lines[4]
    assert (line.output, line.reference, line.scores) == (" 4", "4", (0.0, -7.0, -7.0))
    assert (line.forwards, line.tokens) == (3, 3)
    assert model.calls[0][2] == scoring


def test_choices_are_asked_in_turns_where_that_is_wanted():
    model = Table()
    found = evaluated(model, prepared("choice", count=2, shots=1, chat=True))
    kind, [turns, _], _ = model.calls[0]
    assert kind == "score_chat"
    assert [(turn.role, turn.content) for turn in turns] == [
        ("user", "number 0:"),
        ("assistant", "0"),
        ("user", "number 0:"),
    ]
    assert [(line.correct, line.output) for line in found.lines] == [(True, " 0"), (True, " 1")]


def test_scores_can_be_normalised():
    class Long(Table):
        def score(self, prompts, candidates, params):
            return [[replace(score(-4.0), bytes=1), replace(score(-6.0), bytes=4), score(-5.0)] for _ in prompts]

    assert {line.correct for line in evaluated(Long(), prepared("choice")).lines} == {True}
    by_bytes = evaluated(Long(), prepared("choice", normalise="bytes"))
    assert {line.output.strip() == str(int(line.reference) + 1) for line in by_bytes.lines} == {True}


@pytest.mark.skipif(bool(launcher.supported()), reason="programs cannot be confined here")
def test_programs_are_run():
    found = evaluated(Table(wrong={1}), prepared("code", count=3), limits=Limits(seconds=5.0))
    assert [line.correct for line in found.lines] == [True, False, True]
    assert found.lines[1].note.startswith("error: AssertionError")


def test_programs_are_not_run_unasked():
    with pytest.raises(ValueError, match="none may be run"):
        evaluated(Table(), prepared("code"))
    with pytest.raises(ValueError, match="--allow-code"):
        check_code([prepared("code")], allowed=False)
    check_code([prepared()], allowed=False)


def test_a_fixed_canvas_is_cut_to_what_fits():
    model = Table()
    small = replace(ROOM, context=100)
    params = SamplingParams(canvas="fixed", length=90, block_length=90)
    found = evaluate(model, [prepared(sampling=params)], settings=SETTINGS, room=small)
    used = model.calls[0][2]
    assert used.length == used.block_length < 90
    assert used.length >= 25
    assert f"a canvas of {used.length} tokens" in found.lines[0].note


def test_the_longest_candidate_fits_behind_its_prompt():
    """A candidate cannot be cut: the prompt gives way, by more than the quarter that a written answer gets."""
    table, small = Table(), replace(ROOM, context=60)
    one = prepared("choice", count=1, shots=4)
    long = replace(one.questions[0], candidates=(" 0", " " + "9" * 40))
    found = evaluate(table, [replace(one, questions=(long,))], settings=SETTINGS, room=small)
    [[prompt]] = [prompts for _, prompts, _ in table.calls]
    assert len(prompt) + 1 + 41 <= 60
    assert "number 0:".endswith(prompt)
    assert "0 of 4 examples fit the context" in found.lines[0].note


def test_a_canvas_that_grows_is_left_as_it_is():
    model = Table()
    evaluate(model, [prepared(sampling=SamplingParams(length=90))], settings=SETTINGS, room=replace(ROOM, context=100))
    assert model.calls[0][2].length == 90


def test_candidates_too_long_for_the_exact_bound_are_refused_before_anything_is_asked():
    class Long(Numbers):
        def questions(self, rows, folder, shots):
            for question in super().questions(rows, folder, shots):
                yield replace(question, candidates=("a", "b", "x" * (16 + int(question.id == "7"))))

    def asked(method):
        return prepare(
            Long("choice"), Asking(task="numbers", scoring=ScoringParams(method=method)), data=None, limit=None
        )

    model = Table()
    message = "question 7 of numbers has a candidate of 17 tokens, but the exact bound takes at most 16"
    with pytest.raises(ValueError, match=message):
        evaluated(model, prepared("choice"), asked("exact"))
    assert model.calls == []
    assert len(evaluated(model, asked("chain")).lines) == 10


def test_two_tasks_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two questions have one id"):
        evaluated(Table(), prepared(), prepared())


# --- preparing ----------------------------------------------------------------------------------------------------


def test_a_limit_takes_the_first_questions():
    some = prepare(Numbers(), Asking(task="numbers"), data=None, limit=4)
    assert [question.id for question in some.questions] == ["0", "1", "2", "3"]


def test_without_a_folder_the_rows_come_from_the_hub(tmp_path):
    task = TASKS["gsm8k"]
    rows = [{"question": "2 + 2?", "answer": "#### 4"}]
    found = prepare(task, Asking(task="gsm8k", shots=0), data=None, limit=None, read_hub=lambda _: iter(rows))
    assert found.questions[0].reference == "4"
    with pytest.raises(ValueError, match="no folder"):
        prepare(task, Asking(task="gsm8k"), data=None, limit=None)
    with pytest.raises(ValueError, match="no question"):
        prepare(task, Asking(task="gsm8k"), data=None, limit=None, read_hub=lambda _: iter([]))
    with pytest.raises(FileNotFoundError, match=r"gsm8k.test\.jsonl"):
        prepare(task, Asking(task="gsm8k"), data=tmp_path, limit=None)


class Broken(Numbers):
    """Its third row cannot be made a question of."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def questions(self, rows, folder, shots):
        if shots:
            raise ValueError("no examples here")
        for question in super().questions(rows, folder, shots):
            if question.id == "2":
                raise self.error
            yield question


@pytest.mark.parametrize(
    ("error", "what"),
    [(KeyError("answer"), "it has no field 'answer'"), (TypeError("no text"), "no text"), (ValueError("bad"), "bad")],
)
def test_a_row_that_cannot_be_asked_is_named(error, what):
    with pytest.raises(ValueError, match=f"^row 3 of numbers is not what it should be: {what}$"):
        prepare(Broken(error), Asking(task="numbers"), data=None, limit=None)
    assert len(prepare(Broken(error), Asking(task="numbers"), data=None, limit=2).questions) == 2


def test_what_is_wrong_before_the_first_row_is_about_no_row():
    with pytest.raises(ValueError, match=r"^no examples here$"):
        prepare(Broken(KeyError()), Asking(task="numbers", shots=1), data=None, limit=None)


def test_what_is_wrong_with_the_file_is_said_by_who_reads_it(tmp_path):
    class Cut(Numbers):
        def local_rows(self, folder):
            yield {"n": 0}
            raise ValueError("the file is cut off")

    with pytest.raises(ValueError, match=r"^the file is cut off$"):
        prepare(Cut(), Asking(task="numbers"), data=tmp_path, limit=None)


@pytest.mark.parametrize("gold", [-1, 2, None])
def test_a_choice_without_its_right_answer_is_no_question(gold):
    """As in test sets whose answers are kept secret: their label is -1."""
    with pytest.raises(ValueError, match=f"the right answer is number {gold}, counted from 0, of 2"):
        Question(id="0", ask="?", candidates=(" a", " b"), gold=gold)


def test_the_digest_knows_every_part_of_a_question():
    one = prepared("choice")
    assert questions_digest([one]) == questions_digest([prepared("choice")])
    changes = [
        {"ask": "else"},
        {"reference": "else"},
        {"candidates": (*one.questions[0].candidates, " a")},
        {"gold": 2},
        {"shots": (Shot(ask="a", answer="b"),)},
    ]
    for change in changes:
        questions = (replace(one.questions[0], **change), *one.questions[1:])
        assert questions_digest([replace(one, questions=questions)]) != questions_digest([one]), change


def test_every_task_of_a_suite_is_there_and_asked_as_its_kind():
    for suite in SUITES.values():
        assert len({asking.task for asking in suite.askings}) == len(suite.askings)
        for asking in suite.askings:
            assert asking.task in TASKS
            assert 0 < asking.published < 100


# --- a folder -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(run, "BATCH_SIZE", 3)


class Stops(Table):
    """Fails at its n-th call."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def generate(self, prompts, params):
        if len(self.calls) >= self.after:
            raise KeyboardInterrupt
        return super().generate(prompts, params)


def without_time(folder):
    return [{**line.row(), "seconds": 0} for line in read_answers(folder / "answers.jsonl")]


@pytest.mark.usefixtures("small_batches")
def test_an_evaluation_that_stopped_goes_on_without_asking_twice(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    evaluated(Table(), prepared(), out=whole)
    with pytest.raises(KeyboardInterrupt):
        evaluated(Stops(after=5), prepared(), out=parts)
    assert not (parts / "results.json").exists()
    assert len(read_answers(parts / "answers.jsonl")) == 6
    second = Table()
    evaluated(second, prepared(), out=parts)
    asked = [prompt for call in second.calls for prompt in call[1]]
    assert sorted(asked) == [f"number {n}:" for n in range(6, 10)]
    assert without_time(parts) == without_time(whole)
    third = Table()
    evaluated(third, prepared(), out=parts)
    assert third.calls == []


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("cut", [1, 40, 700, 1500])
def test_lines_of_a_batch_that_was_cut_off_are_asked_again(tmp_path, cut):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    evaluated(Table(), prepared(), out=whole)
    evaluated(Table(), prepared(), out=parts)
    (parts / "results.json").unlink()
    data = (parts / "answers.jsonl").read_bytes()
    (parts / "answers.jsonl").write_bytes(data[:-cut])
    evaluated(Table(), prepared(), out=parts)
    assert without_time(parts) == without_time(whole)


def test_the_folder_has_settings_answers_results_and_a_page(tmp_path):
    evaluated(Table(wrong={1}), prepared(published=50.0), out=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "answers.jsonl",
        "report.html",
        "results.json",
        "settings.json",
    ]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["tasks"]["numbers"]["correct"] == 9
    assert (results["tasks"]["numbers"]["published"], results["average"]) == (50.0, 0.9)
    assert results["settings"] == json.loads((tmp_path / "settings.json").read_text()) == SETTINGS


def test_another_evaluation_is_not_gone_on_with(tmp_path):
    evaluated(Table(), prepared(), out=tmp_path)
    other = {**SETTINGS, "model": "another"}
    with pytest.raises(FileExistsError, match=r'another model: .*there: "a table"; now: "another"'):
        evaluate(Table(), [prepared()], settings=other, room=ROOM, out=tmp_path)
    later = {**SETTINGS, "run": {"command": "the same on another day"}}
    evaluate(Table(), [prepared()], settings=later, room=ROOM, out=tmp_path)


def test_settings_that_cannot_be_read_are_named(tmp_path):
    evaluated(Table(), prepared(), out=tmp_path)
    for text in ('{"model": "a', "[1]"):
        (tmp_path / "settings.json").write_text(text)
        with pytest.raises(ValueError, match=r"settings\.json cannot be read .*: choose another folder"):
            evaluated(Table(), prepared(), out=tmp_path)


def test_answers_without_settings_are_not_touched(tmp_path):
    (tmp_path / "answers.jsonl").write_text("{}\n")
    with pytest.raises(FileExistsError, match="answers without settings"):
        evaluated(Table(), prepared(), out=tmp_path)
    assert (tmp_path / "answers.jsonl").read_text() == "{}\n"


def test_a_line_that_is_none_is_named(tmp_path):
    evaluated(Table(), prepared(), out=tmp_path)
    file = tmp_path / "answers.jsonl"
    file.write_text("nonsense\n" + file.read_text())
    with pytest.raises(ValueError, match=r"answers.jsonl, line 1: "):
        evaluated(Table(), prepared(), out=tmp_path)
    file.write_text(file.read_text().removeprefix("nonsense\n").rstrip("\n"))
    with pytest.raises(ValueError, match="cut off"):
        read_answers(file)


def test_progress_counts_what_was_there_already(tmp_path, small_batches):
    with pytest.raises(KeyboardInterrupt):
        evaluated(Stops(after=5), prepared(), out=tmp_path)
    told = []
    evaluated(Table(), prepared(), out=tmp_path, on_progress=told.append)
    assert told == [6, 9, 10]


def test_a_prepared_task_is_asked_in_parts(small_batches):
    assert [len(batch) for batch in prepared().batches] == [3, 3, 3, 1]
    assert isinstance(prepared(), Prepared)
