import gc
from collections.abc import Callable

import pytest
import torch


@pytest.fixture
def memory_changes():
    """The bytes that torch's allocator gives out (and takes back: negative) while a function runs, in order."""

    def changes(work: Callable[[], object]) -> list[int]:
        gc.collect()  # what lies about in circles must not be taken back meanwhile
        gc.disable()
        try:
            activities = [torch.profiler.ProfilerActivity.CPU]
            with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
                kept = work()
        finally:
            gc.enable()
        del kept
        events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
        return [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]

    return changes
