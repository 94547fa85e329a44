"""Models that know everything and models that know nothing, through the whole pipeline, on every local benchmark.

The one that knows gets 100 %, the one that guesses gets chance. What the first knows it reads from the files by a way
of its own, not from the questions that the tasks have made of them. For all questions the models are tables of texts;
for a few of each task one is a table of tokens behind the real tokenizer, sampler, stop strings and scoring.
"""

import gzip
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from illada.assets import BASE
from illada.checkpoint.native import find_checkpoint, load_checkpoint
from illada.evaluate.evaluation import evaluate
from illada.evaluate.fitting import Room
from illada.evaluate.run import prepare
from illada.evaluate.sandbox import Limits, launcher
from illada.evaluate.scoring import CandidateScore
from illada.evaluate.suites import Asking
from illada.evaluate.tasks.registry import TASKS
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer
from illada.pipeline import LanguageModel
from illada.sample.request import Completion, SamplingParams
from illada.seeding import Stream

BENCHMARKS = Path(__file__).parents[2].parent / "shared" / "data" / "benchmarks"
LOCAL = (
    "arc_challenge",
    "arc_easy",
    "openbookqa",
    "winogrande",
    "mmlu_redux",
    "mmlu_pro_choice",
    "mmlu_redux_generative",
    "mmlu_pro",
    "bbh",
    "gsm8k",
    "gsm8k_chat",
    "humaneval",
    "humaneval_chat",
    "mbpp",
    "mbpp_chat",
)
COMMONSENSE = {
    "arc_challenge": "ARC-Challenge",
    "arc_easy": "ARC-Easy",
    "openbookqa": "openbookqa",
    "winogrande": "winogrande",
}
CHAT = {"mmlu_redux_generative", "mmlu_pro", "gsm8k_chat", "humaneval_chat", "mbpp_chat"}
LETTERS = {"mmlu_redux_generative": 4, "mmlu_pro": 10}
Z = 3.29
"""Standard deviations of a 99.9 % interval: fifteen tasks are looked at."""

local = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the benchmarks are not beside the repository")
confined = bool(launcher.supported())


def prepared(name, limit=None, **asking):
    if TASKS[name].kind == "code" and confined:
        pytest.skip("programs cannot be confined here")
    return prepare(TASKS[name], Asking(task=name, chat=name in CHAT, **asking), data=BENCHMARKS, limit=limit)


def lines_of(file):
    data = (BENCHMARKS / file).read_bytes()
    return [json.loads(row) for row in (gzip.decompress(data) if file.endswith(".gz") else data).splitlines()]


def truths(name):
    """Question id -> what is right: an option's text, a letter, a number ...; of programs nothing."""
    if name in COMMONSENSE:
        rows = json.loads((BENCHMARKS / "commonsense" / COMMONSENSE[name] / "test.json").read_text(encoding="utf-8"))
        return {str(number): named_option(row) for number, row in enumerate(rows)}
    if name.startswith("mmlu_redux"):
        rows = lines_of("mmlu-redux/mmlu_redux.jsonl")
        return {str(number): "ABCD"[row["answer"]] for number, row in enumerate(rows)}
    if name.startswith("mmlu_pro"):
        return {str(row["question_id"]): row["answer"] for row in lines_of("mmlu-pro/test.jsonl.gz")}
    if name.startswith("gsm8k"):
        rows = lines_of("gsm8k/test.jsonl")
        return {str(number): row["answer"].rpartition("#### ")[2] for number, row in enumerate(rows)}
    if name == "bbh":
        files = {file.stem: json.loads(file.read_text()) for file in (BENCHMARKS / "bbh" / "bbh").glob("*.json")}
        some = ((task, enumerate(file["examples"])) for task, file in files.items())
        return {f"{task}/{number}": row["target"] for task, rows in some for number, row in rows}
    return {}


def named_option(row):
    """`answer2`, or `option2`, of a question in one string -> the text behind `Answer2:`."""
    kind, number = row["answer"][:-1].capitalize(), int(row["answer"][-1])
    behind = row["instruction"].partition(f"{kind}{number}:")[2]
    for mark in (f" {kind}{number + 1}:", " Answer format:", "\n"):
        behind = behind.partition(mark)[0]
    return behind.strip()


def right_candidate(name, candidates, truth):
    """The number of the option that has this text, or, in WinoGrande, begins with it."""
    fits = [text.startswith(f"{truth} ") if name == "winogrande" else text.strip() == truth for text in candidates]
    return fits.index(True)


def solutions(name):
    """Question id -> an answer that is right, as a model would write it."""
    task, known = TASKS[name], truths(name)
    rows = {str(row["task_id"]): row for row in task.local_rows(BENCHMARKS)} if task.kind == "code" else {}

    def solve(question):
        if name in LETTERS:
            return f"The answer is ({known[question.id]})." if name == "mmlu_pro" else known[question.id]
        if name == "gsm8k":
            return f" First 3, then more. The answer is {known[question.id]}."
        if name == "gsm8k_chat":
            return f"<think>Is it 7?</think>It is \\boxed{{{known[question.id]}}}."
        if name == "bbh":
            return f" There are 3 of them. So the answer is {known[question.id]}."
        row = rows[question.id]
        if name == "humaneval":
            return row["canonical_solution"].rstrip()
        if name == "humaneval_chat":
            return f"Here it is:\n```python\n{row['prompt']}{row['canonical_solution']}```\n"
        return row["code"] if name == "mbpp" else f"```python\n{row['code']}\n```"

    return solve


def completion(text):
    return Completion(
        text=text,
        tokens=(),
        finish_reason="stop",
        prompt_tokens=0,
        forwards=0,
        positions=0,
        seconds=0.0,
        revealed_at=(),
    )


def score(value):
    return CandidateScore(
        log_probability=value,
        standard_error=0.0,
        tokens=1,
        bytes=1,
        order=(),
        terms=(),
        greedy=None,
        forwards=1,
        positions=1,
    )


class Knows:
    """A table from prompts to answers."""

    def __init__(self, one, solve):
        name, known = one.task.name, truths(one.task.name)
        self.right = {
            (question.text, question.candidates): right_candidate(name, question.candidates, known[question.id])
            for question in one.questions
            if question.candidates
        }
        self.written = {question.text: solve(question) for question in one.questions} if solve else {}
        self.said = {
            tuple(turn.content for turn in question.messages): self.written[question.text]
            for question in one.questions
            if solve
        }

    def generate(self, prompt, params):
        return [completion(self.written[text]) for text in prompt]

    def chat(self, conversations, params):
        return [completion(self.said[tuple(turn.content for turn in turns)]) for turns in conversations]

    def score(self, prompt, candidates, params):
        return [
            [score(-1.0 - (number != self.right[text, tuple(few)])) for number in range(len(few))]
            for text, few in zip(prompt, candidates, strict=True)
        ]

    def score_chat(self, conversations, candidates, params):
        raise AssertionError("no choice is asked as a conversation here")


class Guesses:
    """Every candidate and every letter with the same probability."""

    def __init__(self, letters=0):
        self.letters = letters
        self.asked = 0

    def _draw(self, count):
        self.asked += 1
        return Stream(0, "guess").uniform(torch.tensor(self.asked), count).tolist()

    def generate(self, prompt, params):
        return [completion("no idea") for _ in prompt]

    def chat(self, conversations, params):
        letters = [chr(ord("A") + int(self._draw(1)[0] * max(1, self.letters))) for _ in conversations]
        return [completion(f"The answer is ({letter})." if self.letters else "no idea") for letter in letters]

    def score(self, prompt, candidates, params):
        return [[score(-value) for value in self._draw(len(few))] for few in candidates]

    def score_chat(self, conversations, candidates, params):
        raise AssertionError("no choice is asked as a conversation here")


def share(model, one):
    room = Room(context=10**9, encode=lambda text: [], decode=lambda ids: "")
    limits = Limits() if one.task.kind == "code" else None
    found = evaluate(model, [one], settings={}, room=room, limits=limits)
    return found.summaries[0].whole, found


@local
@pytest.mark.slow
@pytest.mark.parametrize("name", LOCAL)
def test_who_knows_gets_everything_right(name):
    one = prepared(name)
    twice = len(one.questions) - len({question.text for question in one.questions})
    whole, found = share(Knows(one, None if TASKS[name].kind == "choice" else solutions(name)), one)
    wrong = [line.id for line in found.lines if not line.correct]
    # a question that is in the data twice with another answer can be answered rightly once
    assert len(wrong) <= twice
    assert whole.count == len(one.questions)
    assert not wrong or name in ("mmlu_redux", "mmlu_redux_generative", "bbh", "mmlu_pro", "mmlu_pro_choice"), wrong


@local
@pytest.mark.parametrize("name", [name for name in LOCAL if TASKS[name].kind != "code"])
def test_who_guesses_gets_chance(name):
    one = prepared(name)
    whole, _ = share(Guesses(LETTERS.get(name, 0)), one)
    if one.task.kind == "choice":
        chances = [1 / len(question.candidates) for question in one.questions]
    else:
        chances = [1 / LETTERS[name] if name in LETTERS else 0.0 for _ in one.questions]
    chance = sum(chances) / len(chances)
    deviation = math.sqrt(sum(p * (1 - p) for p in chances)) / len(chances)
    assert abs(whole.share - chance) <= Z * deviation


# --- through tokens -----------------------------------------------------------------------------------------------


class TokenTable(Transformer):
    """Knows the tokens behind each prompt, and says them wherever they are asked for; ends of text behind them."""

    def __init__(self, vocab_size, known, eos):
        super().__init__(
            ModelConfig(
                vocab_size=vocab_size, hidden_size=4, layers=1, heads=1, kv_heads=1, ffn_size=4, max_length=8192
            )
        )
        self.known = known
        self.eos = eos

    def forward(self, tokens, segments=None):
        hidden = torch.zeros(*tokens.shape, 1)
        lengths = sorted({len(prompt) for prompt in self.known}, reverse=True)
        for row, ids in enumerate(tokens.tolist()):
            prompt = next(tuple(ids[:length]) for length in lengths if tuple(ids[:length]) in self.known)
            text = [*prompt, *self.known[prompt]]
            said = [*text[: len(ids)], *[self.eos] * (len(ids) - len(text))]
            hidden[row, :, 0] = torch.tensor(said, dtype=torch.float32)
        return hidden

    def recompute(self, tokens, cache, selection, *others):
        """Nothing is kept from one forward to the next: whole rows come."""
        hidden = torch.zeros(len(tokens), 1)
        for slot in selection.slots:
            row = selection.slot == slot
            hidden[row] = self.forward(tokens[row][None])[0]
        return hidden

    def logits(self, hidden):
        return 20.0 * torch.nn.functional.one_hot(hidden[..., 0].long(), self.config.vocab_size).float()


def token_oracle(one, solve):
    tokenizer = load_checkpoint(find_checkpoint(Path(BASE))).tokenizer
    specials = tokenizer.specials
    known, right = {}, truths(one.task.name)
    model = LanguageModel(transformer=TokenTable(tokenizer.vocab_size, known, specials.eos), tokenizer=tokenizer)
    for question in one.questions:
        few = question.candidates
        answer = few[right_candidate(one.task.name, few, right[question.id])] if few else solve(question)
        if one.asking.chat:
            known[tuple(model.chat_template.encode(question.messages))] = [*tokenizer.encode(answer), specials.eos]
            continue
        prompt = question.text.rstrip() if question.candidates else question.text
        answer = question.text[len(prompt) :] + answer
        # behind what stops the answer it goes on, as base models do
        junk = f"{question.stop[0]} The answer is 999. class" if question.stop else ""
        known[specials.bos, *tokenizer.encode(prompt)] = tokenizer.encode(answer + junk)
    return model


@local
@pytest.mark.parametrize("name", LOCAL)
def test_who_knows_the_tokens_gets_everything_right(name):
    params = SamplingParams(length=768, block_length=32, steps=24)
    one = prepared(name, limit=12, sampling=params)
    # of WinoGrande's twins, which differ behind the blank alone, the table knows one
    one = replace(one, questions=tuple({question.text: question for question in one.questions}.values())[:4])
    solve = None if TASKS[name].kind == "choice" else solutions(name)
    model = token_oracle(one, solve)
    room = Room(context=8192, encode=model.tokenizer.encode, decode=model.tokenizer.decode)
    found = evaluate(model, [one], settings={}, room=room, limits=Limits() if one.task.kind == "code" else None)
    assert [line.correct for line in found.lines] == [True] * 4, [line.output for line in found.lines]
    assert all("999" not in line.output for line in found.lines)
