"""Prompt and candidate -> their token ids, cut as the authors' evaluation cuts them."""

from illada.data.tokenizer import Tokenizer


def encode_pair(tokenizer: Tokenizer, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Ids of the context, and those of the continuation.

    Blanks at the end of the context move to the continuation. The target is what the encoding of both together has
    behind as many tokens as the context has by itself; so prefix and target need not be the encoding of the whole.

    Raises:
        ValueError: the continuation adds no token.
    """
    kept = context.rstrip()
    continuation = context[len(kept) :] + continuation
    prefix = tokenizer.encode(kept)
    target = tokenizer.encode(kept + continuation)[len(prefix) :]
    if not target:
        raise ValueError(f"the candidate {continuation!r} adds no token to its prompt: there is nothing to score")
    return prefix, target
