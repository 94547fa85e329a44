"""`illada bench generate` from the command line, on the embedded model and a handful of questions."""

import json

import pytest

from illada.assets import INSTRUCT, fast_settings
from illada.cli.main import main
from illada.sample.request import SamplingParams


def test_it_writes_a_folder_and_prints_a_table(tmp_path, capsys):
    out = tmp_path / "bench"
    flags = ["--skills", "repeat", "--limit", "2", "--length", "32", "--out", str(out)]
    flags += ["--caching", "none", "delayed,refresh=0", "--unmasking", "low_confidence", "threshold,tau=0.9"]
    assert main(["bench", "generate", *flags]) == 0
    result = json.loads((out / "frontier.json").read_text())
    assert [point["caching"] for point in result["points"]] == [
        "none",
        "none",
        "delayed,refresh=0",
        "delayed,refresh=0",
    ]
    first = result["points"][0]
    assert (first["count"], first["difference"]["value"], first["loses_nothing"]) == (2, 0.0, True)
    assert all(point["forwards"] <= first["forwards"] for point in result["points"])
    assert "illada bench generate --skills repeat" in result["command"]
    assert (out / "frontier.svg").read_text().startswith("<svg")
    shown = capsys.readouterr().out
    assert "cheapest that loses nothing: --caching" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "illada bench generate"),
        (["train"], "illada bench generate"),
        (["generate", "--caching", "best"], "caching must be one of none"),
        (["generate", "--tasks", "arc_challenge"], "arc_challenge has no written answers"),
        (["generate", "--limit", "0"], "limit must be at least 1, got 0"),
        (["generate", "--skills", "dancing"], "dancing"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(arguments, message, capsys):
    assert main(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_fast_settings_of_the_package_are_settings(capsys):
    SamplingParams(**fast_settings(INSTRUCT))
    with pytest.raises(ValueError, match="no fast settings are recorded for runs/mine"):
        fast_settings("runs/mine")
    assert main(["generate", "x", "--fast", "--model", "runs/mine"]) == 2
    assert "no fast settings are recorded for runs/mine" in capsys.readouterr().err


def test_generate_is_told_to_be_fast(capsys):
    words = ["generate", "Repeat: a b", "--model", INSTRUCT, "--temperature", "0", "--length", "32", "--json"]
    assert main([*words, "--fast"]) == 0
    fast = json.loads(capsys.readouterr().out)
    assert main([*words, "--unmasking", "low_confidence"]) == 0
    slow = json.loads(capsys.readouterr().out)
    assert fast["forwards"] < slow["forwards"]
    assert fast["positions"] < slow["positions"]
