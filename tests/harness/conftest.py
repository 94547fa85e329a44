"""Models that were never trained, and requests as lm-eval makes them."""

import sys

import pytest
import torch

from illada.data.tokenizer import Tokenizer
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer
from illada.pipeline import LanguageModel

CONTEXT = 64
TEXT = "the cat sat on the mat and the dog sat on the log, while a man in a hat had a chat with the cat. " * 3


def new_model(*, seed=13, **changes):
    """Random weights large enough that positions disagree; float64, in which batches and single rows agree."""
    tokenizer = Tokenizer.train([TEXT], 290)
    shape = {"hidden_size": 16, "layers": 1, "heads": 2, "kv_heads": 1, "ffn_size": 24, "max_length": CONTEXT}
    config = ModelConfig(vocab_size=tokenizer.vocab_size, **{**shape, **changes})
    transformer = Transformer(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in transformer.parameters():
            if parameter.dim() == 2:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return LanguageModel(transformer=transformer.double(), tokenizer=tokenizer)


@pytest.fixture(scope="package")
def model():
    return new_model()


@pytest.fixture(scope="package")
def causal():
    return new_model(attention="causal")


@pytest.fixture
def requests_of():
    """What lm-eval hands to a model."""
    from lm_eval.api.instance import Instance

    return lambda *arguments: [
        Instance(request_type="loglikelihood", doc={}, arguments=each, idx=0) for each in arguments
    ]


@pytest.fixture
def forwards(model, monkeypatch):
    """The shapes of all that goes through the model."""
    shapes = []
    forward = type(model.transformer).forward

    def counted(self, tokens, *others, **named):
        shapes.append(tuple(tokens.shape))
        return forward(self, tokens, *others, **named)

    monkeypatch.setattr(type(model.transformer), "forward", counted)
    return shapes


@pytest.fixture
def without_lm_eval(monkeypatch):
    """As where only `pip install illada` has been done."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "lm_eval"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("illada.harness.model", "illada.harness.command", "illada.cli.harness"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
