"""From files of dialogues to encoded training and held-out examples, in one call that remembers its result.

A dialogue is held out if the SHA-256 of its messages, read as a fraction, is below `held_out_fraction`: so copies of
it are never on both sides, and it stays there when files are added.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from illada.config import fingerprint
from illada.data.chat import ChatTemplate
from illada.data.dialogues import Dialogue, DialogueSource, encode_dialogues, parse_dialogue_source
from illada.data.instructions import InstructionSet, write_instructions
from illada.data.sources import file_state
from illada.data.tokenizer import Tokenizer
from illada.durable import atomic_folder

_FORMAT = 1  # part of the fingerprint: raise it when the same inputs would give other files

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class InstructionConfig:
    """Which dialogues, in which template, and how many of them are held out."""

    files: tuple[str, ...] = ()
    """`FILE[,prompt=FIELD,response=FIELD][,weight=W]`, see `illada.data.dialogues`. Every token is met equally often,
    but for the weights: those of a file of weight 2 twice as often."""
    template: str | None = None
    """A file with a Jinja chat template; None: the tokenizer's own."""
    held_out_fraction: float = 0.01

    def __post_init__(self) -> None:
        """Refuse to hold out all or none."""
        if not 0 < self.held_out_fraction < 1:
            raise ValueError(f"held_out_fraction is {self.held_out_fraction}, but must lie between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class InstructionCorpus:
    """Prepared instructions: per file its dialogues and its weight, and what is held out of all of them."""

    folder: Path
    train: list[tuple[InstructionSet, float]]
    held_out: InstructionSet


def prepare_instructions(
    config: InstructionConfig, tokenizer: Tokenizer, folder: Path, *, report: Callable[[str], None] = _log.info
) -> InstructionCorpus:
    """Encode what `config` names into a folder inside `folder`, or open it if that was done before.

    Raises:
        FileNotFoundError: a file or the template does not exist.
        ValueError: a file holds no dialogue or a broken one (the message names the line), or none is held out.
    """
    if not config.files:
        raise ValueError("there is nothing to fine-tune on: give files of dialogues with --data")
    sources = [parse_dialogue_source(spec) for spec in config.files]
    text = None if config.template is None else _template_text(Path(config.template))
    template = ChatTemplate(tokenizer, text)
    target = folder / _fingerprint(config, sources, tokenizer, template.source)[:12]
    if target.exists():
        report(f"instructions: prepared before, in {target}")
    else:
        _prepare_new(config, sources, template, target, report)
    sets = [InstructionSet.open(target / f"train-{number}") for number in range(len(sources))]
    held_out = InstructionSet.open(target / "held-out")
    if len(held_out) == 0:
        raise ValueError("no dialogue is held out: use more of them, or a larger held_out_fraction")
    return InstructionCorpus(
        folder=target,
        train=[(part, source.weight) for part, source in zip(sets, sources, strict=True)],
        held_out=held_out,
    )


def _prepare_new(
    config: InstructionConfig,
    sources: Sequence[DialogueSource],
    template: ChatTemplate,
    target: Path,
    report: Callable[[str], None],
) -> None:
    held_out: list[Dialogue] = []
    vocab_size = template.tokenizer.vocab_size
    with atomic_folder(target) as partial:
        for number, source in enumerate(sources):
            training = _training(source.read(), config.held_out_fraction, held_out)
            count = write_instructions(
                encode_dialogues(training, template), partial / f"train-{number}", vocab_size=vocab_size
            )
            if count == 0:
                raise ValueError(f"{source.path} holds no dialogue to train on")
            report(f"{source.path}: {count:,} dialogues")
        write_instructions(encode_dialogues(held_out, template), partial / "held-out", vocab_size=vocab_size)
        report(f"held out: {len(held_out):,} dialogues")


def _training(dialogues: Iterable[Dialogue], fraction: float, held_out: list[Dialogue]) -> Iterator[Dialogue]:
    """The dialogues to train on; the others are put into `held_out`."""
    for dialogue in dialogues:
        content = json.dumps([[message.role, message.content] for message in dialogue.messages])
        digest = hashlib.sha256(content.encode("utf-8", errors="surrogatepass")).hexdigest()
        if int(digest[:8], 16) / 16**8 < fraction:
            held_out.append(dialogue)
        else:
            yield dialogue


def _template_text(file: Path) -> str:
    if not file.is_file():
        raise FileNotFoundError(f"there is no chat template at {file}")
    return file.read_text(encoding="utf-8")


def _fingerprint(
    config: InstructionConfig, sources: Sequence[DialogueSource], tokenizer: Tokenizer, template: str
) -> str:
    content = [
        _FORMAT,
        fingerprint(config),
        [file_state(Path(source.path)) for source in sources],
        tokenizer.fingerprint,
        template,
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
