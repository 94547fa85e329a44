"""Ready-made studies: what the papers claim of masked diffusion, asked at a scale that one can afford.

Every study is a function of a scale. The claims are the papers', in our words; the budgets are ours.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

from illada.compare.lessons import Facts, Lessons
from illada.compare.plan import Exam, Pace
from illada.compare.study import Arm, Claim, Study
from illada.recipes.scales import BLOCK, CAUSAL, FOCUS, Scale, lesson_stage, pace_of, plan_of, text_stage
from illada.sample.request import SamplingParams
from illada.train.objective import NoiseConfig


def planning(scale: Scale) -> Study:
    """Sudoku and countdown: diffusion, the same with the token reweighting, and autoregression."""
    plan = plan_of(
        scale,
        lessons=lesson_stage(
            Lessons(skills=("sudoku", "countdown"), levels=(1,), problems=12_000),
            pace=pace_of(scale, 2400, batch_size=16),
        ),
        exam=Exam(questions=100, choices=16, likelihoods=16),
    )
    names = ("diffusion", "diffusion, reweighted", "autoregressive")
    return Study(
        name="planning",
        question="Does a model that may write in any order plan better than one that writes from left to right?",
        plan=plan,
        arms=(
            Arm(name=names[0]),
            Arm(name=names[1], changes=(("lessons.noise.focus", FOCUS),)),
            Arm(name=names[2], changes=CAUSAL),
        ),
        claims=tuple(
            Claim(measure=f"exact/{skill}", better=better, worse=worse, says=says)
            for skill in ("sudoku", "countdown")
            for better, worse, says in (
                (names[0], names[2], f"diffusion solves more of {skill} than its autoregressive twin"),
                (names[1], names[0], f"the token reweighting of arXiv 2410.14157 helps diffusion at {skill}"),
            )
        ),
    )


def reversal(scale: Scale) -> Study:
    """Facts told one way and asked the other."""
    facts, block = Facts(both=40, forward=20), 6
    plan = plan_of(
        scale,
        lessons=lesson_stage(
            Lessons(facts=facts),
            pace=pace_of(scale, 2400, batch_size=32),
            block=block,
            noise=NoiseConfig(maskable="everything", normaliser="tokens"),
        ),
        block=block,
        exam=Exam(questions=50),
    )
    names = ("diffusion", "diffusion, answers masked only", "autoregressive")
    return Study(
        name="reversal",
        question="Is a fact that was told as `A is B` known when B is what is asked with?",
        plan=plan,
        arms=(
            Arm(name=names[0]),
            Arm(name=names[1], changes=(("lessons.noise.maskable", "response"),)),
            Arm(name=names[2], changes=CAUSAL),
        ),
        claims=(
            Claim(
                measure="exact/reversed",
                better=names[0],
                worse=names[2],
                says="diffusion answers facts backwards that autoregression cannot",
            ),
            Claim(
                measure="exact/reversed, as a gap",
                better=names[0],
                worse=names[1],
                says="it is masking the question, too, that lets a fact be read backwards",
            ),
            Claim(
                measure="exact/as told",
                better=names[0],
                worse=names[2],
                says="diffusion knows facts as they were told better than autoregression",
            ),
        ),
    )


def matched(scale: Scale) -> Study:
    """Diffusion against autoregression, pre-trained and fine-tuned alike, at equal tokens and at equal FLOPs."""
    lessons = Lessons(skills=("repeat", "sudoku"), levels=(1,), problems=12_000, gaps=4000)
    plan = plan_of(
        scale,
        text=text_stage(scale, steps=100),
        lessons=lesson_stage(lessons, pace=pace_of(scale, 2000, batch_size=32)),
        exam=Exam(questions=100, choices=32, likelihoods=32),
    )
    names = ("diffusion", "autoregressive, equal tokens", "autoregressive, equal FLOPs")
    measures = [f"exact/{skill}" for skill in (*lessons.skills, "gaps, asked")] + ["choice by likelihood/all"]
    return Study(
        name="matched",
        question="With data, order, start, optimizer, schedule and fine-tuning held fixed: which of the two is better?",
        plan=plan,
        arms=(
            Arm(name=names[0]),
            Arm(name=names[1], changes=CAUSAL),
            Arm(name=names[2], changes=CAUSAL, budget="flops", rate_of=names[1]),
        ),
        claims=tuple(
            Claim(
                measure=measure,
                better=names[0],
                worse=worse,
                says=f"diffusion is better at {measure} than its twin of {worse.removeprefix('autoregressive, ')}",
            )
            for measure in measures
            for worse in names[1:]
        ),
    )


def sft_epochs(scale: Scale) -> Study:
    """Exact match after 1 to 12 epochs of fine-tuning."""
    epochs, problems, batch = 12, 320, 16
    lessons = Lessons(skills=("repeat", "sudoku"), levels=(1,), problems=problems)
    size = problems * len(lessons.skills)
    pace = Pace(steps=epochs * (size // batch), batch_size=batch, curve=epochs // 2)
    plan = plan_of(
        scale,
        text=text_stage(scale, steps=100),
        lessons=lesson_stage(lessons, pace=pace, looks=epochs // 2),
        exam=Exam(questions=40, seen=40, likelihoods=0),
    )
    names = ("diffusion", "autoregressive")
    return Study(
        name="sft_epochs",
        question="Does fine-tuning go on to help for twelve epochs over the same examples?",
        axis="epochs",
        axis_end=float(epochs),
        plan=plan,
        arms=(Arm(name=names[0], series=names[0]), Arm(name=names[1], changes=CAUSAL, series=names[1])),
        claims=(
            *(
                Claim(
                    measure="exact/all",
                    better=names[0],
                    worse=names[0],
                    worse_look=early / epochs,
                    better_look=late / epochs,
                    says=f"diffusion is better after {late} epochs of fine-tuning than after {early}",
                )
                for early, late in pairwise((2, 4, 8, 12))
            ),
            Claim(
                measure="exact/all",
                better=names[0],
                worse=names[1],
                says="after 12 epochs diffusion is better than its autoregressive twin",
            ),
        ),
    )


def data_constrained(scale: Scale) -> Study:
    """Unique text fixed, epochs 1 to 100: where the curves cross."""
    epochs, rows, batch = (1, 4, 16, 50, 100), 512, 32
    arms = [
        Arm(
            name=f"{name}, {count} epochs",
            changes=(*changes, ("text.pace.steps", max(1, count * rows // batch))),
            series=name,
            at=float(count),
            rate_of=None if count == epochs[2] else f"{name}, {epochs[2]} epochs",
        )
        for name, changes in (("diffusion", ()), ("autoregressive", CAUSAL))
        for count in epochs
    ]
    plan = plan_of(scale, text=text_stage(scale, steps=1, unique_rows=round(rows * scale.steps)))
    most = epochs[-1]
    return Study(
        name="data_constrained",
        question="How many epochs over the same text go on to help, and does diffusion overtake?",
        axis="epochs",
        plan=plan,
        arms=tuple(arms),
        claims=tuple(
            Claim(
                measure="nats per token/text",
                better=f"{name}, {most} epochs",
                worse=f"{name}, {epochs[2]} epochs",
                says=f"{name} training is still better after {most} epochs than after {epochs[2]} (arXiv 2507.15857)",
            )
            for name in ("diffusion", "autoregressive")
        ),
    )


def length(scale: Scale) -> Study:
    """Answers that grow block by block against a fixed canvas."""
    lessons = Lessons(skills=("repeat", "reverse", "sudoku"), levels=(1,), problems=12_000)
    stage = lesson_stage(lessons, pace=pace_of(scale, 2000, batch_size=32))
    # a canvas of several blocks is learnt too, as the one that generation is asked for
    stage = replace(stage, examples=replace(stage.examples, long_canvas_probability=0.15, longest_canvas=2))
    plan = plan_of(scale, lessons=stage, exam=Exam(questions=200, likelihoods=0))
    fixed = SamplingParams(canvas="fixed", length=2 * BLOCK, block_length=2 * BLOCK)
    names = ("variable", "fixed canvas")
    return Study(
        name="length",
        question="What does a canvas that grows block by block cost in quality, and what does it save?",
        plan=plan,
        arms=(Arm(name=names[0]), Arm(name=names[1], changes=(("sampler", fixed),), rate_of=names[0])),
        claims=(
            Claim(
                measure="exact/all",
                better=names[0],
                worse=names[1],
                says="answers of variable length are right more often than those on a fixed canvas",
            ),
            Claim(
                measure="positions/answer",
                better=names[0],
                worse=names[1],
                says="answers of variable length take fewer positions",
            ),
        ),
    )


def scoring(scale: Scale) -> Study:
    """Choices by confidence against choices by likelihood, of the same model."""
    lessons = Lessons(skills=("repeat", "reverse", "sudoku", "compare"), levels=(1,), problems=12_000)
    plan = plan_of(
        scale,
        lessons=lesson_stage(lessons, pace=pace_of(scale, 2000, batch_size=32)),
        exam=Exam(questions=100, choices=200, scoring=("likelihood", "confidence"), likelihoods=0),
    )
    names = ("by likelihood", "by confidence")
    return Study(
        name="scoring",
        question="Does the confidence score of arXiv 2606.25331 choose better than the bound on the likelihood?",
        plan=plan,
        arms=(Arm(name="diffusion"), Arm(name="autoregressive", changes=CAUSAL)),
        claims=(
            Claim(
                measure=f"choice {names[1]}/all",
                better="diffusion",
                worse="diffusion",
                worse_measure=f"choice {names[0]}/all",
                says="diffusion chooses better by confidence than by its likelihood",
            ),
            Claim(
                measure=f"choice {names[1]}/all",
                better="diffusion",
                worse="autoregressive",
                says="diffusion by confidence chooses better than its twin by its exact likelihood",
            ),
        ),
    )


def reading(scale: Scale) -> Study:
    """Questions on passages of fairy tales that training never met. The tales have to be in `data/fairytaleqa`."""
    # passages are long, answers short: a vocabulary that shortens both, and a context for most of them
    model = replace(scale.model, max_length=512)
    stage = lesson_stage(Lessons(tales="data"), pace=pace_of(scale, 2000, batch_size=16))
    stage = replace(stage, vocab_size=2048, examples=replace(stage.examples, length=448))
    plan = plan_of(replace(scale, model=model), lessons=stage, exam=Exam(questions=400, likelihoods=0))
    names = ("diffusion", "autoregressive")
    return Study(
        name="reading",
        question="Which of the two answers questions about a passage better?",
        plan=replace(plan, sampler=replace(plan.sampler, length=2 * BLOCK)),
        arms=(Arm(name=names[0]), Arm(name=names[1], changes=CAUSAL)),
        claims=(
            Claim(
                measure="exact/fairytaleqa",
                better=names[0],
                worse=names[1],
                says="diffusion answers more questions on FairytaleQA than its autoregressive twin",
            ),
        ),
    )


def scaling(scale: Scale) -> Study:
    """Four sizes and three token budgets: a power law of the loss over training FLOPs, with an interval."""
    arms = [
        Arm(
            name=f"{name}, {hidden}x{layers}, {steps} steps",
            changes=(
                *changes,
                ("model.hidden_size", hidden),
                ("model.layers", layers),
                ("model.ffn_size", ffn),
                ("text.pace.steps", max(1, round(steps * scale.steps))),
            ),
            series=name,
            rate_of=None if steps == 600 else f"{name}, {hidden}x{layers}, 600 steps",
        )
        for name, changes in (("diffusion", ()), ("autoregressive", CAUSAL))
        for hidden, layers, ffn in scale.sizes
        for steps in (300, 600, 1200)
    ]
    return Study(
        name="scaling",
        question="How does the held-out loss of the two fall with training compute?",
        plan=plan_of(scale, text=text_stage(scale, steps=600)),
        arms=tuple(arms),
    )


STUDIES: dict[str, Callable[[Scale], Study]] = {
    "matched": matched,
    "data_constrained": data_constrained,
    "planning": planning,
    "reversal": reversal,
    "sft_epochs": sft_epochs,
    "length": length,
    "scoring": scoring,
    "reading": reading,
    "scaling": scaling,
}
"""The studies that `illada compare NAME` knows."""
