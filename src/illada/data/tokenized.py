"""Sources that hold tokens and no text: shards that were written before, by `illada.data.shards` or by datatrove."""

from illada.data.datatrove import DatatroveShards
from illada.data.shards import TokenShards
from illada.data.sources import Source
from illada.data.storage import open_folder
from illada.data.token_files import TokenFiles
from illada.data.tokenizer import Tokenizer

PREFIX = "tokens:"
"""In front of the path of a source: what lies there is opened where it is, at once, however much it is."""


def holds_tokens(source: Source) -> bool:
    """Whether a source is one of token shards."""
    return source.path.startswith(PREFIX)


def open_tokens(source: Source, tokenizer: Tokenizer) -> TokenFiles:
    """The shards of a source `tokens:LOCATION`, a path or a URL; with datatrove's, `glob` chooses among them.

    Raises:
        FileNotFoundError: there are no shards.
        ValueError: they were written with another tokenizer, or are damaged.
    """
    location = source.path.removeprefix(PREFIX)
    if "manifest.json" in open_folder(location).sizes("manifest.json"):
        return TokenShards.open(location, tokenizer=tokenizer, verify=False)
    return DatatroveShards.open(location, tokenizer=tokenizer, pattern=source.glob)
