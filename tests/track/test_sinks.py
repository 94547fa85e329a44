import json
import math
import sys
import warnings
from pathlib import Path

import pytest

from illada.track.console import ProgressBar
from illada.track.sinks import Broadcast, JsonlFile, Sink, TensorBoard, read_jsonl

# --- JSONL --------------------------------------------------------------------------------------------------------


def write(path: Path, steps: list[int], **options: int | None) -> None:
    sink = JsonlFile(path, **options)
    for step in steps:
        sink.log(step, {"loss": step / 3})
    sink.close()


def test_every_reading_is_one_line_of_json(tmp_path):
    path = tmp_path / "metrics.jsonl"
    sink = JsonlFile(path)
    sink.log(1, {"loss": 0.1 + 0.2, "tokens": 1e12})
    sink.log(2, {})
    sink.close()
    assert path.read_text() == '{"step": 1, "loss": 0.30000000000000004, "tokens": 1000000000000.0}\n{"step": 2}\n'
    assert read_jsonl(path) == [{"step": 1, "loss": 0.1 + 0.2, "tokens": 1e12}, {"step": 2}]


def test_a_line_is_there_before_the_file_is_closed(tmp_path):
    sink = JsonlFile(tmp_path / "metrics.jsonl")
    sink.log(1, {"loss": 2.0})
    assert read_jsonl(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 2.0}]
    sink.close()


def test_opening_again_appends(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [1, 2])
    write(path, [3])
    assert [line["step"] for line in read_jsonl(path)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("resume_at", "kept"), [(0, []), (10, [10]), (25, [10, 20]), (30, [10, 20, 30]), (99, [10, 20, 30])]
)
def test_resuming_drops_the_lines_that_will_come_again(tmp_path, resume_at, kept):
    path = tmp_path / "metrics.jsonl"
    write(path, [10, 20, 30])
    before = path.read_text().splitlines()
    write(path, [resume_at + 1], resume_at=resume_at)
    lines = path.read_text().splitlines()
    assert lines[:-1] == before[: len(kept)]
    assert [line["step"] for line in read_jsonl(path)] == [*kept, resume_at + 1]


def test_a_resumed_file_equals_that_of_a_run_that_never_stopped(tmp_path):
    write(tmp_path / "whole.jsonl", [1, 2, 3, 4])
    write(tmp_path / "parts.jsonl", [1, 2, 3])
    write(tmp_path / "parts.jsonl", [3, 4], resume_at=2)
    assert (tmp_path / "parts.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_resuming_without_a_file_starts_one(tmp_path):
    write(tmp_path / "metrics.jsonl", [6], resume_at=5)
    assert [line["step"] for line in read_jsonl(tmp_path / "metrics.jsonl")] == [6]


@pytest.mark.parametrize("cut", range(1, 25, 4))
def test_an_unfinished_last_line_is_passed_over(tmp_path, cut):
    """A killed process may leave any part of a line."""
    path = tmp_path / "metrics.jsonl"
    write(path, [1, 2, 3])
    content = path.read_text()
    path.write_text(content[:-cut])
    # a line that lacks no more than its end of line is whole
    assert [line["step"] for line in read_jsonl(path)] == ([1, 2, 3] if cut == 1 else [1, 2])
    write(path, [3], resume_at=2)
    assert path.read_text() == content


def test_numbers_that_are_none_survive(tmp_path):
    path = tmp_path / "metrics.jsonl"
    sink = JsonlFile(path)
    sink.log(1, {"loss": math.nan, "best": math.inf})
    sink.close()
    [line] = read_jsonl(path)
    assert math.isnan(line["loss"])
    assert line["best"] == math.inf


# --- TensorBoard --------------------------------------------------------------------------------------------------


def test_tensorboard_can_read_its_event_file(tmp_path):
    pytest.importorskip("tensorboard")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tensorboard's own imports
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        sink = TensorBoard(tmp_path)
        sink.log(10, {"train/loss_nats_per_token": 2.5, "train/mfu": 0.25})
        sink.log(20, {"train/loss_nats_per_token": 1.5})
        sink.close()
        events = EventAccumulator(str(tmp_path))
        events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["train/loss_nats_per_token", "train/mfu"]
    read = [(event.step, event.value) for event in events.Scalars("train/loss_nats_per_token")]
    assert read == [(10, 2.5), (20, 1.5)]


def test_without_tensorboard_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r"pip install 'illada\[track\]'"):
        TensorBoard(tmp_path)


# --- several ------------------------------------------------------------------------------------------------------


def test_a_broadcast_reaches_every_sink(tmp_path):
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    sinks = [JsonlFile(path) for path in paths]
    together = Broadcast(sinks)
    together.log(3, {"loss": 1.0})
    together.close()
    assert [read_jsonl(path) for path in paths] == [[{"step": 3, "loss": 1.0}]] * 2
    with pytest.raises(ValueError, match="closed file"):
        sinks[1].log(4, {})


@pytest.mark.parametrize("kind", [JsonlFile, TensorBoard, Broadcast, ProgressBar])
def test_everything_that_takes_metrics_is_a_sink(kind):
    assert issubclass(kind, Sink)


def test_the_lines_are_json_that_others_read(tmp_path):
    write(tmp_path / "metrics.jsonl", [1])
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "loss": 1 / 3}
