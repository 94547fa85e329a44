import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from illada.data.token_files import TokenFiles


class InMemory(TokenFiles):
    """Documents per file, and which files were looked into."""

    identity, bytes_per_token = "here", 1.0

    def __init__(self, files: list[list[list[int]]]) -> None:
        super().__init__("somewhere", [sum(map(len, file)) for file in files])
        self.files, self.touched = files, set()

    def _tokens(self, file, low, high):
        self.touched.add(file)
        return np.array([token for document in self.files[file] for token in document], np.uint16)[low:high]

    def _document_starts(self, file):
        return np.cumsum([0, *map(len, self.files[file])])[:-1]


documents = st.lists(st.integers(0, 9), min_size=1, max_size=4)
files = st.lists(st.lists(documents, max_size=4), min_size=1, max_size=5)


@given(files, st.data())
def test_any_range_is_that_of_the_files_one_behind_the_other(content, data):
    sequence = InMemory(content)
    flat = [(token, place == 0) for file in content for document in file for place, token in enumerate(document)]
    assert len(sequence) == len(flat)
    start = data.draw(st.integers(0, len(flat)))
    count = data.draw(st.integers(0, len(flat) - start))
    part = flat[start : start + count]
    assert sequence.read(start, count).tolist() == [token for token, _ in part]
    assert sequence.read(start, count).dtype == np.int64
    assert sequence.document_starts(start, count).tolist() == [n for n, (_, begins) in enumerate(part) if begins]


def test_only_the_files_that_a_range_touches_are_opened():
    sequence = InMemory([[[1, 2]], [[3, 4, 5]], [], [[6]], [[7]]])
    assert sequence.read(3, 3).tolist() == [4, 5, 6]
    assert sequence.touched == {1, 3}


@pytest.mark.parametrize(("start", "count"), [(-1, 1), (0, 4), (4, 0), (1, -1)])
def test_a_range_outside_is_refused(start, count):
    with pytest.raises(ValueError, match=f"tokens {start} to {start + count} are not inside the 3 tokens of somewhere"):
        InMemory([[[1, 2, 3]]]).read(start, count)
