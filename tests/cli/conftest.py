"""A model on the disk that was never trained, and the command line called as a function."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from illada.checkpoint.native import checkpoint_path, save_checkpoint
from illada.cli.main import main
from illada.data.tokenizer import Tokenizer
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer, initialize


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory) -> Path:
    """A run folder with one checkpoint; its context holds 64 tokens."""
    return save_untrained(tmp_path_factory.mktemp("models") / "run", attention="bidirectional")


@pytest.fixture(scope="session")
def saved_twin(tmp_path_factory) -> Path:
    """The same, but for the attention."""
    return save_untrained(tmp_path_factory.mktemp("models") / "twin", attention="causal")


def save_untrained(folder: Path, *, attention: str) -> Path:
    """A checkpoint of a new model, in a run folder."""
    tokenizer = Tokenizer.train(["the quick brown fox jumps over the lazy dog"], 280)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        layers=1,
        heads=2,
        kv_heads=1,
        ffn_size=24,
        max_length=64,
        attention=attention,
    )
    model = Transformer(config)
    initialize(model, seed=0)
    save_checkpoint(
        checkpoint_path(folder / "checkpoints", 1),
        model_config=config,
        weights=model.state_dict(),
        tokenizer=tokenizer,
    )
    return folder


@dataclass(frozen=True)
class Answer:
    """What a command gave back."""

    code: int
    out: str
    err: str


@pytest.fixture
def illada(capsys, monkeypatch):
    """Call the command line; an exit out of the flags' reader counts as its code."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> Answer:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 1  # as Python exits with a message
        return Answer(code, *capsys.readouterr())

    return call


@pytest.fixture
def refusal(illada):
    """The one line on standard error of a command that is refused with exit code 2."""

    def call(*arguments: object) -> str:
        answer = illada(*arguments)
        assert (answer.code, answer.out) == (2, "")
        (line,) = answer.err.splitlines()
        assert line.startswith("illada: ")
        return line.removeprefix("illada: ")

    return call
