"""Scores, reveal orders and likelihoods equal those of the authors' code (tolerances: TOLERANCES in data/README.md)."""

import json
import math
from pathlib import Path

import pytest

from illada.evaluate.scoring import ScoringParams, best, score_candidates
from illada.evaluate.shared_forwards import Candidate

GOLDEN = json.loads((Path(__file__).parent / "data" / "expected" / "scoring.json").read_text())
MASK = {"illada": 5, "llada": 500}
EOS = 2
SETTINGS = [(name, setting) for name in ("illada", "llada") for setting in GOLDEN["items"][0][name]]
CASES = [(item, name, setting) for item in GOLDEN["items"] for name, setting in SETTINGS if setting in item[name]]


def cases_with(key):
    """Those whose candidates have this number stored."""
    cases = [case for case in CASES if key in case[0][case[1]][case[2]]["candidates"][0]]
    ids = [f"{item['id']}-{name}-{setting}" for item, name, setting in cases]
    return pytest.mark.parametrize(("item", "name", "setting"), cases, ids=ids)


def scores(load, name, candidates, *, end, **options):
    """Of one item's candidates, as the golden file has them."""
    texts = [
        Candidate(prompt=tuple(one["prefix_ids"]), target=tuple(one["target_ids"]), behind=(EOS,) if end else ())
        for one in candidates
    ]
    params = ScoringParams(**options)
    return score_candidates(load(name), texts, params, mask_id=MASK[name], byte_counts=[1] * len(texts))


@cases_with("confidence_score")
def test_confidence_scores_and_orders(item, name, setting, load):
    stored = item[name][setting]["candidates"]
    guidance = 1.5 if "cfg" in setting else 0.0
    found = scores(load, name, stored, end="eos1" in setting, guidance=guidance)
    for score, one in zip(found, stored, strict=True):
        assert score.log_probability == pytest.approx(one["confidence_score"], abs=6e-4 if guidance else 3e-4)
        assert list(score.order) == one["reveal_order"]
        if "step_logprobs" in one:
            assert score.terms == pytest.approx(one["step_logprobs"], abs=2e-4)
    if "best_by_confidence" in item[name][setting]:
        assert best(found) == item[name][setting]["best_by_confidence"]


@cases_with("likelihood_exact")
def test_exact_likelihoods(item, name, setting, load):
    stored = item[name][setting]["candidates"]
    found = scores(load, name, stored, end="eos1" in setting, method="exact")
    for score, one in zip(found, stored, strict=True):
        assert score.log_probability == pytest.approx(one["likelihood_exact"], abs=3e-4)
        assert score.standard_error == 0
    if "best_by_likelihood" in item[name][setting]:
        assert best(found) == item[name][setting]["best_by_likelihood"]


@pytest.mark.parametrize("item", GOLDEN["items"], ids=lambda item: item["id"])
def test_the_estimator_is_unbiased(item, load):
    """Within four of its own standard errors of the enumeration, at 4,096 samples."""
    stored = item["illada"]["bos1_eos1"]["candidates"]
    found = scores(load, "illada", stored, end=True, method="likelihood", samples=4096)
    for score, one in zip(found, stored, strict=True):
        allowed = 4 * score.standard_error + 3e-4
        assert abs(score.log_probability - one["likelihood_exact"]) <= allowed
        # and not because the error is large: single samples of such targets spread over tens of nats
        assert score.standard_error < 0.4


@pytest.mark.parametrize("item", GOLDEN["items"], ids=lambda item: item["id"])
def test_greedy_is_what_the_authors_call_greedy(item, load):
    stored = item["illada"]["bos0_eos0"]["candidates"]
    found = scores(load, "illada", stored, end=False, greedy=True)
    assert [score.greedy for score in found] == [one["greedy"] for one in stored]


@pytest.mark.parametrize("case", GOLDEN["greedy_cases"], ids=lambda case: str(len(case["target_ids"])))
def test_a_greedy_target_and_one_token_changed(case, load):
    pair = [{**case, "target_ids": case[key]} for key in ("target_ids", "changed_target_ids")]
    found = scores(load, "illada", pair, end=False, greedy=True)
    assert [score.greedy for score in found] == [case["greedy"], case["changed_greedy"]] == [True, False]


def test_no_bias_is_left_when_all_are_added_up(load):
    """Errors of independent estimates would cancel, a bias would add up; errors of a wrong size would show, too."""
    stored = [one for item in GOLDEN["items"] for one in item["illada"]["bos1_eos1"]["candidates"]]
    scattered = []
    for seed in range(4):
        found = scores(load, "illada", stored, end=True, method="likelihood", samples=512, seed=seed)
        scattered += [
            (score.log_probability - one["likelihood_exact"]) / score.standard_error
            for score, one in zip(found, stored, strict=True)
            if score.standard_error
        ]
    count = len(scattered)
    assert count >= 4 * 20
    assert abs(sum(scattered)) <= 4 * math.sqrt(count)
    # an error that errs on the safe side, but is of the right size
    assert 0.2 * count < sum(value**2 for value in scattered) < 1.3 * count


def test_there_is_much_to_compare():
    candidates = [one for item, name, setting in CASES for one in item[name][setting]["candidates"]]
    assert len(GOLDEN["items"]) >= 5
    assert {setting for _, setting in SETTINGS} >= {"bos1_eos1", "bos0_eos0"}
    for key, count in (("confidence_score", 190), ("reveal_order", 190), ("likelihood_exact", 230)):
        assert sum(key in one for one in candidates) >= count, key


def test_all_items_at_once_get_what_each_gets_alone(load):
    stored = [one for item in GOLDEN["items"] for one in item["illada"]["bos1_eos1"]["candidates"]]
    together = scores(load, "illada", stored, end=True)
    for score, one in zip(together, stored, strict=True):
        assert math.isclose(score.log_probability, one["confidence_score"], abs_tol=3e-4)
        assert list(score.order) == one["reveal_order"]
