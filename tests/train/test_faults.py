import json
import math

import pytest

from illada.train.faults import FaultConfig, FaultyStepError, LossWatch, Rollback, Rollbacks, read_rollbacks


def entry(step, back_to, first=0, examples=8, factor=1.0):
    return Rollback(
        step=step,
        reason="the loss is nan",
        back_to=back_to,
        first_example=first,
        examples=examples,
        rate_factor=factor,
    )


# --- configuration ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"spike": 1.0}, "spike must be above 1, the running mean itself, got 1.0"),
        ({"skip_steps": 0}, "skip_steps must be at least 1 and rollbacks at least 0, got 0 and 3"),
        ({"rollbacks": -1}, "skip_steps must be at least 1 and rollbacks at least 0, got 1 and -1"),
        ({"rate_factor": 1.5}, r"rate_factor must lie in \(0, 1\], got 1.5"),
        ({"rate_factor": 0.0}, r"rate_factor must lie in \(0, 1\], got 0.0"),
        ({"pause_minutes": math.inf}, "pause_minutes must be 0 or more, got inf"),
    ],
)
def test_what_makes_no_sense_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        FaultConfig(**values)


# --- what is a fault ----------------------------------------------------------------------------------------------

SPIKE = FaultConfig(spike=3.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_a_fault_from_the_first_step_on(bad):
    assert LossWatch().read(bad, 1.0, FaultConfig()) == f"the loss is {bad}"
    assert LossWatch().read(1.0, bad, FaultConfig()) == f"the norm of the gradient is {bad}"


def test_the_mean_is_that_of_the_steps_while_they_are_few():
    watch, seen = LossWatch(), []
    for loss in (4.0, 2.0, 6.0, 1.0):
        seen.append(loss)
        assert watch.read(loss, 1.0, SPIKE) is None
        assert watch.mean == pytest.approx(sum(seen) / len(seen))


def test_a_loss_far_above_the_mean_is_a_fault_with_both_numbers():
    watch = LossWatch()
    for _ in range(30):
        watch.read(2.0, 1.0, SPIKE)
    assert watch.read(5.9, 1.0, SPIKE) is None
    assert watch.read(9.0, 1.0, SPIKE) == f"the loss is 9.000, {9 / watch.mean:.1f} times its running mean of 2.195"


def test_a_fault_does_not_move_the_mean():
    watch = LossWatch()
    for _ in range(30):
        watch.read(2.0, 1.0, SPIKE)
    before = (watch.mean, watch.steps)
    watch.read(100.0, 1.0, SPIKE)
    watch.read(math.nan, 1.0, SPIKE)
    assert (watch.mean, watch.steps) == before


def test_the_first_steps_may_jump():
    watch = LossWatch()
    watch.read(1.0, 1.0, SPIKE)
    assert watch.read(50.0, 1.0, SPIKE) is None


def test_without_a_bound_no_height_is_a_fault():
    watch = LossWatch()
    for _ in range(50):
        watch.read(1.0, 1.0, FaultConfig())
    assert watch.read(1e30, 1.0, FaultConfig()) is None


def test_a_falling_loss_is_never_a_fault():
    watch = LossWatch()
    assert all(watch.read(10 * 0.99**step, 1.0, FaultConfig(spike=1.01)) is None for step in range(500))


def test_the_error_says_which_step_and_what_to_do():
    error = FaultyStepError("the loss is nan", step=7, examples=(48, 8))
    assert str(error).startswith("the loss is nan at step 7: lower the learning rate")
    assert isinstance(error, FloatingPointError)


# --- what was done ------------------------------------------------------------------------------------------------


def test_a_line_for_a_person():
    assert entry(31, 20, first=240).line() == (
        "the loss is nan at step 31: back to step 20; the 8 examples from number 240 on are passed over"
    )
    assert entry(31, 20, factor=0.25).line().endswith("passed over, the learning rate is 0.25 of what it was")


def test_examples_are_passed_when_their_turn_comes():
    rollbacks = Rollbacks(entries=[entry(31, 20, first=240), entry(40, 30, first=304, examples=24)])
    passed = {example: rollbacks.examples_to_pass(example) for example in range(232, 336, 8)}
    assert {example: count for example, count in passed.items() if count} == {240: 8, 304: 24, 312: 16, 320: 8}


def test_windows_that_overlap_are_passed_as_one():
    rollbacks = Rollbacks(entries=[entry(31, 20, first=232, examples=16), entry(32, 20, first=240, examples=16)])
    passed, example = [], 232
    while count := rollbacks.examples_to_pass(example):
        passed.append(count)
        example += count
    assert (passed, example) == ([16, 8], 256)


def test_nothing_is_passed_where_nothing_went_wrong():
    assert Rollbacks().examples_to_pass(0) == 0
    assert Rollbacks().rate_factor(0) == 1.0


def test_the_rate_is_lower_from_the_checkpoint_on():
    rollbacks = Rollbacks(entries=[entry(31, 20, factor=0.5), entry(48, 40, factor=0.25)])
    assert [rollbacks.rate_factor(step) for step in (0, 19, 20, 39, 40, 100)] == [1.0, 1.0, 0.5, 0.5, 0.125, 0.125]


def test_returns_in_vain_are_those_since_the_run_got_on():
    rollbacks = Rollbacks(entries=[entry(12, 10), entry(33, 30), entry(34, 30)])
    assert rollbacks.in_vain(30) == 2
    assert rollbacks.in_vain(40) == 0
    assert rollbacks.in_vain(10) == 3  # further back than the latest: nothing was won by them


def test_they_are_kept_in_a_file(tmp_path):
    path = tmp_path / "rollbacks.jsonl"
    assert read_rollbacks(path) == []
    rollbacks = Rollbacks(entries=[entry(31, 20, first=240), entry(40, 30, factor=0.5)])
    rollbacks.save(path)
    assert read_rollbacks(path) == rollbacks.entries
    assert json.loads(path.read_text().splitlines()[0])["reason"] == "the loss is nan"
