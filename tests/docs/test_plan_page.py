"""What docs/how-to/plan-a-run.md says of iLLaDA's 8B is what the command prints."""

import json
from pathlib import Path

import pytest

from illada.cli.main import main

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "plan-a-run.md").read_text(encoding="utf-8")
GPUS = (8, 64, 512)


@pytest.fixture
def plans(capsys):
    found = []
    for gpus in GPUS:
        assert main(["plan", "illada_8b", "--gpus", str(gpus), "--gpu", "h200", "--tokens", "12e12", "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    return found


def table(plans: list[dict]) -> str:
    """The table of the page, from the numbers of the plans."""

    def gigabytes(count: float) -> str:
        return f"{count / 1e9:,.1f} GB"

    def memory(part: str) -> list[str]:
        return [gigabytes(plan["memory_bytes_per_gpu"][part]) for plan in plans]

    def division(plan: dict) -> str:
        return " x ".join(str(plan["division"][name]) for name in ("shard", "replicate", "tensor"))

    rows = {
        "shard x replicate x tensor": map(division, plans),
        "rows of a forward, forwards of a step": [
            f"{plan['division']['micro_batch_size']}, {plan['division']['micro_steps']}" for plan in plans
        ],
        "activation checkpointing": [plan["division"]["activation_checkpointing"] for plan in plans],
        "weights, fp32": memory("master_weights"),
        "gradients": memory("gradients"),
        "AdamW's moments": memory("moments"),
        "weights in bf16, in use": memory("working_weights"),
        "activations": memory("activations"),
        "loss": memory("loss"),
        "buffers of communication": memory("communication"),
        "**memory per GPU**": [f"**{size}**" for size in memory("total")],
        "of which can be used": [gigabytes(plan["gpu"]["usable"]) for plan in plans],
        "tokens per second, at an assumed MFU of 40 %": [f"{plan['tokens_per_second']:,.0f}" for plan in plans],
        "seconds per step": [f"{plan['seconds_per_step']:.3g}" for plan in plans],
        "days": [f"{plan['days']:,.1f}" for plan in plans],
        "GPU hours": [f"{plan['gpu_hours']:,.0f}" for plan in plans],
        "a checkpoint to resume from": [gigabytes(plan["disk_bytes"]["checkpoint"]) for plan in plans],
        "all checkpoints that are kept": [gigabytes(plan["disk_bytes"]["kept"]) for plan in plans],
        "the exported model, bf16": [gigabytes(plan["disk_bytes"]["exported"]) for plan in plans],
    }
    lines = ["| H200 | " + " | ".join(map(str, GPUS)) + " |", "|---|" + "---|" * len(GPUS)]
    return "\n".join(lines + [f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items()]) + "\n"


def test_the_table_is_what_the_command_prints(plans):
    assert all(plan["fits"] for plan in plans)
    assert {plan["mfu"]["assumed"] for plan in plans} == {0.4}
    assert table(plans) in PAGE


def test_where_it_does_not_fit_the_page_says_what_the_command_says(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["plan", "illada_8b", "--gpus", "1", "--gpu", "h200"]) == 0
    lines = capsys.readouterr().out.splitlines(keepends=True)
    assert "does not fit" in lines[1]
    assert f"$ illada plan illada_8b --gpus 1 --gpu h200\n{''.join(lines[:4])}" in PAGE
