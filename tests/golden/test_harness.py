"""The model of lm-eval gives the numbers and texts of the authors' harness (tolerances: see data/README.md)."""

import json
from pathlib import Path

import pytest

from illada.data.tokenizer import Tokenizer
from illada.pipeline import LanguageModel

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install illada[eval]")

from lm_eval.api.instance import Instance

from illada.harness.model import IlladaLM

DATA = Path(__file__).parent / "data"
SCORING = json.loads((DATA / "expected" / "scoring.json").read_text())
WRITING = json.loads((DATA / "expected" / "var_generate.json").read_text())
TOKENIZER = Tokenizer.load(DATA / "illada", special_texts={"mask": "<[MASK]>"})
SETTINGS = {
    "bos0_eos0": {"add_bos_token": False, "end": False},
    "bos0_eos1": {"add_bos_token": False, "end": True},
    "bos1_eos0": {"add_bos_token": True, "end": False},
    "bos1_eos1": {},
    "bos1_eos1_cfg1.5": {"guidance": 1.5},
}


@pytest.fixture
def asked(load):
    """Ask for all pairs at once, through lm-eval's interface."""

    def ask(kind, pairs, **arguments):
        lm = IlladaLM(pretrained=LanguageModel(transformer=load("illada"), tokenizer=TOKENIZER), **arguments)
        requests = [Instance(request_type=kind, doc={}, arguments=pair, idx=0) for pair in pairs]
        return getattr(lm, kind)(requests, disable_tqdm=True)

    return ask


def stored(setting):
    """(prompt, candidate) and what the authors' code gives for it."""
    items = [item for item in SCORING["items"] if setting in item["illada"]]
    return [
        ((item["prompt"], text), one)
        for item in items
        for text, one in zip(item["candidates"], item["illada"][setting]["candidates"], strict=True)
    ]


def test_every_setting_is_tested():
    assert SETTINGS.keys() == {name for item in SCORING["items"] for name in item["illada"]}


@pytest.mark.parametrize("setting", SETTINGS)
def test_confidence_scores(setting, asked):
    pairs, expected = zip(*stored(setting), strict=True)
    found = asked("loglikelihood", pairs, **SETTINGS[setting])
    allowed = 6e-4 if "cfg" in setting else 3e-4
    assert [value for value, _ in found] == pytest.approx([one["confidence_score"] for one in expected], abs=allowed)
    if "greedy" in expected[0]:
        assert [greedy for _, greedy in found] == [one["greedy"] for one in expected]


def test_exact_likelihoods(asked):
    pairs, expected = zip(*stored("bos1_eos1"), strict=True)
    found = asked("loglikelihood", pairs, method="exact", greedy=False)
    assert [value for value, _ in found] == pytest.approx([one["likelihood_exact"] for one in expected], abs=3e-4)


@pytest.mark.parametrize("case", WRITING["harness_cases"], ids=lambda case: case["id"])
def test_answers(case, asked):
    settings = case["settings"]
    blocks = settings["gen_length"] // settings["block_length"]
    arguments = {
        "add_bos_token": settings.get("add_bos_token", False),
        "canvas": "variable" if settings["var"] else "fixed",
        "block_length": settings["block_length"],
        "steps": settings["steps"] * blocks if settings["var"] else settings["steps"],
    }
    request = (case["context"], {"until": case["until"], "max_gen_toks": settings["gen_length"]})
    [found] = asked("generate_until", [request], max_gen_toks=settings["gen_length"], **arguments)
    # theirs spells out the special tokens that a model writes, ours are no text
    assert found == case["answer"].replace("<pad>", "")
