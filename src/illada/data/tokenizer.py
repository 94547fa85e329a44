"""Byte-level BPE: any bytes become token ids and come back unchanged; user text never becomes a special token.

A folder holds `tokenizer.json` (the format of the `tokenizers` library) and `tokenizer_config.json` (which texts are
the special tokens, and the chat template, in the layout that Hugging Face libraries read).
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from illada.data.tokenizer_files import (
    DEFAULT_TEXTS,
    configured_ends,
    configured_template,
    default_texts,
    existing,
    named_specials,
    read_backend,
)

ROLE_TEXTS = {"system": "[SYSTEM]", "user": "[USER]", "assistant": "[ASSISTANT]"}
"""The tokens that say who speaks; a trained tokenizer gives them the ids 4, 5, 6."""

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}{{ '[' + message['role'] | upper + ']' + message['content'] | trim }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[ASSISTANT]' }}{% endif %}"
)
"""The Jinja template of a trained tokenizer: BOS, then every turn behind the token of its role."""

_BYTES = 256
LEAST_VOCABULARY = _BYTES + len(DEFAULT_TEXTS) + len(ROLE_TEXTS)
"""Entries of a trained tokenizer without a single merge."""

_UNKNOWN = "\N{REPLACEMENT CHARACTER}".encode()
_INVALID = re.compile("([\udc80-\udcff]+)")  # how Python's `surrogateescape` writes the bytes that are not UTF-8


def _byte_characters() -> list[str]:
    """The printable character that stands for each byte inside a byte-level vocabulary.

    The convention of GPT-2: a byte that is a visible Latin-1 character is itself, the others, in order, are the
    characters from 256 on.
    """
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(_BYTES, 2 * _BYTES))
    return [chr(byte if byte in visible else next(others)) for byte in range(_BYTES)]


_CHARACTER_OF = _byte_characters()
_BYTE_OF = {character: byte for byte, character in enumerate(_CHARACTER_OF)}


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """The ids of the tokens that are not text."""

    mask: int
    bos: int
    eos: int
    pad: int


class Tokenizer:
    """A byte-level BPE vocabulary with its special tokens; make one with `train` or `load`."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        texts: Mapping[str, str],
        *,
        chat_template: str | None = None,
        end_texts: Iterable[str] = (),
    ) -> None:
        self.added = frozenset(name for name in DEFAULT_TEXTS if backend.token_to_id(texts[name]) is None)
        """Which of mask, bos, eos and pad the vocabulary did not have and got now, at its end."""
        backend.add_special_tokens([texts[name] for name in DEFAULT_TEXTS])
        backend.encode_special_tokens = True  # "[MASK]" in a text is six characters
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self.texts = {name: texts[name] for name in DEFAULT_TEXTS}
        """The texts of mask, bos, eos and pad, by these names."""
        self.chat_template = chat_template
        """Jinja; see `illada.data.chat`."""
        self.specials = SpecialTokens(**{name: self._id(text) for name, text in self.texts.items()})
        if self.specials.mask in (self.specials.bos, self.specials.eos, self.specials.pad):
            raise ValueError(
                f"the mask token must differ from BOS, EOS and PAD, but the special tokens are {self.texts}"
            )
        self._vocabulary: dict[str, int] = backend.get_vocab(with_added_tokens=True)
        if len(set(self._vocabulary.values())) != len(self._vocabulary):
            raise ValueError("two tokens of the vocabulary share one id: its ids must run without holes")
        flagged = {token_id for token_id, token in backend.get_added_tokens_decoder().items() if token.special}
        self._special_ids = frozenset(flagged | set(astuple(self.specials)))
        self.special_texts = {
            text: token_id for text, token_id in self._vocabulary.items() if token_id in self._special_ids
        }
        """Every token that is not text, by what it looks like: those named above, roles, reserved ones."""
        self.end_ids = tuple(dict.fromkeys((self.specials.eos, *map(self._id, end_texts))))
        """EOS and, behind it, the other tokens that end an answer."""
        self._byte_ids = [self._vocabulary.get(character) for character in _CHARACTER_OF]

    @staticmethod
    def train(texts: Iterable[str], vocab_size: int) -> "Tokenizer":
        """Learn the merges of a corpus; a corpus too small for `vocab_size` entries gives a smaller vocabulary.

        Every digit is a token of its own, so that numbers are written the way they are added up.

        Raises:
            ValueError: `vocab_size` has no room for the 256 bytes and the special tokens, or there is no text.
        """
        if vocab_size < LEAST_VOCABULARY:
            raise ValueError(
                f"vocab_size is {vocab_size}, but the bytes and the special tokens need at least {LEAST_VOCABULARY}"
            )
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[*DEFAULT_TEXTS.values(), *ROLE_TEXTS.values()],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        counted = _CountedTexts(texts)
        backend.train_from_iterator(counted, trainer)
        if counted.characters == 0:
            raise ValueError("there is no text to train a tokenizer on: every document is empty")
        return Tokenizer(backend, DEFAULT_TEXTS, chat_template=CHAT_TEMPLATE)

    @staticmethod
    def load(
        path: Path,
        *,
        special_texts: Mapping[str, str] | None = None,
        special_ids: Mapping[str, int] | None = None,
        ends: Iterable[int | str] = (),
    ) -> "Tokenizer":
        """Read a folder with `tokenizer.json` (or that file itself), ours or anyone's byte-level BPE.

        The texts of the special tokens come from `special_texts` ({"mask": "<[MASK]>"}), else from the files beside
        it (see `named_specials`), else they are those of `special_ids` ({"mask": 5}), else they are ours, save that
        <|endoftext|> is EOS where it exists. A special token that is not in the vocabulary yet gets the next free id.
        `ends` (ids, and texts where the vocabulary has them) end an answer like EOS, as do the `end_tokens` of
        `tokenizer_config.json`. The chat template comes from there or from `chat_template.jinja` beside it.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged or no byte-level BPE, or `special_texts` has an unknown name.
        """
        file = path / "tokenizer.json" if path.is_dir() else path
        backend = read_backend(file)
        given = dict(special_texts or {})
        if unknown := sorted(given.keys() - DEFAULT_TEXTS.keys()):
            raise ValueError(f"unknown special token {unknown[0]!r}: choose among {', '.join(DEFAULT_TEXTS)}")
        settings = file.parent / "tokenizer_config.json"
        by_id = {name: backend.id_to_token(token) for name, token in (special_ids or {}).items()}
        known = {name: text for name, text in by_id.items() if text}
        texts = default_texts(backend) | known | named_specials(file.parent) | given
        try:
            end_texts = [*configured_ends(settings), *existing(backend, ends)]
            return Tokenizer(backend, texts, chat_template=configured_template(settings), end_texts=end_texts)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, which Hugging Face libraries read too."""
        folder.mkdir(parents=True, exist_ok=True)
        ends = self.end_texts
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            **{f"{name}_token": text for name, text in self.texts.items()},
            **({"end_tokens": list(ends)} if ends else {}),
            **({} if self.chat_template is None else {"chat_template": self.chat_template}),
        }
        (folder / "tokenizer.json").write_text(self._backend.to_str(), encoding="utf-8")
        text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
        (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")

    def save_for_pipelines(self, file: Path) -> None:
        """Write a `tokenizer.json` with which other programs give the ids of `write_shards`: BOS, the text, EOS.

        It knows no special token by its text, so that none can come out of a document; `load` reads the folders of
        `save`, not this file.

        Raises:
            ValueError: the vocabulary reaches a special token by ordinary merges, which only `encode` can avoid.
        """
        content = json.loads(self._backend.to_str())
        content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] not in self._special_ids]
        backend = tokenizers.Tokenizer.from_str(json.dumps(content))
        for text, token_id in self.special_texts.items():
            if token_id in backend.encode(text, add_special_tokens=False).ids:
                raise ValueError(f"the merges of this vocabulary reach the special token {text!r}: use another one")
        backend.post_processor = processors.TemplateProcessing(
            single="<bos> $A <eos>",
            special_tokens=[("<bos>", self.specials.bos), ("<eos>", self.specials.eos)],
        )
        backend.save(str(file))

    def encode(self, text: str | bytes) -> list[int]:
        """The token ids of a text, never a special one.

        Bytes need not be UTF-8: each byte that is not part of a valid character becomes its own token. The round
        trip is exact unless a foreign file brings a normalizer of its own (GPT-NeoX composes accents).

        Raises:
            ValueError: a byte has no token (some foreign vocabularies lack those that UTF-8 never uses).
        """
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str | bytes]) -> list[list[int]]:
        """`encode` for several texts, in parallel threads."""
        try:
            encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        except TypeError:  # not all of them are well-formed str
            return [self._encode_pieces(text) for text in texts]
        return [self._without_specials(encoding.ids) for encoding in encodings]

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """The text of token ids; bytes that are no UTF-8, and ids outside the vocabulary, show as U+FFFD."""
        return self.decode_bytes(ids, skip_special=skip_special).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int], *, skip_special: bool = True) -> bytes:
        """The exact bytes of token ids: the inverse of `encode`."""
        table, size = self._bytes_of_ids, self.vocab_size
        kept = (int(token) for token in ids if not (skip_special and int(token) in self._special_ids))
        return b"".join(table[token] if 0 <= token < size else _UNKNOWN for token in kept)

    def special_ids(self, texts: Iterable[str]) -> tuple[int, ...]:
        """The ids of those texts that are what a special token looks like: decoded text does not show such a token."""
        return tuple(self.special_texts[text] for text in texts if text in self.special_texts)

    @cached_property
    def vocab_size(self) -> int:
        """The highest id + 1: how many rows an embedding needs."""
        return max(self._vocabulary.values()) + 1

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 over vocabulary, merges and special ids: equal for tokenizers that give the same ids."""
        merges = [
            merge.split(" ", 1) if isinstance(merge, str) else merge
            for merge in json.loads(self._backend.to_str())["model"]["merges"]
        ]
        vocabulary = sorted(self._vocabulary.items(), key=lambda item: item[1])
        content = json.dumps([vocabulary, merges, astuple(self.specials)], separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()

    @cached_property
    def byte_lengths(self) -> npt.NDArray[np.int64]:
        """[vocab_size]: how many bytes of text each token stands for; 0 for the special ones."""
        lengths = np.array([len(text) for text in self._bytes_of_ids], np.int64)
        lengths[sorted(self._special_ids)] = 0
        return lengths

    @property
    def end_texts(self) -> tuple[str, ...]:
        """What the tokens that end an answer look like, EOS apart."""
        return tuple(text for token in self.end_ids[1:] if (text := self._backend.id_to_token(token)))

    def __reduce__(self) -> tuple[Callable[..., "Tokenizer"], tuple[str, dict[str, str], str | None, tuple[str, ...]]]:
        # the library forgets `encode_special_tokens` when it is pickled
        return _rebuild, (self._backend.to_str(), self.texts, self.chat_template, self.end_texts)

    def _id(self, text: str) -> int:
        token_id = self._backend.token_to_id(text)
        if token_id is None:
            raise ValueError(f"the special token {text!r} cannot be added to the vocabulary")
        return token_id

    @cached_property
    def _bytes_of_ids(self) -> list[bytes]:
        table = [_UNKNOWN] * self.vocab_size
        for text, token_id in self._vocabulary.items():
            plain = all(character in _BYTE_OF for character in text)
            table[token_id] = bytes(_BYTE_OF[character] for character in text) if plain else text.encode()
        for token_id, token in self._backend.get_added_tokens_decoder().items():
            table[token_id] = token.content.encode()  # added tokens are written as they are
        return table

    def _encode_pieces(self, text: str | bytes) -> list[int]:
        """Valid UTF-8 goes through the merges, the bytes between it one by one."""
        data = text.encode("utf-8", errors="surrogatepass") if isinstance(text, str) else text
        valid_and_invalid = _INVALID.split(data.decode("utf-8", errors="surrogateescape"))
        ids: list[int] = []
        for number, piece in enumerate(valid_and_invalid):
            if number % 2:
                ids += self._encode_bytes(piece.encode("utf-8", errors="surrogateescape"))
            elif piece:
                ids += self._without_specials(self._backend.encode(piece, add_special_tokens=False).ids)
        return ids

    def _encode_bytes(self, data: bytes) -> list[int]:
        ids = [self._byte_ids[byte] for byte in data]
        if None in ids:
            raise ValueError(f"this vocabulary has no token for the byte 0x{data[ids.index(None)]:02X}")
        return [token for token in ids if token is not None]

    def _without_specials(self, ids: list[int]) -> list[int]:
        """A foreign vocabulary may reach the text of a special token by ordinary merges: spell it in bytes then."""
        if self._special_ids.isdisjoint(ids):
            return ids
        result: list[int] = []
        for token in ids:
            result += self._encode_bytes(self._bytes_of_ids[token]) if token in self._special_ids else [token]
        return result


class _CountedTexts:
    """Passes the texts on in a form the library takes, and counts what went through."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts
        self.characters = 0

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            self.characters += len(text)
            yield text.encode("utf-8", errors="replace").decode("utf-8")


def _rebuild(
    content: str, texts: Mapping[str, str], chat_template: str | None, end_texts: Iterable[str] = ()
) -> Tokenizer:
    backend = tokenizers.Tokenizer.from_str(content)
    return Tokenizer(backend, texts, chat_template=chat_template, end_texts=end_texts)
