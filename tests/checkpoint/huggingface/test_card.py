"""The model card says what the run's files say, and nothing else."""

import json
from xml.etree import ElementTree

import pytest
import torch

from illada.checkpoint.huggingface.card import RunRecord, card_files, read_run
from illada.checkpoint.huggingface.curves import draw_curves
from illada.checkpoint.huggingface.reader import open_published
from illada.config import to_dict
from illada.train.pretrain import PretrainConfig
from illada.train.sft import SftConfig

LOSS, HELD_OUT = "train/loss_nats_per_token", "held_out/nats_per_token"
METRICS = [
    {"step": 0, HELD_OUT: 5.6, "held_out/standard_error_nats_per_token": 0.1},
    *({"step": step, LOSS: 6 - step / 10, "train/tokens": 100.0 * step} for step in range(1, 31)),
    *({"step": step, HELD_OUT: 5.6 - step / 10} for step in range(1, 31)),
]
RESULTS = {
    "settings": {"run": {"command": "illada eval --tasks gsm8k --out scores"}},
    "tasks": {"gsm8k": {"count": 1319, "share": 0.417, "wilson": {"low": 0.39, "high": 0.444}}},
}


@pytest.fixture
def run_folder(tmp_path):
    folder = tmp_path / "run"
    (folder / "checkpoints" / "step_00000030").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(to_dict(PretrainConfig())))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in METRICS))
    (folder / "scores").mkdir()
    (folder / "scores" / "results.json").write_text(json.dumps(RESULTS))
    return folder


@pytest.fixture
def saved(published):
    return open_published(published("illada").path)


def card_of(saved, run, **options):
    return card_files(saved, run, layout="illada", title="lab/model", **options)


def section(card, name):
    return card.partition(f"## {name}\n")[2].partition("\n## ")[0]


def test_the_record_of_a_run_is_found_from_its_checkpoint(run_folder):
    run = read_run(run_folder / "checkpoints" / "step_00000030")
    assert (len(run.metrics), run.results, run.data) == (61, [RESULTS], ["stdlib"])
    assert read_run(run_folder).config == run.config


def test_a_published_folder_has_no_run(published):
    run = read_run(published("llada").path)
    assert (run.config, list(run.metrics), list(run.results)) == ({}, [], [])


def test_data_recipe_curves_and_scores(saved, run_folder):
    files = card_of(saved, read_run(run_folder))
    card = files["README.md"]
    assert section(card, "Data").strip() == "- `stdlib`"
    assert "| tokens | 3,000 |" in section(card, "Recipe")
    assert '"floor": 0.001' in section(card, "Recipe")
    assert "| gsm8k | 41.7 | 39.0 to 44.4 | 1,319 |" in section(card, "Scores")
    assert "    illada eval --tasks gsm8k --out scores" in section(card, "Scores")
    rows = [line.split(" | ") for line in section(card, "Curves").splitlines() if line.startswith("| ")]
    assert rows[0] == ["| step", "train/tokens", LOSS, f"{HELD_OUT} |"]
    assert rows[2] == ["| 0", "", "", "5.6 |"]
    assert rows[-1] == ["| 30", "3,000", "3", "2.6 |"]
    assert len(rows) == 2 + 12
    assert "curves.svg" in section(card, "Curves")
    ElementTree.fromstring(files["curves.svg"])


def test_files_of_dialogues_are_data(saved):
    config = to_dict(SftConfig())
    config["instructions"]["files"] = ["a.jsonl", "b.jsonl,weight=2"]
    card = card_of(saved, RunRecord(config=config))["README.md"]
    assert section(card, "Data").split() == ["-", "`a.jsonl`", "-", "`b.jsonl,weight=2`"]


def test_what_is_not_known_is_not_said(saved):
    files = card_of(saved, RunRecord())
    assert files.keys() == {"README.md"}
    card = files["README.md"]
    assert "Not recorded" in section(card, "Data")
    assert [name for name in ("Recipe", "Curves", "Scores") if f"## {name}" in card] == []
    assert "license" not in card


def test_the_front_matter(saved):
    lines = card_of(saved, RunRecord(), license_name="apache-2.0")["README.md"].splitlines()
    end = lines.index("---", 1)
    assert lines[0] == "---"
    assert dict(line.split(": ") for line in lines[1:end]) == {
        "license": "apache-2.0",
        "library_name": "illada",
        "pipeline_tag": "text-generation",
        "tags": "[masked-diffusion, illada]",
    }


def test_the_model_is_described(saved):
    card = card_of(saved, RunRecord())["README.md"]
    parameters = sum(torch.Size(stored.shape).numel() for stored in saved.tensors.values())
    assert f"A masked diffusion language model of {parameters:,} parameters" in card
    assert "| rope_theta | 10000.0 |" in card
    assert 'model = illada.load("lab/model")' in card
    assert "model.chat(" in card


@pytest.mark.parametrize("metrics", [[], [{"step": 0, LOSS: 3.0}], [{"step": 5, "train/learning_rate": 0.1}]])
def test_no_curve_without_two_readings(metrics):
    assert draw_curves(metrics, [LOSS, HELD_OUT]) == ""


def test_a_curve_falls_where_the_loss_does():
    picture = ElementTree.fromstring(draw_curves(METRICS, [LOSS, HELD_OUT]))
    lines = [line.attrib["points"].split() for line in picture.iter() if line.tag.endswith("polyline")]
    assert [len(line) for line in lines] == [30, 31]
    for line in lines:
        points = [tuple(map(float, point.split(","))) for point in line]
        assert points == sorted(points)  # to the right, and down: y grows downwards
        assert all(0 <= x <= 640 and 0 <= y <= 300 for x, y in points)


def test_equal_readings_are_drawn_too():
    assert "polyline" in draw_curves([{"step": 1, LOSS: 2.0}, {"step": 2, LOSS: 2.0}], [LOSS])


def test_a_damaged_file_of_metrics(run_folder):
    (run_folder / "metrics.jsonl").write_text("{")
    with pytest.raises(ValueError, match=r"metrics\.jsonl is damaged"):
        read_run(run_folder)
