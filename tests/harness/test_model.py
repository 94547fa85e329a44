"""The model of lm-eval against `illada.pipeline`, request by request."""

import logging
from importlib.metadata import entry_points

import pytest
import torch

from illada.evaluate.perplexity import perplexity
from illada.evaluate.scoring import ScoringParams

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install illada[eval]")

from lm_eval.api.model import CachingLM
from lm_eval.api.registry import get_model

from illada.harness import model as harness
from illada.harness.model import IlladaLM

PAIRS = [
    ("the cat sat on", " the mat and the dog"),
    ("", "the cat"),
    ("the dog", " sat"),
    ("a man in a hat ", "had"),
    ("the cat sat on", " the log"),
    ("the cat sat on the mat and the dog sat on the log, while a man in a hat had", " a chat with the cat"),
    ("the dog", " sat"),
]
PROMPTS = ["the cat", "the dog sat on the log, while a man", "a", "the cat sat on the mat and the dog", ""]
ASKED = [
    {"role": "user", "content": "the [EOS] cat"},
    {"role": "assistant", "content": "sat"},
    {"role": "user", "content": "[USER]on the mat"},
]


@pytest.fixture
def lm(model):
    return IlladaLM(pretrained=model)


def close(found, expected):
    return [value for value, _ in found] == pytest.approx([score.log_probability for score in expected], abs=1e-6)


# --- loglikelihood ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["confidence", "likelihood", "exact", "chain"])
def test_scores_are_those_of_the_pipeline_in_the_order_of_the_requests(model, requests_of, method):
    lm = IlladaLM(pretrained=model, method=method, samples=4, seed=3)
    params = ScoringParams(method=method, samples=4, seed=3, greedy=True)
    expected = [model.score(context, [continuation], params)[0] for context, continuation in PAIRS]
    found = lm.loglikelihood(requests_of(*PAIRS), disable_tqdm=True)
    assert close(found, expected)
    assert [greedy for _, greedy in found] == [score.greedy for score in expected]


def test_what_the_model_would_have_written_is_greedy(model, requests_of, monkeypatch):
    """A model that likes one token best everywhere would have written that one, and nothing else."""
    [fond] = model.tokenizer.encode(" cat")
    bonus = 100.0 * torch.nn.functional.one_hot(torch.tensor(fond), model.tokenizer.vocab_size)
    logits = type(model.transformer).logits
    monkeypatch.setattr(type(model.transformer), "logits", lambda self, hidden: logits(self, hidden) + bonus)
    requests = requests_of(("the", " cat"), ("the", " cat cat"), ("the", " cat sat"), ("the", " sat"))
    for method in ("confidence", "likelihood", "exact", "chain"):
        found = IlladaLM(pretrained=model, method=method, samples=3).loglikelihood(requests, disable_tqdm=True)
        assert [greedy for _, greedy in found] == [True, True, False, False]
    found = IlladaLM(pretrained=model, greedy=False).loglikelihood(requests, disable_tqdm=True)
    assert [greedy for _, greedy in found] == [False] * 4, "not asked"


def test_without_bos_and_without_an_end(model, requests_of):
    lm = IlladaLM(pretrained=model, add_bos_token=False, end=False)
    encode = model.tokenizer.encode
    context, continuation = "the cat", " sat on"
    [[expected]] = model.score_ids([encode(context)], [[encode(continuation)]], end=False)
    assert close(lm.loglikelihood(requests_of((context, continuation)), disable_tqdm=True), [expected])
    assert not close(IlladaLM(pretrained=model).loglikelihood(requests_of((context, continuation)), True), [expected])


def test_a_prompt_that_does_not_fit_is_cut_on_the_left_and_that_is_said_once(lm, model, requests_of, caplog):
    long = "the cat sat on the mat. " * 30
    encode, bos = model.tokenizer.encode, model.tokenizer.specials.bos
    target = encode(" the dog")
    kept = encode(long.rstrip())[-(64 - len(target) - 2) :]
    [[expected]] = model.score_ids([[bos, *kept]], [[target]])
    requests = requests_of((long.rstrip(), " the dog"), ("the", " cat"), (long.rstrip(), " the dog"))
    with caplog.at_level(logging.WARNING):
        found = lm.loglikelihood(requests, disable_tqdm=True)
    assert close(found[:1], [expected])
    [line] = caplog.messages
    assert line.startswith("2 of 3 prompts do not fit the context of 64 tokens")


def test_what_cannot_be_scored_is_refused_before_the_first_forward(lm, requests_of, forwards):
    with pytest.raises(ValueError, match="are to be scored, but the model's context holds 64"):
        lm.loglikelihood(requests_of(("the", " cat"), ("the", " cat" * 80)), disable_tqdm=True)
    with pytest.raises(ValueError, match="adds no token"):
        lm.loglikelihood(requests_of(("the", " cat"), ("the", "")), disable_tqdm=True)
    assert forwards == []


def test_requests_of_unequal_length_share_forwards(lm, model, requests_of, forwards):
    lm.loglikelihood(requests_of(*PAIRS), disable_tqdm=True)
    together = len(forwards)
    assert max(rows for rows, _ in forwards) >= 4
    forwards.clear()
    for pair in PAIRS:
        lm.loglikelihood(requests_of(pair), disable_tqdm=True)
    assert together < len(forwards) / 2


def test_a_causal_model_needs_no_method(causal, requests_of):
    lm = IlladaLM(pretrained=causal)
    tokens = [causal.tokenizer.specials.bos, *causal.tokenizer.encode("the cat sat")]
    with torch.no_grad():
        log_probabilities = causal.transformer.logits(causal.transformer(torch.tensor([tokens[:-1]])))[0].log_softmax(
            -1
        )
    start = 1 + len(causal.tokenizer.encode("the cat"))
    nats = sum(float(log_probabilities[place - 1, tokens[place]]) for place in range(start, len(tokens)))
    [(found, _)] = lm.loglikelihood(requests_of(("the cat", " sat")), disable_tqdm=True)
    assert found == pytest.approx(nats, abs=1e-6)
    with pytest.raises(ValueError, match="method chain"):
        IlladaLM(pretrained=causal, method="confidence").loglikelihood(requests_of(("the", " cat")), disable_tqdm=True)


# --- loglikelihood_rolling ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["model", "causal"])
def test_texts_cost_what_perplexity_says(kind, request, requests_of, monkeypatch):
    model = request.getfixturevalue(kind)
    monkeypatch.setattr(harness, "_MEASURED_TOGETHER", 2)
    texts = ["the cat sat on the mat and the dog sat on the log " * 9, "", "a man", "a hat"]
    lm = IlladaLM(pretrained=model, rolling_samples=3, stride=40, seed=5)
    found = lm.loglikelihood_rolling(requests_of(*[(text,) for text in texts]), disable_tqdm=True)
    for text, value in zip(texts, found, strict=True):
        if not text:
            assert value == 0
            continue
        specials = model.tokenizer.specials
        expected = perplexity(
            model.transformer,
            [model.tokenizer.encode(text)],
            bos_id=specials.bos,
            mask_id=specials.mask,
            byte_count=1,
            samples=3,
            stride=40,
            seed=5,
        )
        assert value == pytest.approx(-expected.nats, abs=1e-6)


# --- generate_until -----------------------------------------------------------------------------------------------


def test_answers_are_those_of_the_pipeline_in_the_order_of_the_requests(lm, model, requests_of):
    settings = [{"until": ["a"], "max_gen_toks": 12}, {"until": [], "max_gen_toks": 5, "block_length": 2}]
    arguments = [(prompt, settings[number % 2]) for number, prompt in enumerate(PROMPTS)]
    found = lm.generate_until(requests_of(*arguments), disable_tqdm=True)
    for (prompt, given), text in zip(arguments, found, strict=True):
        options = {"length": given["max_gen_toks"], "stop": tuple(given["until"])}
        assert text == model.generate(prompt, block_length=given.get("block_length", 32), **options).text
        assert not any(stop in text for stop in given["until"])
    assert len(set(found)) > 2


def test_the_batch_size_is_how_many_are_handed_on(model, requests_of, monkeypatch):
    handed = []
    complete = type(model).complete_ids
    monkeypatch.setattr(
        type(model),
        "complete_ids",
        lambda self, ids, *rest, **named: handed.append(len(ids)) or complete(self, ids, *rest, **named),
    )
    arguments = [(prompt, {"max_gen_toks": 4}) for prompt in PROMPTS]
    expected = IlladaLM(pretrained=model, batch_size="auto").generate_until(requests_of(*arguments), disable_tqdm=True)
    assert IlladaLM(pretrained=model, batch_size="2").generate_until(requests_of(*arguments), True) == expected
    assert handed == [5, 2, 2, 1]


def test_chance_is_the_requests_own(lm, requests_of):
    """Repeats differ, and all come out the same when they are asked again."""
    warm = {"do_sample": True, "temperature": 1.0, "max_gen_toks": 8}
    requests = requests_of(*[(prompt, dict(warm)) for prompt in PROMPTS[:2] for _ in range(3)])
    found = lm.generate_until(requests, disable_tqdm=True)
    assert len(set(found[:3])) == len(set(found[3:])) == 3
    assert lm.generate_until(requests, disable_tqdm=True) == found
    greedy = [(PROMPTS[0], {**warm, "do_sample": False})] * 2
    assert len(set(lm.generate_until(requests_of(*greedy), disable_tqdm=True))) == 1


def test_a_long_prompt_is_cut_and_the_answer_has_room(lm, model, requests_of, caplog):
    long = "the cat sat on the mat. " * 30
    ids = [model.tokenizer.specials.bos, *model.tokenizer.encode(long)[-(64 - 16 - 1) :]]
    [expected] = model.complete_ids([ids], length=40)
    with caplog.at_level(logging.WARNING):
        found = lm.generate_until(requests_of((long, {"max_gen_toks": 40}), ("a", {"max_gen_toks": 40})), True)
    assert found[0] == expected.text
    assert len(expected.tokens) <= 16
    cut, short = caplog.messages
    assert cut.startswith("1 of 2 prompts do not fit the context of 64 tokens")
    assert short.startswith("1 of 2 answers get fewer tokens than asked for: the context of 64 holds from 16 on")


def test_settings_are_refused_before_the_first_forward(lm, requests_of, forwards):
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        lm.generate_until(requests_of(("a", {}), ("b", {"max_gen_toks": 0})), disable_tqdm=True)
    with pytest.raises(ValueError, match="fixed canvas of 64"):
        lm.generate_until(requests_of(("a", {}), ("b", {"max_gen_toks": 64, "canvas": "fixed"})), disable_tqdm=True)
    assert forwards == []


def test_what_is_ignored_is_said_once(lm, requests_of, caplog):
    with caplog.at_level(logging.WARNING):
        lm.generate_until(requests_of(*[("a", {"max_gen_toks": 2, "top_k": 5, "num_beams": 1})] * 3), disable_tqdm=True)
    assert caplog.messages == ["generation settings without a meaning here are ignored: num_beams, top_k"]


def test_thoughts_are_left_out(model, requests_of):
    """Only what stands behind the last marker counts; the marker here is a letter that the model writes."""
    [(text,)] = [IlladaLM(pretrained=model, max_gen_toks=30).generate_until(requests_of(("the cat", {})), True)]
    marker = text[len(text) // 2]
    lm = IlladaLM(pretrained=model, max_gen_toks=30, think_end_token=marker)
    assert lm.generate_until(requests_of(("the cat", {})), True) == [text.rsplit(marker, 1)[1].lstrip()]


# --- chat ---------------------------------------------------------------------------------------------------------


def test_a_dialogue_is_answered_as_by_the_pipeline(lm, model, requests_of):
    prompt = lm.apply_chat_template(ASKED)
    found = lm.generate_until(requests_of((prompt, {"max_gen_toks": 9})), disable_tqdm=True)
    assert found == [model.chat([ASKED], length=9)[0].text]
    [[expected]] = model.score_ids([model.chat_template.encode(ASKED)], [[model.tokenizer.encode("the dog")]])
    assert close(lm.loglikelihood(requests_of((prompt, "the dog")), disable_tqdm=True), [expected])


def test_a_turn_that_is_left_open_is_gone_on_with(lm, model, requests_of):
    begun = [*ASKED, {"role": "assistant", "content": "the answer"}]
    prompt = lm.apply_chat_template(begun, add_generation_prompt=False)
    [expected] = model.complete_ids(
        [model.chat_template.encode(begun, add_generation_prompt=False, continue_final=True)], length=9
    )
    assert lm.generate_until(requests_of((prompt, {"max_gen_toks": 9})), disable_tqdm=True) == [expected.text]


def test_the_template_has_a_source_and_no_name(lm, model):
    assert lm.chat_template(True) == model.tokenizer.chat_template
    assert lm.chat_template(False) is None
    with pytest.raises(ValueError, match="no chat template called 'tool_use'"):
        lm.chat_template("tool_use")


# --- beside the requests ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quiet", [True, False])
def test_the_bar_can_be_switched_off(lm, requests_of, capsys, quiet):
    lm.loglikelihood(requests_of(("the", " cat")), disable_tqdm=quiet)
    lm.loglikelihood_rolling(requests_of(("the cat",)), disable_tqdm=quiet)
    lm.generate_until(requests_of(("the", {"max_gen_toks": 2})), disable_tqdm=quiet)
    shown = capsys.readouterr().err
    assert all((f"illada: {what}: 100%" in shown) is not quiet for what in ("scores", "texts", "answers"))


def test_no_request_is_no_work(lm):
    assert lm.loglikelihood([], disable_tqdm=True) == []
    assert lm.loglikelihood_rolling([], disable_tqdm=True) == []
    assert lm.generate_until([], disable_tqdm=True) == []


def test_an_evaluation_that_is_killed_goes_on_from_lm_evals_cache(lm, requests_of, tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "_SCORED_TOGETHER", 2)
    expected = lm.loglikelihood(requests_of(*PAIRS), disable_tqdm=True)
    done = []
    score_ids = type(lm.model).score_ids

    def killed_at_the_third(self, prompts, *rest, **named):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.extend(prompts)
        return score_ids(self, prompts, *rest, **named)

    monkeypatch.setattr(type(lm.model), "score_ids", killed_at_the_third)
    cached = CachingLM(lm, str(tmp_path / "answers.db"))
    with pytest.raises(KeyboardInterrupt):
        cached.loglikelihood(requests_of(*PAIRS))
    done.clear()
    monkeypatch.setattr(
        type(lm.model),
        "score_ids",
        lambda self, prompts, *rest, **named: done.extend(prompts) or score_ids(self, prompts, *rest, **named),
    )
    found = CachingLM(lm, str(tmp_path / "answers.db")).loglikelihood(requests_of(*PAIRS))
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected])
    # seven requests, of which two are the same; four were answered before
    assert len(done) <= len(PAIRS) - 4


def test_a_model_from_the_disk(requests_of):
    lm = get_model("illada").create_from_arg_string(
        "pretrained=tiny,method=chain", {"device": "cuda:0", "batch_size": 4}
    )
    assert isinstance(lm, IlladaLM)
    assert (lm.arguments.batch_size, lm.scoring.method) == (4, "chain")
    info = lm.get_model_info()
    assert info["model_num_parameters"] == 3_766_112
    assert info["model_dtype"] == "torch.float32"
    assert len(info["model_sha"]) == 64
    assert lm.max_length == 512
    [(value, _)] = lm.loglikelihood(requests_of(("Once upon a", " time")), disable_tqdm=True)
    assert -3 < value < 0


def test_weights_in_half_the_bytes(requests_of):
    info = IlladaLM(pretrained="tiny", dtype="bfloat16").get_model_info()
    assert info["model_dtype"] == "torch.bfloat16"


def test_a_name_for_the_prompts(lm, causal):
    assert lm.tokenizer_name == IlladaLM(pretrained=causal).tokenizer_name, "the same tokenizer, the same template"
    assert lm.tokenizer_name != IlladaLM(pretrained="tiny").tokenizer_name


def test_the_entry_point_is_the_registered_model():
    """Later versions of lm-eval look here."""
    [point] = entry_points(group="lm_eval.models", name="illada")
    assert point.load() is get_model(harness.NAME) is IlladaLM
