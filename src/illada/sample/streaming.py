"""A completion while it is being written: the text that has become certain, block by block."""

import codecs
from collections.abc import Callable, Generator

from illada.sample.canvas import BatchState, Canvas
from illada.sample.request import Chunk, Completion
from illada.sample.sampler import Step
from illada.sample.stopping import Stopping
from illada.sample.writing import Writing


def stream_chunks(
    written: Generator[Step, None, list[Writing]],
    *,
    stopping: Stopping,
    complete: Callable[[Writing], Completion],
    show: Callable[[BatchState], str] | None,
) -> Generator[Chunk, None, None]:
    """The chunks of the only row of `written`, which is closed when the iterator is left.

    Args:
        written: the steps of one prompt.
        stopping: what ends the text; the beginning of a stop string is held back until it is none.
        complete: makes the completion of the last chunk, whose text is that of all chunks together.
        show: the block at work, for a chunk after every forward; None: a chunk where there is new text.
    """
    characters = codecs.getincrementaldecoder("utf-8")(errors="replace")
    sent = 0
    try:
        while True:
            try:
                state = next(written).state
            except StopIteration as end:
                [writing] = end.value
                completion = complete(writing)
                data = stopping.decode(writing.tokens) if writing.cut is None else writing.cut.data
                yield Chunk(text=characters.decode(data[sent:], final=True), completion=completion)
                return
            # what the block before this one settled, but for what may yet become a stop string
            data = stopping.decode(_given(state.canvases[0]))
            certain = max(sent, len(data) - stopping.held_back(data))
            text = characters.decode(data[sent:certain])
            sent = certain
            if text or show is not None:
                yield Chunk(text=text, provisional=None if show is None else show(state))
    finally:
        written.close()


def _given(canvas: Canvas) -> list[int]:
    """What is written in front of the block of a canvas."""
    behind_prompt = canvas.tokens[canvas.prompt_length :]
    return [token for token in behind_prompt if token is not None]
