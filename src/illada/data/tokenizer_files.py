"""The files of a tokenizer, as we and others write them: the vocabulary, and beside it what its tokens are for."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models

DEFAULT_TEXTS = {"pad": "[PAD]", "bos": "[BOS]", "eos": "[EOS]", "mask": "[MASK]"}
"""What the special tokens look like unless a file says otherwise; a trained tokenizer gives them the ids 0, 1, 2, 3."""

_END_OF_TEXT = "<|endoftext|>"


def read_backend(file: Path) -> tokenizers.Tokenizer:
    """The vocabulary in a `tokenizer.json`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or no byte-level BPE.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no tokenizer at {file}: give a folder with tokenizer.json, or such a file")
    try:
        content = file.read_text(encoding="utf-8")
        description = json.loads(content)
        backend = tokenizers.Tokenizer.from_str(content)
    except Exception as error:  # the library raises plain Exception
        raise ValueError(f"{file} is no readable tokenizer.json: {error}") from error
    if not isinstance(backend.model, models.BPE) or '"ByteLevel"' not in json.dumps(
        [description.get("pre_tokenizer"), description.get("decoder")]
    ):
        raise ValueError(f"{file} is no byte-level BPE tokenizer, the only kind that is supported")
    return backend


def existing(backend: tokenizers.Tokenizer, tokens: Iterable[int | str]) -> list[str]:
    """The texts of those tokens, given by id or text, that the vocabulary has."""
    texts = [token if isinstance(token, str) else backend.id_to_token(token) for token in tokens]
    return [text for text in texts if text and backend.token_to_id(text) is not None]


def default_texts(backend: tokenizers.Tokenizer) -> dict[str, str]:
    """The texts of mask, bos, eos and pad where no file says what they are."""
    texts = dict(DEFAULT_TEXTS)
    if backend.token_to_id(texts["eos"]) is None and backend.token_to_id(_END_OF_TEXT) is not None:
        texts["eos"] = _END_OF_TEXT
    return texts


def named_specials(folder: Path) -> dict[str, str]:
    """The special tokens that `tokenizer_config.json` names, or else `special_tokens_map.json`, by mask, bos, eos, pad.

    An entry is "mask_token": "text" or {"content": "text", ...}.

    Raises:
        ValueError: one of these files is damaged.
    """
    named: dict[str, str] = {}
    for file in (folder / "special_tokens_map.json", folder / "tokenizer_config.json"):
        settings = _settings(file)
        values = {name: settings.get(f"{name}_token") for name in DEFAULT_TEXTS}
        try:
            texts = {name: value["content"] if isinstance(value, dict) else value for name, value in values.items()}
        except KeyError as error:
            raise ValueError(f"{file} is no readable {file.name}: {error!r}") from error
        named |= {name: text for name, text in texts.items() if text}
    return named


def configured_ends(file: Path) -> list[str]:
    """The texts under `end_tokens` in a `tokenizer_config.json`.

    Raises:
        ValueError: they are no list of texts, or the file is damaged.
    """
    ends = _settings(file).get("end_tokens", [])
    if not isinstance(ends, list) or not all(isinstance(text, str) for text in ends):
        raise ValueError(f"the end_tokens in {file} are no list of texts")
    return ends


def configured_template(file: Path) -> str | None:
    """The chat template: one string, the default of several named ones, or a file of its own beside the settings.

    Raises:
        ValueError: it is no text, or the file is damaged.
    """
    template = _settings(file).get("chat_template")
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    beside = file.parent / "chat_template.jinja"
    if template is None and beside.is_file():
        template = beside.read_text(encoding="utf-8")
    if template is not None and not isinstance(template, str):
        raise ValueError(f"the chat_template in {file} is no text")
    return template


def _settings(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no readable {file.name}: {error!r}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{file} is no readable {file.name}: it holds no object")
    return settings
