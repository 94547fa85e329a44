"""`illada lm-eval` is lm-eval's own command line, with two defaults of ours."""

import importlib
import sys

import pytest

from illada.cli.main import main

LM_EVAL = importlib.util.find_spec("lm_eval") is not None
needs_lm_eval = pytest.mark.skipif(not LM_EVAL, reason="lm-eval is not installed: pip install illada[eval]")


@needs_lm_eval
@pytest.mark.parametrize(
    ("given", "handed_on"),
    [
        (["--tasks", "a"], ["run", "--model", "illada", "--batch_size", "auto", "--tasks", "a"]),
        (["run", "--tasks", "a"], ["run", "--model", "illada", "--batch_size", "auto", "--tasks", "a"]),
        (["--model_args", "x=1"], ["run", "--model", "illada", "--batch_size", "auto", "--model_args", "x=1"]),
        (["--model", "hf"], ["run", "--batch_size", "auto", "--model", "hf"]),
        (["-M", "hf", "-b", "4"], ["run", "-M", "hf", "-b", "4"]),
        (["--model=hf", "--batch_size=4"], ["run", "--model=hf", "--batch_size=4"]),
        (["--config", "a.yaml"], ["run", "--config", "a.yaml"]),
        (["ls", "tasks"], ["ls", "tasks"]),
        (["run", "--help"], ["run", "--help"]),
        (["run"], ["run"]),
        (["-h"], ["run", "-h"]),
        ([], []),
    ],
)
def test_what_lm_eval_is_told(given, handed_on, monkeypatch):
    told = []
    monkeypatch.setattr("lm_eval.__main__.cli_evaluate", lambda: told.append(list(sys.argv)))
    before = list(sys.argv)
    assert main(["lm-eval", *given]) == 0
    assert told == [["lm-eval", *handed_on]]
    assert sys.argv == before


@needs_lm_eval
def test_its_help_is_lm_evals(capsys):
    with pytest.raises(SystemExit) as leaving:
        main(["lm-eval", "--help"])
    assert leaving.value.code == 0
    assert "--include_path" in capsys.readouterr().out


@needs_lm_eval
def test_a_complaint_of_lm_eval_is_one_line(capsys, monkeypatch):
    def complain():
        raise ValueError("Tasks not found: nothing")

    monkeypatch.setattr("lm_eval.__main__.cli_evaluate", complain)
    assert main(["lm-eval", "--tasks", "nothing"]) == 2
    assert capsys.readouterr().err == "illada: Tasks not found: nothing\n"


@pytest.mark.usefixtures("without_lm_eval")
def test_without_lm_eval_one_line_says_what_to_install(capsys):
    assert main(["lm-eval", "--tasks", "a"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("illada: the evaluation harness is not installed")
    assert line.endswith("pip install illada[eval]")


@pytest.mark.usefixtures("without_lm_eval")
def test_the_model_cannot_be_imported_without_lm_eval():
    with pytest.raises(ImportError, match=r"pip install illada\[eval\]"):
        importlib.import_module("illada.harness.model")
