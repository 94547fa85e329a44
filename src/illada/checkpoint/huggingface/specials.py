"""The tokenizer of a published folder, and which of its tokens are [MASK], BOS, EOS, PAD and ends of an answer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from illada.checkpoint.huggingface.configuration import read_json
from illada.checkpoint.huggingface.layouts import Layout
from illada.data.tokenizer import Tokenizer
from illada.data.tokenizer_files import DEFAULT_TEXTS, named_specials

GENERATION = "generation_config.json"


def read_tokenizer(
    folder: Path, layout: Layout, values: Mapping[str, Any], *, rows: int, given: Mapping[str, str]
) -> Tokenizer:
    """The tokenizer of a folder whose `config.json` holds `values` and whose model has so many `rows`.

    A special token is what `given` says, else what the tokenizer's files name, else the id in `config.json`, else what
    the layout is known for; BOS and PAD are EOS where nothing names them. A causal model has no [MASK]: it takes the
    first id behind the vocabulary, where the embedding has a row for it.

    Raises:
        FileNotFoundError: there is no tokenizer.json.
        ValueError: it is no byte-level BPE, or a special token is unknown; the message says how to name one.
    """
    named = {**named_specials(folder), **given}
    texts, ids = dict(given), _ids(values)
    if layout.mask_text is not None and "mask" not in {**named, **ids}:
        texts["mask"] = layout.mask_text
    for name in {"bos", "pad"} - {**named, **ids}.keys():
        if "eos" in named:
            texts[name] = named["eos"]
        elif "eos" in ids:
            ids[name] = ids["eos"]
    ends: list[int | str] = [*_end_ids(folder, values), *layout.end_texts]
    tokenizer = Tokenizer.load(folder, special_texts=texts, special_ids=ids, ends=ends)
    new_mask = layout.mask_text is None and tokenizer.vocab_size <= rows
    if unknown := sorted(tokenizer.added - ({"mask"} if new_mask else set())):
        raise ValueError(
            f"{folder} does not say which token is {unknown[0]}: name one of its vocabulary with --special-tokens "
            f"{unknown[0]} TEXT (special_tokens={{{unknown[0]!r}: ...}} in Python)"
        )
    return tokenizer


def _end_ids(folder: Path, values: Mapping[str, Any]) -> list[int]:
    """Those that `generation_config.json` names, or else `config.json`."""
    if (folder / GENERATION).is_file():
        values = {**values, **read_json(folder / GENERATION)}
    stated = values.get("eos_token_id")
    return [token for token in (stated if isinstance(stated, list) else [stated]) if type(token) is int]


def _ids(values: Mapping[str, Any]) -> dict[str, int]:
    """What `config.json` says: "mask_token_id": 126336; of several ends the first is EOS."""
    ids = {}
    for name in DEFAULT_TEXTS:
        value = values.get(f"{name}_token_id")
        first = value[0] if isinstance(value, list) and value else value
        if type(first) is int:
            ids[name] = first
    return ids
