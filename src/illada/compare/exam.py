"""What a trained model is asked, the same for every arm and seed, and what its answers cost."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import fmean

from illada.compare.lessons import Direction, Gap, Pair, Text, asked, gaps
from illada.compare.plan import LessonStage, Plan
from illada.compare.stages import encoded, on_canvas
from illada.compare.tales import TALES, tale_questions
from illada.data.skills.registry import items, named_skill
from illada.evaluate.run import prepare
from illada.evaluate.scoring import CandidateScore, Method, ScoringParams, best
from illada.evaluate.skills import evaluate_skills
from illada.evaluate.suites import Asking
from illada.evaluate.tasks.skills import SkillChoice, SkillTask
from illada.model.accounting import count_flops
from illada.pipeline import LanguageModel
from illada.sample.canvas import Canvas
from illada.sample.request import Completion
from illada.sample.sampler import fill

Measures = Mapping[str, float]
"""By name: what is measured, and behind a slash of what."""


@dataclass(frozen=True, kw_only=True)
class Examiner:
    """A model and the plan that it was trained by."""

    model: LanguageModel
    plan: Plan
    stage: LessonStage
    held_out: Text | None = None
    """Text that training never met, to make gaps in."""

    def measures(self) -> dict[str, float]:
        """All that the plan asks for."""
        exam, lessons = self.plan.exam, self.stage.lessons
        found: dict[str, float] = {}
        if lessons.skills:
            found |= self.written(exam.questions)
            if exam.seen:
                found |= self.seen(exam.seen)
            if exam.likelihoods:
                found |= self.likelihood(exam.likelihoods)
            if exam.choices:
                for method in exam.scoring:
                    found |= self.choices(exam.choices, method)
        if lessons.facts is not None:
            found |= self.facts()
        if lessons.gaps and self.held_out is not None:
            found |= self.gaps(exam.questions)
        if lessons.tales is not None:
            found |= self.tales(lessons.tales, exam.questions)
        return found

    # --- skills -----------------------------------------------------------------------------------------------

    def written(self, count: int) -> dict[str, float]:
        """Exact answers to new problems, and what an answer takes."""
        lessons = self.stage.lessons
        report = evaluate_skills(self._answers, lessons.skills, count=count, levels=lessons.levels)
        found = {f"exact/{name}": score.exact_match for name, score in report.skills.items()}
        overall = report.overall
        found["exact/all"] = fmean(found.values())
        if overall.forwards is not None and overall.positions is not None:
            found |= self._costs(overall.forwards, overall.positions)
        return found

    def seen(self, count: int) -> dict[str, float]:
        """Exact answers to problems that were learnt."""
        lessons = self.stage.lessons
        right = []
        for skill in lessons.skills:
            known = list(items(skill, "train", min(count, lessons.problems), levels=lessons.levels))
            found = self._answers([item.problem.prompt for item in known])
            check = named_skill(skill).check
            right.append(fmean(check(one.problem, said.text) for one, said in zip(known, found, strict=True)))
        return {"exact seen/all": fmean(right)}

    def likelihood(self, count: int) -> dict[str, float]:
        """Nats per token of right answers: a causal model's value, or the bound with its Monte-Carlo error."""
        lessons = self.stage.lessons
        pairs = [
            (item.problem.prompt, item.problem.response)
            for skill in lessons.skills
            for item in items(skill, "test", count, levels=lessons.levels)
        ]
        scores = self._scores([(prompt, (reply,)) for prompt, reply in pairs], "likelihood")
        tokens = sum(len(example.response) for example in encoded(pairs, self.model.tokenizer))
        return _per_token([few[0] for few in scores], "nats per token/answers", tokens=tokens)

    def choices(self, count: int, method: Method) -> dict[str, float]:
        """Right choices among four candidates that look alike; of a causal model always by its likelihood."""
        lessons = self.stage.lessons
        found = {}
        for skill in lessons.skills:
            task = SkillChoice(written=SkillTask(skill=skill, count=count, levels=lessons.levels))
            questions = prepare(task, Asking(task=task.name, chat=True), data=None, limit=None).questions
            scores = self._scores([(question.ask, question.candidates) for question in questions], method)
            right = [best(few) == question.gold for few, question in zip(scores, questions, strict=True)]
            found[f"choice by {method}/{skill}"] = fmean(right)
        return found | {f"choice by {method}/all": fmean(found.values())}

    # --- facts ------------------------------------------------------------------------------------------------

    def facts(self) -> dict[str, float]:
        """Facts that were told forwards alone, asked both ways; and those that were told both ways."""
        lessons, count = self.stage.lessons, self.plan.exam.questions
        assert lessons.facts is not None
        both, forward = lessons.facts.pairs()
        found = {}
        if forward:
            found["exact/as told"] = self._right(forward[:count], "forward")
            found["exact/reversed"] = self._right(forward[:count], "backward")
            if self.model.transformer.config.attention == "bidirectional":
                found["exact/reversed, as a gap"] = self._gap_before(forward[:count])
        if both:
            found["exact/told both ways, backwards"] = self._right(both[:count], "backward")
        return found

    def _right(self, facts: Sequence[Pair], direction: Direction) -> float:
        questions = [asked(fact, direction) for fact in facts]
        found = self._answers([question for question, _ in questions])
        return fmean(said.text.strip() == wanted for said, (_, wanted) in zip(found, questions, strict=True))

    def _gap_before(self, facts: Sequence[Pair]) -> float:
        """The name of `A is B`, told as it is with A masked: a question that left-to-right models cannot be asked."""
        tokenizer = self.model.tokenizer
        template, end = self.model.chat_template, tokenizer.specials.eos
        canvases, wanted = [], []
        for fact in facts:
            question, reply = asked(fact, "forward")
            ids = template.encode([{"role": "user", "content": question}])
            name = tokenizer.encode(fact[0])
            place = next(start for start in range(len(ids)) if ids[start : start + len(name)] == name)
            tokens = [None if place <= at < place + len(name) else token for at, token in enumerate(ids)]
            behind = [*tokenizer.encode(reply), end]
            behind += [end] * (-len(behind) % self.stage.examples.block_length)
            canvases.append(Canvas(tokens=(*tokens, *behind)))
            wanted.append((place, name))
        filled = fill(self.model.transformer, canvases, self.plan.sampler, mask_id=tokenizer.specials.mask)
        return fmean(
            list(row.tokens[place : place + len(name)]) == name
            for row, (place, name) in zip(filled, wanted, strict=True)
        )

    # --- gaps in a text ---------------------------------------------------------------------------------------

    def gaps(self, count: int) -> dict[str, float]:
        """Gaps in new text, asked in the fill-in-the-middle format that both arms have learnt."""
        assert self.held_out is not None
        some = list(islice(gaps(self.stage.lessons, self.held_out, count=count), count))
        found = self._answers([gap.exercise[0] for gap in some])
        return {"exact/gaps, asked": fmean(_same(said, gap) for said, gap in zip(found, some, strict=True))}

    # --- tales ------------------------------------------------------------------------------------------------

    def tales(self, folder: str, count: int) -> dict[str, float]:
        """Questions on stories that training never met, as far as they fit the context beside an answer."""
        room = self.model.transformer.config.max_length - self.plan.sampler.length
        asked = [one for one in tale_questions(folder, "val") if self._prompt_length(one.ask) <= room][:count]
        if not asked:
            raise ValueError(f"no question on the tales in {folder} fits the {room} tokens beside its answer")
        found = self._answers([question.ask for question in asked])
        right = [TALES.judge(question, said.text).correct for question, said in zip(asked, found, strict=True)]
        costs = self._costs(fmean(one.forwards for one in found), fmean(one.positions for one in found))
        return {"exact/fairytaleqa": fmean(right)} | ({} if self.stage.lessons.skills else costs)

    def _prompt_length(self, prompt: str) -> int:
        return len(self.model.chat_template.encode([{"role": "user", "content": prompt}]))

    # --- asking -----------------------------------------------------------------------------------------------

    def _answers(self, prompts: Sequence[str]) -> list[Completion]:
        return self.model.chat([[{"role": "user", "content": prompt}] for prompt in prompts], self.plan.sampler)

    def _scores(self, questions: Sequence[tuple[str, Sequence[str]]], method: Method) -> list[list[CandidateScore]]:
        """Of the replies to each, with the end of text and what else the objective has learnt to put behind."""
        causal = self.model.transformer.config.attention == "causal"
        params = ScoringParams(method="chain" if causal else method, samples=self.plan.exam.samples, end=False)
        prompts, targets = [], []
        for prompt, replies in questions:
            examples = encoded([(prompt, reply) for reply in replies], self.model.tokenizer)
            if not causal:
                eos = self.model.tokenizer.specials.eos
                examples = [on_canvas(example, self.stage.examples, eos=eos) for example in examples]
            prompts.append(examples[0].prompt)
            targets.append([example.response for example in examples])
        return self.model.score_ids(prompts, targets, params)

    def _costs(self, forwards: float, positions: float) -> dict[str, float]:
        """Of an answer, on average."""
        mflops = positions * self._flops_per_position() / 1e6
        return {"forwards/answer": forwards, "positions/answer": positions, "mflops/answer": mflops}

    def _flops_per_position(self) -> float:
        """Forward, with the head at every position; attention over a row of the exercises' length."""
        return count_flops(self.model.transformer.config, length=self.stage.examples.length).forward


def text_gaps(model: LanguageModel, stage: LessonStage, held_out: Text, *, count: int) -> dict[str, float]:
    """Gaps in new text that a diffusion model fills as it was pre-trained to: in their place, both sides in sight."""
    some = list(gaps(stage.lessons, held_out, count=count))
    right = []
    for gap in some:
        length = len(model.tokenizer.encode(gap.missing))
        right.append(_same(model.infill(gap.before, gap.after, length=length), gap))
    return {"exact/gaps, in place": fmean(right)}


def _same(said: Completion, gap: Gap) -> bool:
    return said.text.strip() == gap.missing


def _per_token(scores: Sequence[CandidateScore], name: str, *, tokens: int) -> dict[str, float]:
    # a single mask says nothing of its own error: that of answers of one token is 0 and given as infinite
    errors = [score.standard_error for score in scores if math.isfinite(score.standard_error)]
    return {
        name: -math.fsum(score.log_probability for score in scores) / tokens,
        f"{name}, error": math.sqrt(math.fsum(error**2 for error in errors)) / tokens,
    }
