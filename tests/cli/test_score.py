"""`illada score` and `illada perplexity` on a model that was never trained."""

import json
import math

import pytest

import illada as library


def test_a_line_for_each_candidate_and_a_mark_for_the_best(saved_model, illada):
    model = library.load(saved_model)
    expected = model.score("the quick", [" fox", " lazy dog"])
    answer = illada("score", "the quick", " fox", " lazy dog", "--model", saved_model)
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert [line.startswith("*") for line in lines[1:]] == [
        score is max(expected, key=lambda one: one.log_probability) for score in expected
    ]
    assert f"{expected[0].log_probability:.3f}" in lines[1]
    assert "' lazy dog'" in lines[2]


def test_json_holds_orders_terms_and_errors(saved_model, illada):
    answer = illada("score", "the", " fox jumps", " dog", "--model", saved_model, "--json")
    found = json.loads(answer.out)
    assert found["prompt"] == "the"
    first = found["candidates"][0]
    assert sorted(first["order"]) == list(range(first["tokens"]))
    assert first["log_probability"] == pytest.approx(sum(first["terms"]))
    assert found["best"] in (0, 1)


def test_an_infinite_error_is_null_in_json(saved_model, illada):
    flags = ("--method", "likelihood", "--samples", "1", "--json", "--model", saved_model)
    found = json.loads(illada("score", "the", " fox jumps over", *flags).out)
    assert found["candidates"][0]["standard_error"] is None


def test_a_file_of_questions(saved_model, illada, tmp_path):
    file = tmp_path / "questions.jsonl"
    rows = [{"prompt": "the", "candidates": [" fox", " dog"]}, {"prompt": "a", "candidates": [" b"]}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    answer = illada("score", "--file", file, "--model", saved_model, "--json")
    found = [json.loads(line) for line in answer.out.splitlines()]
    assert [len(one["candidates"]) for one in found] == [2, 1]
    assert "candidates" in answer.err


@pytest.mark.parametrize(
    ("row", "message"),
    [('{"prompt": "a"}', "line 1: expected"), ("[]", "line 1: expected"), ("", "holds no question"), ("{", "JSON")],
)
def test_a_file_that_is_no_list_of_questions(row, message, saved_model, refusal, tmp_path):
    file = tmp_path / "questions.jsonl"
    file.write_text(row + "\n")
    assert message in refusal("score", "--file", file, "--model", saved_model)


def test_neither_or_both(refusal, tmp_path):
    assert "not both" in refusal("score", "the")
    assert "not both" in refusal("score", "the", " fox", "--file", tmp_path / "x")


def test_normalisation_decides(saved_model, illada):
    flags = ("--model", saved_model, "--json", "the", " fox", " fox jumps over the lazy dog")
    plain = json.loads(illada("score", *flags).out)
    per_token = json.loads(illada("score", "--normalise", "tokens", *flags).out)
    values = [one["log_probability"] / one["tokens"] for one in per_token["candidates"]]
    assert per_token["best"] == values.index(max(values))
    assert plain["best"] == 0


def test_perplexity_in_all_units(saved_model, illada, tmp_path):
    text = "the quick brown fox jumps over the lazy dog " * 12
    (tmp_path / "a.txt").write_text(text)
    answer = illada("perplexity", tmp_path / "a.txt", "--model", saved_model, "--json", "--samples", "8")
    found = json.loads(answer.out)
    assert (found["texts"], found["bytes"], found["exact"]) == (1, len(text), False)
    assert found["bits_per_byte"] == pytest.approx(
        found["nats_per_token"] * found["tokens"] / math.log(2) / found["bytes"]
    )
    assert found["windows"] == math.ceil(found["tokens"] / 63)
    assert found["standard_error_nats_per_token"] > 0
    shown = illada("perplexity", tmp_path / "a.txt", "--model", saved_model, "--samples", "8").out
    assert f"at most {found['nats_per_token']:.4f} ± {found['standard_error_nats_per_token']:.4f}" in shown


def test_the_error_of_a_single_sample_is_null_in_json(saved_model, illada, tmp_path):
    (tmp_path / "a.txt").write_text("the quick brown fox jumps over the lazy dog")
    found = json.loads(illada("perplexity", tmp_path / "a.txt", "--model", saved_model, "--json", "--samples", "1").out)
    assert found["standard_error_nats_per_token"] is None
    assert found["standard_error_bits_per_byte"] is None
    assert found["nats_per_token"] > 0


def test_a_stride_and_a_limit(saved_model, illada, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "the fox jumps over the dog and on"}\n' * 3)
    flags = (tmp_path / "a.jsonl", "--model", saved_model, "--json", "--samples", "2")
    assert json.loads(illada("perplexity", *flags, "--limit", "2").out)["texts"] == 2
    found = json.loads(illada("perplexity", *flags, "--stride", "5", "--limit", "1").out)
    assert found["windows"] >= 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--samples", "0"), "samples must be at least 1, got 0"),
        (("--stride", "0"), "stride must be at least 1"),
        (("--stride", "64"), "between 1 and the 63 tokens"),
    ],
)
def test_perplexity_refuses_what_it_cannot_measure(flags, message, saved_model, refusal, tmp_path):
    (tmp_path / "a.txt").write_text("the fox " * 100)
    assert message in refusal("perplexity", tmp_path / "a.txt", "--model", saved_model, *flags)


def test_perplexity_of_nothing(saved_model, refusal, tmp_path):
    assert "at least 1 file" in refusal("perplexity")
    assert "no such file" in refusal("perplexity", tmp_path / "a.txt", "--model", saved_model).lower()
