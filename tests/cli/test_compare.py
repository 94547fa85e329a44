"""`illada compare`: names, flags, and that nothing begins where something is wrong."""

import json
from dataclasses import replace

import pytest

from illada.cli.main import main
from illada.compare.lessons import Facts, Lessons
from illada.compare.plan import changed
from illada.recipes import comparison


def test_a_study_that_there_is_not_is_refused_in_one_line(capsys):
    assert main(["compare", "plannig"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("illada: no study is called 'plannig'; there are: matched, ")
    assert said.count("\n") == 1
    assert main(["compare"]) == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--scale", "huge"], "no scale is called 'huge'; there are: micro, tiny, small"),
        (["--jobs", "0"], "jobs must be at least 1, got 0"),
        (["--device", "abacus"], "device 'abacus' cannot be used"),
        (["--share", "2"], "at most 1, got 2.0"),
        (["--seeds", "1"], "at least 2 seeds"),
    ],
)
def test_flags_that_do_not_fit_are_refused(flags, message, capsys, tmp_path):
    assert main(["compare", "reversal", *flags, "--pool", str(tmp_path / "pool")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "pool").exists()


def test_a_study_from_the_command_line(capsys, tmp_path, monkeypatch):
    """The ready-made study of facts, with few facts and a hundredth of its steps."""
    made = comparison.reversal

    def smaller(scale):
        study = made(scale)
        return replace(
            study,
            plan=changed(study.plan, {"lessons.lessons": Lessons(facts=Facts(both=4, forward=2))}),
        )

    monkeypatch.setitem(comparison.STUDIES, "reversal", smaller)
    arguments = ["compare", "reversal", "--share", "0.005", "--seeds", "2", "--pool", str(tmp_path)]
    assert main([*arguments, "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert (results["study"], results["seeds"]) == ("reversal", [0, 1])
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert str(tmp_path / "reversal" / "report.html") in said
    assert "illada compare reversal" in (tmp_path / "reversal" / "report.html").read_text()
