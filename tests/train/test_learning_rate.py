"""The schedules against numbers worked out by hand and formulas written a second time."""

import json
import math
import random
from dataclasses import asdict, dataclass
from itertools import pairwise

import pytest

from illada.config import from_json, to_json
from illada.train.learning_rate import (
    LearningRate,
    LearningRateState,
    Plateau,
    PlateauDetector,
    StepDowns,
    WarmupConstantCosine,
)

TEN_PLUS_TEN = WarmupConstantCosine(peak=1.0, floor=0.1, warmup_steps=4, decay_fraction=0.5)
LLADA_STEPS = round(2.3e12 / (1280 * 4096))


def curve(schedule, steps, **options):
    return [schedule.rate(step, steps=steps, **options) for step in range(steps)]


# --- warm-up, constant, cosine ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.25),
        (1, 0.5),
        (3, 1.0),
        (4, 1.0),
        (9, 1.0),
        (10, 0.1 + 0.9 * (1 + math.cos(0.1 * math.pi)) / 2),
        (14, 0.55),  # half-way down
        (19, 0.1),
    ],
)
def test_a_short_run_has_the_rates_worked_out_by_hand(step, rate):
    assert TEN_PLUS_TEN.rate(step, steps=20) == pytest.approx(rate, rel=1e-12)


def test_the_whole_curve_is_the_formula():
    peak, floor, warmup, start, steps = 3e-4, 2e-6, 30, 140, 200
    schedule = WarmupConstantCosine(peak=peak, floor=floor, warmup_steps=warmup, decay_start=start)
    warm = [peak * number / warmup for number in range(1, warmup + 1)]
    level = [peak] * (start - warmup)
    down = [
        floor + (peak - floor) * math.cos(math.pi / 2 * number / (steps - start)) ** 2
        for number in range(1, steps - start + 1)
    ]
    assert curve(schedule, steps) == pytest.approx(warm + level + down, rel=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 7, 40, 333])
@pytest.mark.parametrize("fraction", [0.01, 0.3, 1.0])
def test_the_last_step_has_the_floor(steps, fraction):
    schedule = WarmupConstantCosine(peak=1e-3, floor=1e-5, warmup_steps=0, decay_fraction=fraction)
    expected = 1e-5 if round(steps * (1 - fraction)) < steps else 1e-3
    assert curve(schedule, steps)[-1] == pytest.approx(expected, rel=1e-12)


def test_without_a_decay_the_rate_stays_at_its_peak():
    schedule = WarmupConstantCosine(peak=1.0, floor=0.0, warmup_steps=0, decay_fraction=0.0)
    assert curve(schedule, 12) == [1.0] * 12


@pytest.mark.parametrize(
    "options",
    [
        {"warmup_steps": 20, "decay_fraction": 0.3},
        {"warmup_steps": 20, "decay_start": 50},
        {"warmup_steps": 20, "decay_fraction": 1.0},
        {"warmup_steps": 90, "decay_fraction": 0.3},
        {"warmup_steps": 400, "decay_fraction": 0.3},
    ],
)
def test_the_rate_never_jumps(options):
    steps = 100
    rates = curve(WarmupConstantCosine(peak=1.0, floor=0.0, **options), steps)
    # the steepest a warm-up or a cosine over at least 30 steps can be
    steepest = max(1 / options["warmup_steps"], math.pi / 2 / 30)
    assert max(abs(later - sooner) for sooner, later in pairwise([0.0, *rates])) <= steepest + 1e-12


def test_a_warm_up_that_outlasts_the_run_never_exceeds_its_line():
    rates = curve(WarmupConstantCosine(peak=1.0, floor=0.0, warmup_steps=200, decay_fraction=0.3), 100)
    assert all(rate <= (step + 1) / 200 for step, rate in enumerate(rates))
    assert rates[-1] == 0.0


def test_a_plateau_begins_the_cosine_where_it_was_noticed():
    schedule = WarmupConstantCosine(peak=1.0, floor=0.0, warmup_steps=0, decay_start=80)
    rates = curve(schedule, 100, plateau_at=40)
    assert rates[:40] == [1.0] * 40
    assert rates[40] == pytest.approx((1 + math.cos(math.pi / 60)) / 2)
    assert rates[69] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0.0, abs=1e-15)


def test_a_plateau_after_the_cosine_began_changes_nothing():
    schedule = WarmupConstantCosine(peak=1.0, floor=0.0, warmup_steps=0, decay_start=30)
    assert curve(schedule, 100, plateau_at=70) == curve(schedule, 100)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"peak": 1e-5, "floor": 1e-4}, "peak 1e-05, floor 0.0001"),
        ({"peak": 0.0, "floor": 0.0}, "peak 0.0, floor 0.0"),
        ({"floor": -1e-6}, "floor -1e-06"),
        ({"warmup_steps": -1}, "warmup_steps must be 0 or more, got -1"),
        ({"decay_fraction": 1.5}, "decay_fraction must be between 0 and 1, got 1.5"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        WarmupConstantCosine(**options)


# --- step-downs ---------------------------------------------------------------------------------------------------


def test_llada_took_this_many_steps():
    assert LLADA_STEPS == 438_690


@pytest.mark.parametrize(
    ("trillion_tokens", "rate"),
    [
        (0.02, 4e-4),
        (0.6, 4e-4),
        (1.1999, 4e-4),
        (1.2001, 1e-4),
        (1.6, 1e-4),
        (1.9999, 1e-4),
        (2.15, 5.5e-5),  # half-way from 1e-4 to 1e-5
        (2.3, 1e-5),
    ],
)
def test_the_defaults_are_lladas_run(trillion_tokens, rate):
    step = min(LLADA_STEPS - 1, round(trillion_tokens * 1e12 / (1280 * 4096)))
    assert StepDowns().rate(step, steps=LLADA_STEPS) == pytest.approx(rate, rel=1e-4)


def test_lladas_warm_up_takes_2000_steps():
    schedule = StepDowns()
    assert schedule.rate(0, steps=LLADA_STEPS) == pytest.approx(4e-4 / 2000)
    assert schedule.rate(999, steps=LLADA_STEPS) == pytest.approx(2e-4)
    assert schedule.rate(1999, steps=LLADA_STEPS) == schedule.rate(2000, steps=LLADA_STEPS) == 4e-4


def test_step_downs_are_levels_and_a_line():
    schedule = StepDowns(warmup_steps=2, levels=((0.0, 8.0), (0.5, 4.0)), final_fraction=0.2, floor=1.0)
    expected = [4.0, 8.0, 8.0, 8.0, 8.0, 4.0, 4.0, 4.0, 2.5, 1.0]
    assert curve(schedule, 10) == pytest.approx(expected)


def test_step_downs_know_no_plateau():
    schedule = StepDowns(warmup_steps=2)
    assert curve(schedule, 50, plateau_at=5) == curve(schedule, 50)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": ()}, r"begin at fraction 0 and go upwards, got fractions \[\]"),
        ({"levels": ((0.1, 1.0),)}, r"got fractions \[0.1\]"),
        ({"levels": ((0.0, 1.0), (0.7, 0.5), (0.4, 0.2))}, r"got fractions \[0.0, 0.7, 0.4\]"),
        ({"floor": 2e-4}, "peak 0.0001, floor 0.0002"),
        ({"warmup_steps": -3}, "got -3"),
        ({"final_fraction": -0.1}, "final_fraction must be between 0 and 1, got -0.1"),
    ],
)
def test_levels_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        StepDowns(**options)


# --- plateaus -----------------------------------------------------------------------------------------------------


def test_the_detector_counts_readings_since_the_best():
    rule = Plateau(smoothing=0.0, patience=3, min_improvement=0.1)
    detector = PlateauDetector()
    fired = [detector.read(loss, rule) for loss in (5.0, 4.0, 3.0, 2.95, 3.5, 3.0)]
    assert fired == [False, False, False, False, False, True]
    assert (detector.best, detector.stale) == (3.0, 3)


def test_small_improvements_add_up():
    rule = Plateau(smoothing=0.0, patience=4, min_improvement=0.1)
    detector = PlateauDetector()
    assert not any(detector.read(5 - 0.04 * number, rule) for number in range(60))


def test_the_running_mean_is_exponential():
    rule = Plateau(smoothing=0.75)
    detector = PlateauDetector()
    for loss in (4.0, 2.0, 6.0):
        detector.read(loss, rule)
    assert detector.smoothed == pytest.approx(0.75 * (0.75 * 4 + 0.25 * 2) + 0.25 * 6)


def falling_then_flat(*, falling: int, flat: int, noise: float = 0.02) -> list[float]:
    chance = random.Random(0)
    smooth = [5 - 3 * number / falling for number in range(falling)] + [2.0] * flat
    return [loss + chance.gauss(0, noise) for loss in smooth]


def follow(state, schedule, losses, *, first=1):
    noticed = []
    for number, loss in enumerate(losses, start=first):
        state.read(loss, step=10 * number, schedule=schedule)
        noticed.append(state.plateau_at)
    return noticed


def test_a_loss_that_flattens_is_noticed_once_and_only_then():
    schedule = WarmupConstantCosine(plateau=Plateau(smoothing=0.9, patience=30))
    noticed = follow(LearningRateState(), schedule, falling_then_flat(falling=150, flat=250))
    steps = [step for step in noticed if step is not None]
    assert len(set(steps)) == 1
    assert 1500 + 300 <= steps[0] <= 1500 + 1500
    assert len(steps) == 400 - steps[0] // 10 + 1  # from that reading on, at every one


def test_a_loss_that_falls_is_never_a_plateau():
    schedule = WarmupConstantCosine(plateau=Plateau(smoothing=0.9, patience=30))
    assert set(follow(LearningRateState(), schedule, falling_then_flat(falling=400, flat=0))) == {None}


@pytest.mark.parametrize("schedule", [WarmupConstantCosine(), StepDowns()])
def test_without_a_rule_nothing_is_noticed(schedule):
    state = LearningRateState()
    follow(state, schedule, [1.0] * 300)
    assert state == LearningRateState()


@pytest.mark.parametrize("stop", [0, 1, 100, 230])
def test_the_state_survives_as_plain_data(stop):
    schedule = WarmupConstantCosine(plateau=Plateau(smoothing=0.9, patience=30))
    losses = falling_then_flat(falling=150, flat=250)
    whole = LearningRateState()
    expected = follow(whole, schedule, losses)
    first = LearningRateState()
    begun = follow(first, schedule, losses[:stop])
    plain = json.loads(json.dumps(asdict(first)))
    second = LearningRateState(detector=PlateauDetector(**plain["detector"]), plateau_at=plain["plateau_at"])
    assert begun + follow(second, schedule, losses[stop:], first=stop + 1) == expected
    assert second == whole


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"smoothing": 1.0}, r"smoothing must be in \[0, 1\), got 1.0"),
        ({"smoothing": -0.1}, "got -0.1"),
        ({"patience": 0}, "patience must be at least 1 reading, got 0"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Plateau(**options)


# --- as configuration ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Something that has a schedule, as a run's configuration does."""

    learning_rate: LearningRate


@pytest.mark.parametrize(
    "schedule",
    [WarmupConstantCosine(plateau=Plateau(patience=7)), StepDowns(levels=((0.0, 2.0), (0.25, 1.0)), floor=0.5)],
)
def test_a_schedule_goes_through_json_with_its_kind(schedule):
    text = to_json(Holder(learning_rate=schedule))
    assert json.loads(text)["learning_rate"]["kind"] == type(schedule).__name__
    assert from_json(Holder, text) == Holder(learning_rate=schedule)
