"""Whole evaluations by lm-eval, on the task files of `examples/lm_eval` and nothing from a network."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from illada.assets import INSTRUCT
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer
from illada.pipeline import LanguageModel, load

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install illada[eval]")

from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from illada.harness.model import IlladaLM

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "lm_eval"
TASKS = [str(EXAMPLES / "larger.yaml"), str(EXAMPLES / "reversed.yaml")]


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch, tmp_path_factory):
    """The task files name their data from there; what `datasets` keeps goes elsewhere."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))


@pytest.fixture(scope="module")
def tokenizer():
    return load(INSTRUCT).tokenizer


def evaluated(lm, tasks=TASKS, **options):
    """What lm-eval counts, without looking through its own thousands of tasks."""
    results = simple_evaluate(
        model=lm, tasks=tasks, task_manager=TaskManager(include_defaults=False), bootstrap_iters=0, **options
    )
    return results["results"], results["samples"]


class Oracle(Transformer):
    """A table from the tokens of prompts to those of answers; says them wherever it is asked, then ends of text."""

    def __init__(self, vocab_size, known, eos):
        config = ModelConfig(
            vocab_size=vocab_size, hidden_size=4, layers=1, heads=1, kv_heads=1, ffn_size=4, max_length=512
        )
        super().__init__(config)
        self.known, self.eos = known, eos

    def said(self, ids):
        """The whole text that a row is a part of."""
        prompt = max((p for p in self.known if tuple(ids[: len(p)]) == p), key=len)
        text = [*prompt, *self.known[prompt]]
        return [*text[: len(ids)], *[self.eos] * (len(ids) - len(text))]


@pytest.mark.parametrize("chat", [False, True])
def test_who_knows_the_answers_gets_all_of_them(tokenizer, chat, monkeypatch):
    """So prompts, delimiters, choices, stop strings and order come through; who knows none gets chance or nothing."""
    specials = tokenizer.specials
    known = {}
    oracle = LanguageModel(transformer=Oracle(tokenizer.vocab_size, known, specials.eos), tokenizer=tokenizer)
    for line in _rows("larger"):
        right = line["choices"][line["answer"]]
        known[_prompt(oracle, line["question"], chat)] = tokenizer.encode(right if chat else f" {right}")
    for line in _rows("reversed"):
        known[_prompt(oracle, line["question"], chat)] = tokenizer.encode(line["answer"] + "\nand on it goes")
    monkeypatch.setattr(IlladaLM, "_knows", known, raising=False)
    lm = _TableLM(pretrained=oracle)
    results, samples = evaluated(lm, apply_chat_template=chat, fewshot_as_multiturn=chat)
    assert results["illada_larger"]["acc,none"] == 1
    assert results["illada_reversed"]["exact_match,none"] == 1
    assert [len(samples[name]) for name in ("illada_larger", "illada_reversed")] == [16, 12]
