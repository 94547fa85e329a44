"""The demo, step by step."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from illada.config import to_json
from illada.data.sudoku import decode_board
from illada.demo.live import DenoisingView, SudokuView
from illada.demo.report import Curve, Denoising, Report, SolvedBoard, write_report
from illada.demo.sudoku import (
    MODEL,
    SudokuConfig,
    solve,
    solved_boards,
    train_solver,
    unseen_puzzles,
)
from illada.demo.watch import text_pieces, watch
from illada.durable import write_text
from illada.losses.diffusion import diffusion_loss
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer, initialize
from illada.pipeline import LanguageModel, load
from illada.recipes.pretraining import tiny
from illada.sample.request import Completion, SamplingParams
from illada.track.sinks import read_jsonl
from illada.train.pretrain import HeldOutConfig, PretrainConfig, run

PROMPT = "def read(self, path):\n"
GAP = ("    for name in ", ":\n        print(name)\n")
VOCABULARY = 263
"""The bytes and the specials: minutes of training are too few to learn what thousands of tokens mean."""
WRITING = SamplingParams(canvas="fixed", block_length=32, temperature=0.7, unmasking="random", seed=1)
"""By confidence, a model this young would write the blanks first, and then nothing but blanks."""
SHOWN_BOARDS = 6
BLANKS = 9
OVERHEAD = 1.3
"""A training step against the bare forward and backward that `step_seconds` times: optimizer, data, metrics."""
SUDOKU_OVERHEAD = 1.3
"""The same for the small model, where what surrounds the model weighs more."""
CALIBRATION_SECONDS = 3.0
MAX_SUDOKU_STEPS = 3000
"""A fast machine is done before its minute is over."""


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """How long the two trainings take, in minutes."""

    text_minutes: float = 2.5
    sudoku_minutes: float = 1.0

    def __post_init__(self) -> None:
        """Refuse times that leave no training."""
        if min(self.text_minutes, self.sudoku_minutes) <= 0:
            raise ValueError(f"both times must be positive, got {self.text_minutes} and {self.sudoku_minutes} minutes")


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the demo measured; kept as `demo.json` beside the report."""

    bits_per_byte_untrained: float
    bits_per_byte: float
    steps: int
    tokens: int
    sudoku_solved: int
    sudoku_boards: int
    sudoku_blanks: int
    minutes: float

    @property
    def fall(self) -> float:
        """By which fraction the held-out bits per byte fell."""
        return 1 - self.bits_per_byte / self.bits_per_byte_untrained


def run_demo(config: DemoConfig, folder: Path, *, cache: Path, console: Console) -> DemoResult:
    """Train, measure, write, fill in, solve; leaves `report.html` and `demo.json` in the run folder.

    Raises:
        FileExistsError: `folder` holds a run already.
    """
    began = time.monotonic()
    console.rule("pre-training on the source code of Python's standard library")
    outcome = run(text_config(config), folder, cache=cache, console=console)
    metrics = read_jsonl(folder / "metrics.jsonl")
    bits = [line["held_out/bits_per_byte"] for line in metrics if "held_out/bits_per_byte" in line]
    console.print(
        f"held-out text: {bits[0]:.3f} bits per byte untrained, {bits[-1]:.3f} now: {1 - bits[-1] / bits[0]:.0%} less",
        highlight=False,
    )
    console.rule("writing: masks turn into text, in random order within blocks of 32")
    model = load(outcome.checkpoint)
    denoisings = [_generate(model, console), _infill(model, console)]

    console.rule("solving 4x4 sudoku, trained on other boards")
    boards = _sudoku(config, console)
    result = DemoResult(
        bits_per_byte_untrained=bits[0],
        bits_per_byte=bits[-1],
        steps=outcome.steps,
        tokens=int(max(line.get("train/tokens", 0) for line in metrics)),
        sudoku_solved=sum(board.correct for board in boards),
        sudoku_boards=len(boards),
        sudoku_blanks=BLANKS,
        minutes=(time.monotonic() - began) / 60,
    )
    write_text(folder / "demo.json", to_json(result))
    write_report(_report(result, metrics, denoisings, boards[:SHOWN_BOARDS]), folder / "report.html")
    console.print(f"report: {folder / 'report.html'}", markup=False, highlight=False, soft_wrap=True)
    return result


def text_config(config: DemoConfig) -> PretrainConfig:
    """The recipe `tiny` with as many steps as this machine takes in the time given."""
    recipe = tiny()
    recipe = replace(
        recipe,
        model=replace(recipe.model, vocab_size=VOCABULARY),
        corpus=replace(recipe.corpus, vocab_size=VOCABULARY),
        held_out=HeldOutConfig(rows=48, samples=2),
    )
    seconds = OVERHEAD * step_seconds(recipe.model, rows=recipe.loop.batch_size, length=recipe.packing.length)
    steps = max(40, round(60 * config.text_minutes / seconds))
    return replace(
        recipe,
        loop=replace(
            recipe.loop,
            steps=steps,
            validate_every=max(10, steps // 6),
            checkpoint_every=steps,
            # a machine that turns slower in the middle still ends in time
            max_minutes=1.25 * config.text_minutes,
        ),
    )


def step_seconds(config: ModelConfig, *, rows: int, length: int) -> float:
    """Seconds of one forward and backward at this size here: the fastest of a few, since others only slow it down."""
    model = Transformer(config)
    initialize(model, seed=0)
    tokens = torch.arange(rows * length).view(rows, length) % config.vocab_size
    masked = tokens % 2 == 0
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 5 or time.perf_counter() - began < CALIBRATION_SECONDS:
        start = time.perf_counter()
        loss = diffusion_loss(
            model(tokens),
            model.head_weight,
            clean=tokens,
            masked=masked,
            weight=torch.ones(rows, length),
            normaliser=rows * length,
        )
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        times.append(time.perf_counter() - start)
    return min(times)


def _generate(model: LanguageModel, console: Console) -> Denoising:
    params = replace(WRITING, length=160)
    with DenoisingView(console, title="generate") as view:
        completion = model.generate(PROMPT, params, on_step=watch(view, model.tokenizer))
    return _denoising("generated after a prompt", model, completion, before=PROMPT)


def _infill(model: LanguageModel, console: Console) -> Denoising:
    before, after = GAP
    with DenoisingView(console, title="infill") as view:
        completion = model.infill(before, after, replace(WRITING, length=12), on_step=watch(view, model.tokenizer))
    return _denoising("filled in between two texts", model, completion, before=before, after=after)


def _denoising(title: str, model: LanguageModel, completion: Completion, *, before: str, after: str = "") -> Denoising:
    written = [piece or "" for piece in text_pieces(model.tokenizer, list(completion.tokens))]
    pieces = [before, *written, *([after] if after else [])]
    order = [0, *completion.revealed_at, *([0] if after else [])]
    return Denoising(title=title, pieces=tuple(pieces), revealed_at=tuple(order))


def _sudoku(config: DemoConfig, console: Console) -> list[SolvedBoard]:
    """Train a solver, let it solve some unseen boards before the user's eyes, then all of them."""
    sudoku = SudokuConfig()
    seconds = SUDOKU_OVERHEAD * step_seconds(MODEL, rows=sudoku.batch_size, length=MODEL.max_length)
    steps = round(60 * config.sudoku_minutes / seconds)
    sudoku = replace(sudoku, steps=max(50, min(steps, MAX_SUDOKU_STEPS)), max_minutes=1.25 * config.sudoku_minutes)
    solver = train_solver(sudoku, console)
    puzzle, solution = unseen_puzzles(sudoku, blanks=BLANKS)
    shown = puzzle[:SHOWN_BOARDS]
    with SudokuView(console, shown.tolist()) as view:

        def on_step(number: int, tokens: torch.Tensor, revealed: torch.Tensor) -> None:
            del number
            fresh = [set(row.nonzero().flatten().tolist()) for row in revealed[:, 1:]]
            view.update(decode_board(tokens[:, 1:]).tolist(), fresh)

        solve(solver, shown, on_step=on_step)
    board, revealed_at = solve(solver, puzzle)
    boards = solved_boards(puzzle, board, revealed_at, solution)
    solved = sum(board.correct for board in boards)
    console.print(f"{solved} of {len(boards)} boards that it never trained on are solved, {BLANKS} blanks each")
    return boards


def _report(
    result: DemoResult, metrics: list[dict[str, int | float]], denoisings: list[Denoising], boards: list[SolvedBoard]
) -> Report:
    return Report(
        title="illada demo",
        facts=(
            ("held-out bits/byte", f"{result.bits_per_byte_untrained:.2f} → {result.bits_per_byte:.2f}"),
            ("less than untrained", f"{result.fall:.0%}"),
            ("tokens trained on", f"{result.tokens:,}"),
            ("sudoku, unseen boards", f"{result.sudoku_solved} of {result.sudoku_boards} correct"),
            ("minutes in all", f"{result.minutes:.1f}"),
        ),
        curves=_curves(metrics),
        denoisings=tuple(denoisings),
        boards=tuple(boards),
    )


def _curves(metrics: list[dict[str, int | float]]) -> tuple[Curve, ...]:
    found = []
    for label, key in (("training", "train/loss_nats_per_token"), ("held out", "held_out/nats_per_token")):
        lines = [line for line in metrics if key in line]
        steps, values = tuple(int(line["step"]) for line in lines), tuple(line[key] for line in lines)
        found.append(Curve(label=label, steps=steps, values=values))
    return tuple(found)
