"""The real benchmarks, where they are at hand."""

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3].parent / "shared" / "data" / "benchmarks"


@pytest.fixture
def benchmarks():
    if not BENCHMARKS.is_dir():
        pytest.skip("the benchmarks are not beside the repository")
    return BENCHMARKS


@pytest.fixture
def asked():
    """All questions of a task from a folder."""

    def ask(task, folder, shots=None):
        return list(task.questions(task.local_rows(folder), folder, shots))

    return ask
