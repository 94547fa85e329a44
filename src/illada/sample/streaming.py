"""A completion while it is being written: the text that has become certain, block by block."""

import codecs
from collections.abc import Callable, Generator

from illada.sample.canvas import FilledCanvas
from illada.sample.engine import Engine, RowState
from illada.sample.job import Request
from illada.sample.request import Chunk, Completion


def stream_chunks(
    engine: Engine,
    request: Request,
    *,
    complete: Callable[[FilledCanvas], Completion],
    show: Callable[[RowState], str] | None,
) -> Generator[Chunk, None, None]:
    """The chunks of one request, which is cancelled when the iterator is left.

    Args:
        engine: does the work, a step for each that is needed to get on.
        request: with a `Stopping`; the beginning of a stop string is held back until it is none.
        complete: makes the completion of the last chunk, whose text is that of all chunks together.
        show: the blocks at work, for a chunk after every forward; None: a chunk where there is new text.
    """
    stopping, prompt = request.stopping, request.canvas.holes[0]
    assert stopping is not None
    characters = codecs.getincrementaldecoder("utf-8")(errors="replace")
    sent, known = 0, prompt
    number = engine.submit(request)
    try:
        while number not in (finished := engine.step()):
            if (state := engine.look(number)) is None:
                continue
            text = ""
            if state.start > known:
                # the blocks in front of those at work are settled, but for what may yet become a stop string
                data, known = stopping.decode(state.tokens[prompt : state.start]), state.start
                certain = max(sent, len(data) - stopping.held_back(data))
                text = characters.decode(data[sent:certain])
                sent = certain
            if text or show is not None:
                yield Chunk(text=text, provisional=None if show is None else show(state))
        filled = finished[number]
        data = stopping.decode(filled.tokens[prompt:]) if filled.cut is None else filled.cut.data
        yield Chunk(text=characters.decode(data[sent:], final=True), completion=complete(filled))
    finally:
        engine.cancel(number)
