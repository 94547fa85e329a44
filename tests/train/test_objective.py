import math

import pytest
import torch
from torch import Tensor

from illada.data.loader import Loader
from illada.data.packing import Batch, FixedRows
from illada.losses.diffusion import diffusion_loss
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer, initialize
from illada.seeding import Stream
from illada.train.objective import (
    DiffusionObjective,
    NextTokenObjective,
    NoiseConfig,
    Objective,
    build_objective,
    check_objective,
)

VOCAB, MASK, LENGTH = 40, 3, 12


@pytest.fixture(params=["bidirectional", "causal"], scope="module")
def model(request) -> Transformer:
    config = ModelConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        layers=2,
        heads=4,
        kv_heads=2,
        ffn_size=72,
        max_length=200,
        attention=request.param,
    )
    model = Transformer(config)
    initialize(model, seed=0)
    return model


def loader(rows: int = 8) -> Loader:
    tokens = torch.randint(4, VOCAB, (rows, LENGTH), generator=torch.Generator().manual_seed(0))
    return Loader([(FixedRows(tokens), 1.0)], seed=0)


def objective(*, seed: int = 0, **options: object) -> DiffusionObjective:
    return DiffusionObjective(NoiseConfig(**options), mask_id=MASK, seed=seed)


def split_rows(batch: Batch) -> Batch:
    """The same rows, each cut into two segments at another place; the last ends in padding."""
    segments = torch.stack([(torch.arange(LENGTH) >= 2 + row).long() for row in range(len(batch))])
    segments[-1, -3:] = -1
    return Batch(tokens=batch.tokens, segments=segments, example=batch.example, epoch=batch.epoch)


def loss_and_gradient(model: Transformer, loss: Tensor) -> tuple[float, Tensor]:
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return float(loss.detach()), torch.cat([gradient.flatten() for gradient in gradients])


def assert_same(one: tuple[float, Tensor], two: tuple[float, Tensor]) -> None:
    assert one[0] == pytest.approx(two[0], rel=1e-5)
    assert float((one[1] - two[1]).norm() / two[1].norm()) < 1e-5


# --- however it is batched ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("low_discrepancy", [True, False])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_micro_batches_of_any_size_sum_to_the_whole(model, size, low_discrepancy):
    loss, batch = objective(low_discrepancy=low_discrepancy), loader().next(8)
    for rows in (batch, split_rows(batch)):
        count = rows.token_count
        whole = loss_and_gradient(model, loss(model, rows, normaliser=count))
        parts = [
            loss_and_gradient(model, loss(model, rows.rows(start, start + size), normaliser=count))
            for start in range(0, 8, size)
        ]
        assert_same((sum(value for value, _ in parts), sum(gradient for _, gradient in parts)), whole)


@pytest.mark.parametrize("sizes", [[1] * 8, [2] * 4, [3, 5]])
def test_batches_of_any_size_from_the_loader_sum_to_the_whole(model, sizes):
    loss, other = objective(), loader()
    whole = loss_and_gradient(model, loss(model, loader().next(8), normaliser=8 * LENGTH))
    parts = [loss_and_gradient(model, loss(model, other.next(size), normaliser=8 * LENGTH)) for size in sizes]
    assert_same((sum(value for value, _ in parts), sum(gradient for _, gradient in parts)), whole)


class Examples:
    """Texts of unequal length with a fixed choice of masks and weights, in whatever rows they are put."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.parts = []
        for length in (9, 1, 14, 5, 12, 3, 7, 11):
            t = float(torch.rand((), generator=generator)) * 0.8 + 0.2
            clean = torch.randint(4, VOCAB, (length,), generator=generator)
            self.parts.append((clean, torch.rand(length, generator=generator) < t, torch.full((length,), 1 / t)))
        self.count = sum(len(clean) for clean, _, _ in self.parts)

    def loss(self, model: Transformer, rows: list[list[int]], *, left: bool = False) -> Tensor:
        """The loss of the examples that `rows` names, several in a row being packed, short rows padded."""
        length = max(sum(len(self.parts[number][0]) for number in row) for row in rows)
        clean = torch.zeros(len(rows), length, dtype=torch.int64)
        segments = torch.full((len(rows), length), -1)
        masked, weight = torch.zeros(len(rows), length, dtype=torch.bool), torch.ones(len(rows), length)
        for place, row in enumerate(rows):
            start = length - sum(len(self.parts[number][0]) for number in row) if left else 0
            for segment, number in enumerate(row):
                part = slice(start, start + len(self.parts[number][0]))
                clean[place, part], masked[place, part], weight[place, part] = self.parts[number]
                segments[place, part] = segment
                start = part.stop
        hidden = model(clean.masked_fill(masked, MASK), segments)
        return diffusion_loss(
            hidden, model.head_weight, clean=clean, masked=masked, weight=weight, normaliser=self.count
        )


LAYOUTS = {
    "padded, micro-batches of 1": [[[number]] for number in range(8)],
    "padded, micro-batches of 2": [[[number], [number + 1]] for number in range(0, 8, 2)],
    "padded, one batch of 8": [[[number] for number in range(8)]],
    "packed into one row": [[list(range(8))]],
    "packed into two rows": [[[0, 1, 2, 3], [4, 5, 6, 7]]],
    "packed, rows one by one": [[[3, 0]], [[7, 1, 2]], [[5, 6, 4]]],
}


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_loss_is_the_same_padded_packed_or_alone(model, name, left):
    examples = Examples()
    alone = [loss_and_gradient(model, examples.loss(model, [[number]])) for number in range(8)]
    expected = sum(value for value, _ in alone), sum(gradient for _, gradient in alone)
    parts = [loss_and_gradient(model, examples.loss(model, rows, left=left)) for rows in LAYOUTS[name]]
    assert_same((sum(value for value, _ in parts), sum(gradient for _, gradient in parts)), expected)


# --- the objective itself -----------------------------------------------------------------------------------------


def by_hand(model: Transformer, batch: Batch, *, seed: int, floor: float) -> float:
    """Eq. 1 with independent times, position by position in float64."""
    times, masks = Stream(seed, "time"), Stream(seed, "mask")
    total, count = 0.0, 0
    for row in range(len(batch)):
        example, epoch = batch.example[row], int(batch.epoch[row])
        u = times.uniform(example, 2)  # addressed by the example's number alone
        noise = masks.uniform(example, LENGTH, epoch=epoch)
        segments = batch.segments[row].tolist()
        t = [float((1 - floor) * u[segment] + floor) if segment >= 0 else 0.0 for segment in segments]
        masked = [float(noise[place]) < t[place] for place in range(LENGTH)]
        noisy = [MASK if hidden else int(token) for token, hidden in zip(batch.tokens[row], masked, strict=True)]
        with torch.inference_mode():
            logits = model.logits(model(torch.tensor([noisy]), batch.segments[row : row + 1]))[0].double()
        for place in range(LENGTH):
            count += segments[place] >= 0
            if masked[place]:
                total -= float(logits[place].log_softmax(0)[batch.tokens[row, place]]) / t[place]
    return total / count


def test_the_objective_is_eq_1_by_hand(model):
    batch = split_rows(loader(rows=3).next(8))  # into its third epoch
    assert batch.epoch.tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    ours = objective(seed=4, low_discrepancy=False, floor=0.05)(model, batch, normaliser=batch.token_count)
    assert float(ours.detach()) == pytest.approx(by_hand(model, batch, seed=4, floor=0.05), rel=1e-5)


def test_noise_depends_on_seed_example_and_epoch(model):
    batch, loss = loader().next(8), objective()
    value = float(loss(model, batch, normaliser=96).detach())
    assert float(loss(model, batch, normaliser=96).detach()) == value
    others = [
        objective(seed=1)(model, batch, normaliser=96),
        loss(model, Batch(**vars(batch) | {"example": batch.example + 8}), normaliser=96),
        loss(model, Batch(**vars(batch) | {"epoch": batch.epoch + 1}), normaliser=96),
    ]
    assert len({value, *(float(other.detach()) for other in others)}) == 4


def test_a_model_that_knows_nothing_loses_log_vocab_per_token():
    """E[1/t Σ 1[masked]] is one per token, and each of them costs log(vocab)."""
    config = ModelConfig(vocab_size=VOCAB, hidden_size=8, layers=1, heads=1, kv_heads=1, ffn_size=8, tied_head=False)
    ignorant = Transformer(config)
    ignorant.head.weight.requires_grad_(requires_grad=False).zero_()
    tokens = torch.randint(4, VOCAB, (500, LENGTH), generator=torch.Generator().manual_seed(0))
    batch = Loader([(FixedRows(tokens), 1.0)], seed=0).next(500)
    value = float(objective(floor=0.1)(ignorant, batch, normaliser=500 * LENGTH).detach())
    # one term is 1/t with probability t: its variance is E[1/t] - 1 = log(10) / 0.9 - 1
    spread = math.sqrt((math.log(10) / 0.9 - 1) / (500 * LENGTH))
    assert abs(value / math.log(VOCAB) - 1) < 4 * spread


def test_padding_adds_nothing_and_is_never_masked(model):
    batch = loader().next(4)
    segments = batch.segments.clone()
    segments[:, 6:] = -1
    padded = Batch(**vars(batch) | {"segments": segments})
    other = padded.tokens.clone()
    other[:, 6:] = 5
    loss = objective()
    one = loss(model, padded, normaliser=24)
    two = loss(model, Batch(**vars(padded) | {"tokens": other}), normaliser=24)
    assert float(one.detach()) == pytest.approx(float(two.detach()), rel=1e-6)


@pytest.mark.parametrize("floor", [0.0, 1.0, -0.1])
def test_a_floor_outside_its_range_is_refused(floor):
    with pytest.raises(ValueError, match=f"floor of {floor}"):
        NoiseConfig(floor=floor)


# --- the next token -----------------------------------------------------------------------------------------------


def answered() -> Batch:
    """Two examples in a row with fillers, one with a stretch, and padding."""
    parts = torch.tensor([[0, 0, 1, 1, 2, 3, 3, 0, 0, 0, 1, 2], [0, 1, 1, 1, 2, 4, 4, 4, 4, 4, 0, 0]])
    segments = torch.tensor([[0] * 7 + [1] * 5, [0] * 10 + [-1] * 2])
    batch = loader().next(2)
    return Batch(tokens=batch.tokens, segments=segments, example=batch.example, epoch=batch.epoch, parts=parts)


def next_token_by_hand(model: Transformer, batch: Batch, *, learnt: tuple[int, ...]) -> tuple[float, int]:
    """The sum of the cross-entropies and their number, position by position in float64."""
    with torch.inference_mode():
        logits = model.logits(model(batch.tokens, batch.segments)).double()
    total, count = 0.0, 0
    for row in range(len(batch)):
        for place in range(LENGTH - 1):
            segment, part = batch.segments[row, place + 1], None if batch.parts is None else batch.parts[row, place + 1]
            if segment == -1 or segment != batch.segments[row, place] or (part is not None and int(part) not in learnt):
                continue
            total -= float(logits[row, place].log_softmax(0)[batch.tokens[row, place + 1]])
            count += 1
    return total, count


@pytest.mark.parametrize(("maskable", "learnt", "expected"), [("response", (1, 2), 9), ("everything", (0, 1, 2), 12)])
def test_the_answer_and_its_one_end_are_learnt_and_the_prompt_where_it_is_not_kept_in_sight(
    model, maskable, learnt, expected
):
    batch, loss = answered(), NextTokenObjective(NoiseConfig(maskable=maskable, normaliser="examples"))
    total, count = next_token_by_hand(model, batch, learnt=learnt)
    assert loss.normaliser(batch) == count == expected
    assert float(loss(model, batch, normaliser=count).detach()) == pytest.approx(total / count, rel=1e-5)


def test_of_plain_rows_all_but_the_first_token_of_a_segment_is_learnt(model):
    batch, loss = split_rows(loader().next(8)), NextTokenObjective(NoiseConfig(maskable="response"))
    total, count = next_token_by_hand(model, batch, learnt=())
    assert loss.normaliser(batch) == count == 8 * (LENGTH - 2) - 2
    assert float(loss(model, batch, normaliser=count).detach()) == pytest.approx(total / count, rel=1e-5)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_micro_batches_of_the_next_token_sum_to_the_whole(model, size):
    loss, batch = NextTokenObjective(NoiseConfig(), chunk_logits=7 * VOCAB), split_rows(loader().next(8))
    count = loss.normaliser(batch)
    whole = loss_and_gradient(model, loss(model, batch, normaliser=count))
    parts = [
        loss_and_gradient(model, loss(model, batch.rows(start, start + size), normaliser=count))
        for start in range(0, 8, size)
    ]
    assert_same((sum(value for value, _ in parts), sum(gradient for _, gradient in parts)), whole)


def test_a_part_of_a_step_with_nothing_to_predict_adds_nothing_to_its_normaliser():
    batch = loader().next(2)
    alone = Batch(**vars(batch) | {"segments": torch.full_like(batch.segments, -1)})
    assert NextTokenObjective(NoiseConfig()).normaliser(alone) == 0


@pytest.mark.parametrize(
    ("name", "attention", "message"),
    [
        ("diffusion", "causal", "the objective diffusion needs bidirectional attention, but the model's is causal"),
        ("next_token", "bidirectional", "the objective next_token needs causal attention, but the model's is bidirec"),
        ("last_token", "causal", "objective must be one of diffusion, next_token; got 'last_token'"),
    ],
)
def test_an_objective_that_the_attention_does_not_allow_is_refused(name, attention, message):
    with pytest.raises(ValueError, match=message):
        check_objective(name, attention)


def test_an_objective_by_its_name():
    check_objective("diffusion", "bidirectional")
    check_objective("next_token", "causal")
    built = [build_objective(name, NoiseConfig(), mask_id=MASK, seed=0) for name in ("diffusion", "next_token")]
    assert [type(one) for one in built] == [DiffusionObjective, NextTokenObjective]
    assert all(isinstance(one, Objective) for one in built)
    assert [one.head_fraction for one in built] == [0.5, 1.0]
