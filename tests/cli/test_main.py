import io
import os
import subprocess
import sys
from types import ModuleType

import pytest

import illada
from illada.cli.main import COMMANDS, main


@pytest.fixture
def failing(monkeypatch):
    """A command of that name that raises what it is told to."""

    def install(error: BaseException) -> None:
        module = ModuleType("failing_command")

        def command(arguments):
            raise error

        module.command = command
        monkeypatch.setitem(sys.modules, "failing_command", module)
        monkeypatch.setitem(COMMANDS, "fail", ("failing_command", "fails"))

    return install


# --- asked for nothing, for help, for the version -----------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["-h"], ["--help"], ["help"]])
def test_help_lists_the_commands(arguments, capsys):
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert [line.split()[0] for line in out.splitlines() if line.startswith("  ")] == list(COMMANDS)


def test_asked_for_nothing_it_shows_the_help_and_fails(capsys):
    assert main([]) == 2
    assert "usage: illada COMMAND" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_the_version_is_the_packages(flag, capsys):
    assert main([flag]) == 0
    assert capsys.readouterr().out == f"illada {illada.__version__}\n"


def test_arguments_are_those_of_the_process_if_none_are_given(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["illada", "--version"])
    assert main() == 0
    assert capsys.readouterr().out.startswith("illada ")


def test_as_a_module_it_is_the_same_and_loads_nothing_heavy():
    code = "import runpy, sys; sys.argv = ['illada', '--version']\ntry: runpy.run_module('illada', run_name='__main__')"
    code += "\nexcept SystemExit as end: print(end.code, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"illada {illada.__version__}", "0 False"]
    done = subprocess.run([sys.executable, "-m", "illada", "--version"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"illada {illada.__version__}\n", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_of_its_own(name, illada):
    answer = illada(name, "--help")
    assert (answer.code, answer.err) == (0, "")
    assert ("usage: lm-eval" if name == "lm-eval" else "usage: illada") in answer.out


# --- asked for wrongly --------------------------------------------------------------------------------------------


def test_an_unknown_command_is_refused(refusal):
    known = ", ".join(COMMANDS)
    assert refusal("pretrian", "tiny") == f"there is no command 'pretrian'; there are: {known}"


@pytest.mark.parametrize("command", [["describe", "tiny"], ["pretrain", "tiny"], ["generate", "a", "--model", "b"]])
def test_an_unknown_flag_is_named_and_refused(command, illada):
    answer = illada(*command, "--colour", "blue")
    assert (answer.code, answer.out) == (2, "")
    assert "--colour" in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("3 is not 4"), 2),
        (FileNotFoundError("no such folder: x"), 2),
        (FileExistsError("x is there already"), 2),
        (NotADirectoryError("x is a file"), 2),
        (OSError(28, "No space left on device"), 1),
        (PermissionError("x is not yours"), 1),
        (ImportError("this needs an extra: pip install 'illada[hf]'"), 1),
        (FloatingPointError("the loss is nan at step 3"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(error, code, failing, illada):
    failing(error)
    answer = illada("fail")
    assert (answer.code, answer.out) == (code, "")
    assert answer.err == f"illada: {'interrupted' if code == 130 else error}\n"


def test_a_mistake_of_ours_is_not_hidden(failing):
    failing(ZeroDivisionError("ours"))
    with pytest.raises(ZeroDivisionError):
        main(["fail"])


def test_with_debugging_on_the_error_itself_is_seen(failing, monkeypatch):
    monkeypatch.setenv("ILLADA_DEBUG", "1")
    failing(ValueError("with its traceback"))
    with pytest.raises(ValueError, match="with its traceback"):
        main(["fail"])
    assert main(["no such command"]) == 2


# --- a reader that has seen enough --------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["describe", "tiny"]])
def test_a_broken_pipe_is_no_error_worth_a_word(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "illada", *arguments],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
            check=False,
        )
    finally:
        os.close(writing)
    assert done.stderr == ""
    assert done.returncode in (0, 1)  # the library that draws tables leaves with 1


def test_what_was_printed_is_flushed(monkeypatch, failing):
    class Gone(io.StringIO):
        def flush(self):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Gone())
    assert main(["--version"]) == 1
