"""The styles of fine-tuning: which positions can be masked, and what the loss is divided by."""

import math
from dataclasses import replace

import pytest
import torch

from illada.data.dialogues import Example
from illada.data.instruction_corpus import InstructionCorpus
from illada.data.instructions import InstructionSet, write_instructions
from illada.data.loader import Loader
from illada.data.packing import PADDING, PackingConfig, Part
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer, initialize
from illada.recipes.finetuning import STYLES
from illada.train.objective import DiffusionObjective, NoiseConfig, answer_lengths
from illada.train.sft import SftConfig, row_sources

PAD, EOS, MASK, VOCAB = 0, 2, 3, 40
LENGTHS = [(3, 2), (5, 9), (2, 4), (7, 3), (4, 17), (1, 6), (6, 3), (2, 2)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus") / "set"
    dialogues = [
        [Example(prompt=[10 + number] * prompt, response=[20 + number] * (response - 1) + [EOS])]
        for number, (prompt, response) in enumerate(LENGTHS)
    ]
    write_instructions(dialogues, folder, vocab_size=VOCAB)
    instructions = InstructionSet.open(folder)
    return InstructionCorpus(folder=folder, train=[(instructions, 1.0)], held_out=instructions)


@pytest.fixture(scope="module")
def model():
    transformer = Transformer(
        ModelConfig(vocab_size=VOCAB, hidden_size=16, layers=1, heads=2, kv_heads=1, ffn_size=24, max_length=64)
    )
    initialize(transformer, seed=0)
    return transformer


def style(name):
    config = STYLES[name](SftConfig(stream=PackingConfig(length=24)))
    return replace(config, examples=replace(config.examples, block_length=8, longest_canvas=2))


def batch_of(name, corpus, count=6):
    config = style(name)
    return Loader(row_sources(config, corpus, pad=PAD, eos=EOS), seed=0).next(count)


def objective(name, seed=0):
    return DiffusionObjective(style(name).noise, mask_id=MASK, seed=seed)


def ever_masked(name, batch, draws=300):
    """Where something is masked in at least one draw, and how often."""
    counts = sum(objective(name, seed).corrupt(batch)[1].int() for seed in range(draws))
    return counts > 0, counts / draws


def test_illada_masks_everything_and_has_no_padding(corpus):
    batch = batch_of("illada", corpus, count=2)
    where, often = ever_masked("illada", batch)
    assert bool(where.all())
    assert batch.parts is None
    assert int((batch.segments == PADDING).sum()) == 0
    assert float(often.mean()) == pytest.approx(0.5, abs=0.03)


def test_llada_masks_the_answer_and_all_ends_behind_it(corpus):
    batch = batch_of("llada", corpus)
    where, _ = ever_masked("llada", batch)
    assert torch.equal(where, batch.parts != Part.PROMPT)
    assert int((batch.parts == Part.STRETCH).sum()) > 0
    # a dialogue to a row, nothing that is not learnt behind it
    assert int((batch.segments != 0).sum()) == 0


def test_dllm_var_always_masks_the_end_and_never_the_prompt(corpus):
    batch = batch_of("dllm_var", corpus, count=2)
    where, often = ever_masked("dllm_var", batch)
    used = batch.segments != PADDING
    assert torch.equal(where, (batch.parts != Part.PROMPT) & used)
    assert set(often[(batch.parts == Part.END) & used].tolist()) == {1.0}
    response = (batch.parts == Part.RESPONSE) & used
    assert float(often[response].max()) < 1
    times = objective("dllm_var").corrupt(batch)[2][used]
    assert 0.1 <= float(times.min()) <= float(times.max()) <= 0.9
    assert set(batch.segments.unique().tolist()) <= {0, PADDING}  # they see one another


def test_canvas_masks_the_answer_and_its_filler_and_isolates_examples(corpus):
    batch = batch_of("canvas", corpus, count=2)
    where, _ = ever_masked("canvas", batch)
    assert torch.equal(where, (batch.parts != Part.PROMPT) & (batch.segments != PADDING))


# --- the normaliser -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STYLES)
def test_the_normaliser_is_what_the_style_says(name, corpus):
    batch = batch_of(name, corpus)
    used = batch.segments != PADDING
    expected = {
        "illada": int(used.sum()),
        "llada": len(batch),
        "dllm_var": int(objective(name).corrupt(batch)[1].sum()),
        "canvas": sum(len(set(row.tolist()) - {PADDING}) for row in batch.segments),
    }[name]
    assert objective(name).normaliser(batch) == expected


@pytest.mark.parametrize("name", STYLES)
@torch.no_grad()
def test_the_loss_is_that_of_a_plain_loop(name, corpus, model):
    """Σ over masked positions of weight * cross-entropy, position by position."""
    batch = batch_of(name, corpus)
    loss = objective(name)
    noisy, masked, t = loss.corrupt(batch)
    hidden = model(noisy, batch.segments)
    total = 0.0
    for row in range(len(batch)):
        for place in masked[row].nonzero().flatten().tolist():
            logits = model.logits(hidden[row : row + 1, place : place + 1])[0, 0].double()
            nats = float(logits.logsumexp(0) - logits[batch.tokens[row, place]])
            if name == "dllm_var":
                total += nats
            elif name == "illada":
                total += nats / float(t[row, place])
            else:
                same = (batch.segments[row] == batch.segments[row, place]) & (batch.parts[row] != Part.PROMPT)
                total += nats / float(t[row, place]) / int(same.sum())
    expected = total / loss.normaliser(batch)
    got = float(loss(model, batch, normaliser=loss.normaliser(batch)).detach())
    assert got == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", STYLES)
@pytest.mark.parametrize("size", [1, 2, 4])
def test_micro_batches_add_up_to_the_whole(name, size, corpus, model):
    batch = batch_of(name, corpus)
    loss = objective(name)
    normaliser = loss.normaliser(batch)
    whole = float(loss(model, batch, normaliser=normaliser).detach())
    parts = sum(
        float(loss(model, batch.rows(start, start + size), normaliser=normaliser).detach())
        for start in range(0, len(batch), size)
    )
    assert parts == pytest.approx(whole, rel=1e-5)


def test_the_answer_of_an_example_is_as_long_as_what_can_be_masked_of_it(corpus):
    batch = batch_of("canvas", corpus, count=2)
    lengths = answer_lengths(batch)
    for row, segments in enumerate(batch.segments):
        for segment in set(segments.tolist()) - {PADDING}:
            inside = segments == segment
            count = int((inside & (batch.parts[row] != Part.PROMPT)).sum())
            assert set(lengths[row][inside].tolist()) == {float(count)}


def test_plain_text_has_no_answers_to_divide_by(corpus, model):
    loss = DiffusionObjective(NoiseConfig(normaliser="examples"), mask_id=MASK, seed=0)
    with pytest.raises(ValueError, match="plain text has no answers to divide by"):
        loss(model, batch_of("illada", corpus), normaliser=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"floor": 0.5, "ceiling": 0.5}, "a floor of 0.5 and 0.5"),
        ({"ceiling": 1.1}, "0 < floor < ceiling <= 1"),
        ({"maskable": "prompt"}, "maskable must be one of everything, response; got 'prompt'"),
        ({"normaliser": "rows"}, "normaliser must be one of tokens, examples, masked; got 'rows'"),
    ],
)
def test_noise_that_means_nothing_is_refused(options, message, monkeypatch):
    import jaxtyping

    # the run-time check of annotations, which users do not have, would come first
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        NoiseConfig(**options)


def test_the_styles_differ_in_configuration_only():
    assert len({style(name) for name in STYLES}) == len(STYLES)
    assert all(isinstance(style(name), SftConfig) for name in STYLES)
    assert all(style(name).length == 24 for name in STYLES)
    assert math.isclose(style("illada").stream.split_probability, 0.3)
