"""The four rules of scoring, each against a plain loop of one row at a time, and what does not change a score."""

import math
from dataclasses import replace
from itertools import combinations

import pytest
import torch

from illada.diffusion.likelihood import all_masks
from illada.evaluate.scoring import ScoringParams, best, score_candidates
from illada.evaluate.shared_forwards import Candidate, Forwards, Look
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer, initialize

MASK, EOS = 1, 2
VOCAB = 23
CONFIG = ModelConfig(
    vocab_size=VOCAB, hidden_size=16, layers=2, heads=2, kv_heads=1, ffn_size=32, max_length=40, init_std=0.6
)
TEXTS = [
    Candidate(prompt=(5, 6, 7), target=(8, 9, 10, 8), behind=(EOS,)),
    Candidate(prompt=(5, 6, 7), target=(8, 9, 11, 3), behind=(EOS,)),
    Candidate(prompt=(5,), target=(9,), behind=(EOS,)),
    Candidate(prompt=(7, 7, 7, 7, 4), target=(3, 12), behind=(EOS,)),
    Candidate(prompt=(5, 6, 7), target=(20,), behind=(EOS,)),
]


def make(**changes):
    model = Transformer(ModelConfig(**{**vars(CONFIG), **changes}))
    initialize(model, seed=3)
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return make()


def scored(model, texts, **options):
    params = ScoringParams(**options)
    return score_candidates(model, texts, params, mask_id=MASK, byte_counts=[3] * len(texts))


def row_log_probabilities(model, text, hidden, guidance=0.0):
    """log p of every vocabulary entry at every target position, from one row by itself."""
    target = [MASK if place in hidden else token for place, token in enumerate(text.target)]
    start, stop = len(text.prompt), len(text.prompt) + len(target)

    def logits(prompt):
        tokens = torch.tensor([[*prompt, *target, *text.behind]])
        with torch.no_grad():
            return model.logits(model(tokens))[0, start:stop]

    seen = logits(text.prompt)
    if guidance:
        unconditional = logits([MASK] * len(text.prompt))
        seen = unconditional + (guidance + 1) * (seen - unconditional)
    return seen.log_softmax(-1)


def naive_confidence(model, text, guidance=0.0):
    hidden, order, terms = set(range(len(text.target))), [], []
    while hidden:
        seen = row_log_probabilities(model, text, hidden, guidance)
        place = max(hidden, key=lambda place: float(seen[place, text.target[place]]))
        terms.append(float(seen[place, text.target[place]]))
        order.append(place)
        hidden.remove(place)
    return sum(terms), order, terms


def naive_exact(model, text):
    length, total = len(text.target), 0.0
    for count in range(1, length + 1):
        subsets = list(combinations(range(length), count))
        sums = []
        for hidden in subsets:
            seen = row_log_probabilities(model, text, set(hidden))
            sums.append(sum(float(seen[place, text.target[place]]) for place in hidden))
        total += (length / count) * sum(sums) / len(sums) / length
    return total


def naive_chain(model, text):
    terms = []
    for place, token in enumerate(text.target):
        hidden = set(range(place, len(text.target)))
        terms.append(float(row_log_probabilities(model, text, hidden)[place, token]))
    return terms


def naive_greedy(model, text):
    hidden, written = set(range(len(text.target))), dict(enumerate(text.target))
    while hidden:
        seen = row_log_probabilities(model, Candidate(**{**vars(text), "target": tuple(written.values())}), hidden)
        place = max(hidden, key=lambda place: float(seen[place].max()))
        written[place] = int(seen[place].argmax())
        hidden.remove(place)
    return tuple(written.values()) == text.target


# --- the rules ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guidance", [0.0, 0.7])
def test_confidence_equals_a_loop_of_single_rows(model, guidance):
    for score, text in zip(scored(model, TEXTS, guidance=guidance), TEXTS, strict=True):
        value, order, terms = naive_confidence(model, text, guidance)
        assert score.log_probability == pytest.approx(value, abs=2e-5)
        assert list(score.order) == order
        assert score.terms == pytest.approx(terms, abs=2e-5)
        rows = len(text.target) * (2 if guidance else 1)
        assert (score.forwards, score.positions) == (rows, rows * text.length)


def test_exact_equals_an_enumeration_by_hand(model):
    for score, text in zip(scored(model, TEXTS, method="exact"), TEXTS, strict=True):
        assert score.log_probability == pytest.approx(naive_exact(model, text), abs=2e-5)
        assert score.forwards == 2 ** len(text.target) - 1


def test_chain_equals_a_loop_from_left_to_right(model):
    for score, text in zip(scored(model, TEXTS, method="chain"), TEXTS, strict=True):
        assert score.terms == pytest.approx(naive_chain(model, text), abs=2e-5)
        assert score.log_probability == pytest.approx(sum(score.terms))
        assert list(score.order) == list(range(len(text.target)))


def test_likelihood_comes_near_the_exact_bound(model):
    exact = scored(model, TEXTS, method="exact")
    for score, true in zip(scored(model, TEXTS, method="likelihood", samples=4096), exact, strict=True):
        assert abs(score.log_probability - true.log_probability) <= 4 * score.standard_error + 1e-5


def test_the_standard_error_of_the_likelihood_is_that_of_its_estimates(model):
    """Over many seeds, the estimates spread as the error says; too much rather than too little."""
    text = TEXTS[0]
    found = [scored(model, [text], method="likelihood", samples=16, seed=seed)[0] for seed in range(60)]
    values = torch.tensor([score.log_probability for score in found], dtype=torch.float64)
    mean_error = sum(score.standard_error for score in found) / len(found)
    assert 0.6 * float(values.std()) < mean_error < 2 * float(values.std())


def test_one_token_needs_one_forward_and_no_sample(model):
    [score] = scored(model, [TEXTS[2]], method="likelihood", samples=1)
    assert (score.forwards, score.standard_error) == (1, 0)
    assert score.log_probability == pytest.approx(naive_exact(model, TEXTS[2]), abs=1e-5)


def test_one_sample_of_a_longer_answer_has_an_infinite_error(model):
    assert scored(model, [TEXTS[0]], method="likelihood", samples=1)[0].standard_error == math.inf


def test_equal_masks_among_the_samples_are_computed_once(model):
    assert scored(model, [TEXTS[3]], method="likelihood", samples=500)[0].forwards == 3


def test_greedy_is_what_the_model_would_have_written(model):
    # walk along the model's own choices to get a target that is greedy
    text, hidden = TEXTS[0], {0, 1, 2, 3}
    written = list(text.target)
    while hidden:
        seen = row_log_probabilities(model, Candidate(**{**vars(text), "target": tuple(written)}), hidden)
        place = max(hidden, key=lambda place: float(seen[place].max()))
        written[place] = int(seen[place].argmax())
        hidden.remove(place)
    own = Candidate(**{**vars(text), "target": tuple(written)})
    texts = [own, *TEXTS]
    found = [score.greedy for score in scored(model, texts, greedy=True)]
    assert found == [naive_greedy(model, text) for text in texts]
    assert found[0] is True
    assert False in found


@pytest.mark.parametrize("method", ["confidence", "likelihood", "exact", "chain"])
def test_greedy_is_the_same_with_every_method(model, method):
    found = scored(model, TEXTS, greedy=True, method=method, samples=3)
    assert [score.greedy for score in found] == [naive_greedy(model, text) for text in TEXTS]
    plain = scored(model, TEXTS, method=method, samples=3)
    assert [score.log_probability for score in found] == [score.log_probability for score in plain]


def test_greedy_costs_nothing_where_the_rule_has_seen_it_all(model):
    """The row of masks is the first step of both, and the enumeration holds every row."""
    for method in ("confidence", "exact"):
        plain, found = (scored(model, TEXTS, method=method, greedy=greedy) for greedy in (False, True))
        wrong_at_once = [
            not _first_choice_is_own(row_log_probabilities(model, text, set(range(len(text.target)))), text)
            for text in TEXTS
        ]
        assert any(wrong_at_once)
        for before, after, early in zip(plain, found, wrong_at_once, strict=True):
            if early or method == "exact":
                assert after.forwards == before.forwards


def _first_choice_is_own(seen, text):
    place = int(seen.max(-1).values.argmax())
    return int(seen[place].argmax()) == text.target[place]


def test_greedy_is_not_told_unless_it_is_asked(model):
    assert {score.greedy for score in scored(model, TEXTS)} == {None}


def test_a_causal_model_gives_the_log_likelihood_itself():
    model = make(attention="causal")
    text = Candidate(prompt=(5, 6), target=(7, 8, 9))
    [score] = scored(model, [text], method="chain")
    with torch.no_grad():
        logits = model.logits(model(torch.tensor([[5, 6, 7, 8]])))[0, 1:]
    terms = logits.log_softmax(-1)[torch.arange(3), torch.tensor([7, 8, 9])]
    assert score.terms == pytest.approx(terms.tolist(), abs=1e-5)
    assert score.forwards == 1
    assert score.greedy is bool((logits.argmax(-1) == torch.tensor([7, 8, 9])).all())


# --- what does not change a score ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["confidence", "likelihood", "exact", "chain"])
@pytest.mark.parametrize("positions", [1, 30, 100_000])
def test_a_score_does_not_depend_on_the_batch(model, method, positions):
    together = scored(model, TEXTS[::-1], method=method, samples=8, positions_per_forward=positions)[::-1]
    for score, text in zip(together, TEXTS, strict=True):
        [alone] = scored(model, [text], method=method, samples=8)
        assert score.log_probability == pytest.approx(alone.log_probability, abs=2e-5)
        assert score.order == alone.order
        assert score.forwards == alone.forwards


def test_noise_depends_on_seed_and_tokens(model):
    def values(**options):
        return [score.log_probability for score in scored(model, TEXTS[:2], method="likelihood", samples=3, **options)]

    assert values() == values()
    assert values(seed=1) != values()


# --- sharing ------------------------------------------------------------------------------------------------------


def counted(model, texts, **options):
    """Rows of every forward."""
    rows = []
    hook = model.register_forward_pre_hook(lambda module, arguments: rows.append(len(arguments[0])))
    try:
        scored(model, texts, **options)
    finally:
        hook.remove()
    return rows


def test_candidates_of_one_question_share_the_row_of_masks(model):
    letters = [Candidate(prompt=(5, 6, 7), target=(token,)) for token in (8, 9, 10, 11)]
    assert counted(model, letters) == [1]


def test_equal_rows_are_shared_where_there_is_no_room_for_another(model):
    letters = [Candidate(prompt=(5, 6, 7), target=(token,)) for token in (8, 9, 10, 11)]
    others = [Candidate(prompt=(6, 6, 7), target=(token,)) for token in (8, 9, 10, 11)]
    assert counted(model, letters + others, positions_per_forward=letters[0].length) == [1, 1]


def test_rows_of_other_lengths_share_a_forward_while_little_is_padding(model):
    texts = [Candidate(prompt=(5,) * length, target=(8,)) for length in (3, 3, 4, 9)]
    # with two rows of 4 tokens, one of 5 takes 2 positions of padding: a sixteenth of 32
    assert counted(
        model,
        [replace(text, prompt=(number, *text.prompt[1:])) for number, text in enumerate(texts)],
        positions_per_forward=32,
    ) == [3, 1]


def test_what_is_equal_after_some_reveals_is_shared_too(model):
    twins = [TEXTS[0], TEXTS[0]]
    assert counted(model, twins) == [1] * 4


def test_many_rows_of_one_candidate_are_cut_into_forwards(model):
    rows = counted(model, [TEXTS[0]], method="exact", positions_per_forward=4 * TEXTS[0].length)
    assert rows == [4, 4, 4, 3]


def test_a_rule_begins_when_there_is_room_for_it(model):
    """A look of many rows takes memory, and thousands of candidates wait."""
    begun, done, most = [], [], []

    def rule(candidate):
        begun.append(candidate)
        most.append(len(begun) - len(done))
        hidden = all_masks(len(candidate.target))[0].numpy()
        yield Look(hidden=hidden, wanted=hidden)
        done.append(candidate)
        return 1

    # equal rows are computed once, so each has a prompt of its own
    texts = [replace(TEXTS[0], prompt=(number % 10, number // 10, *TEXTS[0].prompt[2:])) for number in range(20)]
    outcomes = Forwards(model=model, mask_id=MASK, positions=30 * TEXTS[0].length).run(texts, rule)
    assert len(outcomes) == len(begun) == 20
    # a forward holds two looks of 15 rows
    assert max(most) <= 3


def test_progress_counts_finished_candidates(model):
    told = []
    score_candidates(model, TEXTS, ScoringParams(), mask_id=MASK, byte_counts=[1] * 5, on_progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 5


# --- choosing and refusing ----------------------------------------------------------------------------------------


def test_the_best_by_sum_by_token_and_by_byte(model):
    short, long = scored(model, [TEXTS[2], TEXTS[0]])
    assert short.log_probability > long.log_probability
    assert best([long, short]) == 1
    assert long.normalised("tokens") == long.log_probability / 4
    assert long.normalised("bytes") == long.log_probability / 3
    per_token = [long.normalised("tokens"), short.normalised("tokens")]
    assert best([long, short], normalise="tokens") == per_token.index(max(per_token))


def test_of_equal_scores_the_first_is_best(model):
    [score] = scored(model, [TEXTS[0]])
    assert best([score, score]) == 0


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (Candidate(prompt=(5,), target=()), {}, "0 tokens"),
        (Candidate(prompt=(5,), target=(MASK,)), {}, r"\[MASK\] \(1\)"),
        (Candidate(prompt=(5,), target=(3,) * 40), {}, "41 tokens.*holds 40"),
        (Candidate(prompt=(5,), target=(3,) * 17), {"method": "exact"}, "at most 16 tokens.*has 17"),
    ],
)
def test_what_cannot_be_scored_is_refused(model, text, options, message):
    with pytest.raises(ValueError, match=message):
        scored(model, [text], **options)


def test_a_causal_model_takes_the_chain_alone():
    model = make(attention="causal")
    with pytest.raises(ValueError, match="method chain"):
        scored(model, [TEXTS[0]])
    with pytest.raises(ValueError, match="begin it with BOS"):
        scored(model, [Candidate(prompt=(), target=(3,))], method="chain")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples must be at least 1"),
        ({"positions_per_forward": 0}, "positions_per_forward must be at least 1"),
        ({"guidance": -1.0}, "guidance must be 0 or more"),
    ],
)
def test_parameters_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ScoringParams(**options)


def test_nothing_to_choose_from():
    with pytest.raises(ValueError, match="0 candidates"):
        best([])


def test_nothing_to_score_is_no_error(model):
    assert scored(model, []) == []
