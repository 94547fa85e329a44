"""Prompt and candidate -> their token ids, cut as the authors' evaluation cuts them."""

from collections.abc import Sequence

from illada.data.tokenizer import Tokenizer


def encode_pair(tokenizer: Tokenizer, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Ids of the context, and those of the continuation.

    Blanks at the end of the context move to the continuation. The target is what the encoding of both together has
    behind as many tokens as the context has by itself; so prefix and target need not be the encoding of the whole.

    Raises:
        ValueError: the continuation adds no token.
    """
    return encode_pairs(tokenizer, [(context, continuation)])[0]


def encode_pairs(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
    """`encode_pair` for many pairs at once: in parallel threads, and every context only once."""
    kept = [context.rstrip() for context, _ in pairs]
    moved = [context[len(head) :] + rest for head, (context, rest) in zip(kept, pairs, strict=True)]
    heads = list(dict.fromkeys(kept))
    prefix_of = dict(zip(heads, tokenizer.encode_batch(heads), strict=True))
    whole = tokenizer.encode_batch([head + rest for head, rest in zip(kept, moved, strict=True)])
    encoded = []
    for head, rest, ids in zip(kept, moved, whole, strict=True):
        prefix = prefix_of[head]
        target = ids[len(prefix) :]
        if not target:
            raise ValueError(f"the candidate {rest!r} adds no token to its prompt: there is nothing to score")
        encoded.append((prefix, target))
    return encoded
