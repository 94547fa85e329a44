"""4x4 sudoku as masked diffusion: the board is the canvas, and blanks are masks.

Any-order filling is what this method is good at: a model that was trained to fill any holes solves a puzzle by filling
the cell it is surest of first, wherever that is.
"""

from dataclasses import dataclass

import torch
from rich.console import Console
from torch import Tensor

from illada.data.loader import Loader
from illada.data.packing import FixedRows
from illada.data.sudoku import (
    BOS_ID,
    CELLS,
    EOS_ID,
    MASK_ID,
    PAD_ID,
    VOCAB_SIZE,
    decode_board,
    encode_board,
    puzzles,
    split_solutions,
)
from illada.demo.report import SolvedBoard
from illada.model.accounting import count_flops
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer, initialize
from illada.sample.canvas import Canvas
from illada.sample.request import SamplingParams
from illada.sample.sampler import OnStep, fill
from illada.track.console import ProgressBar
from illada.track.throughput import Throughput
from illada.train.learning_rate import WarmupConstantCosine
from illada.train.loop import Hooks, LoopConfig, TrainState, fit
from illada.train.objective import DiffusionObjective, NoiseConfig
from illada.train.optimizer import AdamWConfig, build_optimizer

MODEL = ModelConfig(
    vocab_size=VOCAB_SIZE,
    hidden_size=104,
    layers=3,
    heads=4,
    kv_heads=4,
    ffn_size=280,
    max_length=1 + CELLS,
    # 17 positions: a small base gives every pair of coordinates an angle that tells them apart
    rope_theta=10.0,
    init_std=0.05,
)
"""0.4M parameters."""

OPTIMIZER = AdamWConfig(beta2=0.98)


@dataclass(frozen=True, kw_only=True)
class SudokuConfig:
    """How the solver is trained: on all solution grids but those held out, and never on a puzzle."""

    steps: int = 1200
    batch_size: int = 32
    held_out: int = 58
    """Of the 288 solution grids there are."""
    peak: float = 2e-3
    seed: int = 0
    max_minutes: float | None = None


def train_solver(config: SudokuConfig, console: Console) -> Transformer:
    """Train on whole boards under random masks: the same loss as for text."""
    train, _ = split_solutions(config.seed, config.held_out)
    model = Transformer(MODEL)
    initialize(model, seed=config.seed)
    state = TrainState(
        model=model,
        optimizer=build_optimizer(model, OPTIMIZER),
        loader=Loader([(FixedRows(_rows(train)), 1.0)], seed=config.seed),
    )
    with ProgressBar(console, title="sudoku", total_steps=config.steps) as progress:
        fit(
            state,
            LoopConfig(
                steps=config.steps,
                batch_size=config.batch_size,
                precision="fp32",
                log_every=20,
                validate_every=0,
                checkpoint_every=config.steps,
                max_minutes=config.max_minutes,
            ),
            loss=DiffusionObjective(NoiseConfig(), mask_id=MASK_ID, seed=config.seed),
            schedule=WarmupConstantCosine(peak=config.peak, floor=config.peak / 50, warmup_steps=100),
            clip_norm=OPTIMIZER.clip_norm,
            hooks=Hooks(
                validate=dict,
                save=lambda wait: None,  # noqa: ARG005  # a minute's model is shown, not kept
                sink=progress,
                progress=progress,
                throughput=Throughput(
                    flops_per_token=count_flops(MODEL, length=1 + CELLS).training, device=torch.device("cpu")
                ),
            ),
        )
    return model.eval()


def unseen_puzzles(config: SudokuConfig, *, blanks: int) -> tuple[Tensor, Tensor]:
    """(puzzles, solutions) [held_out, 16] from the grids that training never saw, each with one completion."""
    _, test = split_solutions(config.seed, config.held_out)
    return puzzles(test, blanks, seed=config.seed), test


def solve(model: Transformer, boards: Tensor, *, on_step: OnStep | None = None) -> tuple[Tensor, Tensor]:
    """Fill the blanks, the surest first, one per forward; returns (boards, forward that filled each cell)."""
    canvases = [
        Canvas(tokens=tuple(None if token == MASK_ID else token for token in row)) for row in _rows(boards).tolist()
    ]
    params = SamplingParams(block_length=CELLS, length=CELLS, suppress=(PAD_ID, BOS_ID, EOS_ID))
    filled = fill(model, canvases, params, mask_id=MASK_ID, on_step=on_step)
    tokens = torch.tensor([row.tokens[1:] for row in filled])
    return decode_board(tokens), torch.tensor([row.revealed_at[1:] for row in filled])


def solved_boards(puzzle: Tensor, board: Tensor, revealed_at: Tensor, solution: Tensor) -> list[SolvedBoard]:
    """The results as the report shows them; correct means equal to the one completion there is."""
    return [
        SolvedBoard(
            puzzle=tuple(puzzle[row].tolist()),
            solution=tuple(board[row].tolist()),
            revealed_at=tuple(revealed_at[row].tolist()),
            correct=bool((board[row] == solution[row]).all()),
        )
        for row in range(len(puzzle))
    ]


def _rows(boards: Tensor) -> Tensor:
    """Token rows [n, 17]: BOS, which gives the cells something to count from, then the cells."""
    return torch.cat((torch.full((len(boards), 1), BOS_ID), encode_board(boards)), dim=1)
