"""The engine under a crowd: rows of any length and settings come and go, and each gets what it gets alone."""

import random
from dataclasses import replace

import pytest
import torch

from illada.model.config import ModelConfig
from illada.model.transformer import Transformer
from illada.sample.canvas import Canvas
from illada.sample.engine import Engine, EngineLimits
from illada.sample.job import Request
from illada.sample.request import SamplingParams
from illada.sample.sampler import run
from illada.sample.stopping import Stopping
from illada.sample.writing import Prompt, writing_request

VOCAB, MASK, EOS, CONTEXT = 24, 3, 2, 96


def new_model(attention="bidirectional"):
    config = ModelConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        layers=2,
        heads=2,
        kv_heads=1,
        ffn_size=24,
        max_length=CONTEXT,
        attention=attention,
    )
    transformer = Transformer(config).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in transformer.parameters():
            if parameter.dim() == 2:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    # in float64 a batch and a row alone agree to the last bit of the fp32 logits
    return transformer.double()


@pytest.fixture(scope="module")
def model():
    return new_model()


def stopping(*strings):
    return Stopping(end_ids=(EOS,), strings=strings, decode=lambda ids: bytes(97 + token for token in ids))


def crowd(count, config, *, seed=0):
    """Requests of all kinds."""
    draw = random.Random(seed)
    requests = []
    for number in range(count):
        prompt = tuple(draw.randrange(4, VOCAB) for _ in range(draw.randint(1, 30)))
        stop = draw.choice([(), (), ("q",), ("k", "ii")])
        params = SamplingParams(
            length=draw.randint(1, 30),
            block_length=draw.choice([4, 8, 32]),
            blocks=draw.choice([1, 1, 2]),
            canvas=draw.choice(["variable", "variable", "fixed"]),
            temperature=draw.choice([0.0, 0.0, 0.9]),
            top_p=draw.choice([1.0, 0.9]),
            guidance=draw.choice([0.0, 0.0, 1.0]),
            unmasking=draw.choice(["low_confidence", "random", "threshold,tau=0.5", "margin", "running_confidence"]),
            caching=draw.choice(["none", "dual", "delayed", "entropy", "block_reuse"]),
            stop=stop,
        )
        requests.append(
            writing_request(Prompt(tokens=prompt, seed=number), params, config=config, stopping=stopping(*stop))
        )
    return requests


def alone(model, request):
    return run(Engine(model, mask_id=MASK), [request])[0]


# --- a crowd ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "limits",
    [
        EngineLimits(),
        EngineLimits(rows=3),
        EngineLimits(positions=40),
        EngineLimits(rows=8, positions=1, logits=1),
    ],
    ids=["wide", "few rows", "few positions", "one row at a time"],
)
def test_every_request_of_a_crowd_gets_what_it_gets_alone(model, limits):
    requests = crowd(40, model.config)
    together = run(Engine(model, mask_id=MASK, limits=limits), requests)
    for request, filled in zip(requests, together, strict=True):
        assert filled == alone(model, request)
        assert MASK not in filled.tokens[: len(filled.tokens) if filled.cut is None else filled.cut.tokens]
    assert any(filled.cut is not None for filled in together)


def test_rows_without_guidance_take_no_part_in_the_forward_without_prompts(model):
    plain = SamplingParams(length=4, block_length=4, steps=1)
    requests = [
        writing_request(
            Prompt(tokens=(4, 5, 6), seed=0),
            replace(plain, guidance=guidance),
            config=model.config,
            stopping=stopping(),
        )
        for guidance in (0.0, 1.5, 0.0)
    ]
    widths = []
    hook = model.blocks[0].register_forward_pre_hook(lambda module, arguments: widths.append(arguments[0].shape[1]))
    try:
        run(Engine(model, mask_id=MASK), requests)
    finally:
        hook.remove()
    assert widths == [3 * 7, 7]


def test_a_causal_crowd_gets_what_each_gets_alone():
    model = new_model("causal")
    requests = []
    for number in range(12):
        params = SamplingParams(length=5 + number, temperature=0.7 * (number % 2))
        prompt = Prompt(tokens=tuple(range(4, 6 + number)), seed=number)
        requests.append(writing_request(prompt, params, config=model.config, stopping=stopping()))
    together = run(Engine(model, mask_id=MASK, limits=EngineLimits(rows=5)), requests)
    assert together == [alone(model, request) for request in requests]


def test_requests_may_come_while_others_are_at_work(model):
    requests, engine, results = crowd(10, model.config, seed=1), Engine(model, mask_id=MASK), {}
    numbers = []
    for request in requests:
        numbers.append(engine.submit(request))
        for _ in range(3):
            results |= engine.step()
    while engine.busy:
        results |= engine.step()
    assert [results[number] for number in numbers] == [alone(model, request) for request in requests]
    assert engine.step() == {}


def test_who_is_cancelled_leaves_and_the_others_do_not_notice(model):
    requests, engine, results = crowd(24, model.config, seed=2), Engine(model, mask_id=MASK), {}
    numbers = [engine.submit(request) for request in requests]
    draw, gone = random.Random(3), set()
    while engine.busy:
        results |= engine.step()
        if len(gone) < 8:
            number = draw.choice(numbers)
            if engine.cancel(number):
                assert engine.look(number) is None
                gone.add(number)
    assert len(gone) == 8
    assert set(results) == set(numbers) - gone
    for number, request in zip(numbers, requests, strict=True):
        assert number in gone or results[number] == alone(model, request)


def test_cancelling_frees_the_slot_for_one_that_waits(model):
    engine = Engine(model, mask_id=MASK, limits=EngineLimits(rows=1))
    first, second = (engine.submit(request) for request in crowd(2, model.config, seed=4))
    engine.step()
    assert engine.look(second) is None
    assert engine.cancel(first)
    assert not engine.cancel(first)
    engine.step()
    assert engine.look(second) is not None or not engine.busy


def test_several_blocks_at_once_need_fewer_forwards_when_many_are_sure(model):
    def forwards(blocks):
        params = SamplingParams(length=24, block_length=4, blocks=blocks, unmasking="threshold,tau=0.3")
        request = writing_request(
            Prompt(tokens=(5, 6)), params, config=model.config, stopping=Stopping(end_ids=(), decode=bytes)
        )
        filled = alone(model, request)
        assert MASK not in filled.tokens
        assert len(filled.tokens) == 26
        return filled.forwards

    assert forwards(3) < forwards(1)


def test_a_fixed_canvas_may_be_left_when_the_end_is_certain_and_says_the_same(model):
    left = 0
    for seed in range(12):
        prompt = Prompt(tokens=(4 + seed,), seed=seed)
        params = SamplingParams(length=16, block_length=4, canvas="fixed")
        whole = writing_request(prompt, params, config=model.config, stopping=stopping("k", "q", "n"))
        late, early = alone(model, whole), alone(model, replace(whole, early=True))
        assert early.cut == late.cut
        assert early.forwards <= late.forwards == 16
        left += early.forwards < late.forwards
    assert left > 0


# --- limits -------------------------------------------------------------------------------------------------------


def test_a_forward_keeps_to_its_positions_unless_one_row_needs_more(model, monkeypatch):
    sizes, recompute = [], model.recompute
    monkeypatch.setattr(
        model,
        "recompute",
        lambda tokens, *rest: sizes.append((len(tokens), len(rest[1].slots))) or recompute(tokens, *rest),
    )
    run(Engine(model, mask_id=MASK, limits=EngineLimits(positions=60)), crowd(30, model.config, seed=5))
    assert all(positions <= 60 or rows == 1 for positions, rows in sizes)
    assert max(rows for _, rows in sizes) > 1


def test_rows_take_turns_under_a_tight_limit(model):
    """None is starved: rows of one kind end within a few steps of one another."""
    params = SamplingParams(length=8, block_length=8)
    requests = [Request(canvas=Canvas(tokens=(5 + number, *[None] * 8)), params=params) for number in range(6)]
    engine = Engine(model, mask_id=MASK, limits=EngineLimits(positions=20))
    ends, steps = {}, 0
    numbers = [engine.submit(request) for request in requests]
    while engine.busy:
        steps += 1
        ends |= dict.fromkeys(engine.step(), steps)
    assert max(ends.values()) - min(ends.values()) <= 3
    assert set(ends) == set(numbers)


def test_the_memory_for_keys_and_values_bounds_the_rows_and_nothing_is_lost(model):
    per_position = 2 * 2 * 1 * 8 * 8
    limits = EngineLimits(cache_bytes=per_position * 64 * 2)
    engine = Engine(model, mask_id=MASK, limits=limits)
    params = SamplingParams(length=20, block_length=8)
    requests = [Request(canvas=Canvas(tokens=(5 + number, *[None] * 20)), params=params) for number in range(7)]
    numbers, most, results = [engine.submit(request) for request in requests], 0, {}
    while engine.busy:
        results |= engine.step()
        most = max(most, sum(engine.look(number) is not None for number in numbers))
    assert most == 2
    assert [results[number] for number in numbers] == [alone(model, request) for request in requests]


def test_what_can_never_fit_is_refused_when_it_is_submitted(model):
    engine = Engine(model, mask_id=MASK, limits=EngineLimits(cache_bytes=1000, waiting=1))
    with pytest.raises(ValueError, match=r"the keys and values of 21 tokens take 5,376 bytes, but .* 1,000: shorten"):
        engine.submit(Request(canvas=Canvas(tokens=(5, *[None] * 20)), params=SamplingParams()))
    small = Request(canvas=Canvas(tokens=(5, None)), params=SamplingParams())
    engine.submit(small)
    with pytest.raises(RuntimeError, match="1 requests are waiting already"):
        engine.submit(small)


@pytest.mark.parametrize("name", ["rows", "positions", "logits", "cache_bytes", "waiting"])
def test_a_limit_below_one_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        EngineLimits(**{name: 0})
