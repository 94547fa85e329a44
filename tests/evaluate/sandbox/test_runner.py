"""Programs that try to get out, to stay, or to take too much; and those that only want to run.

Each is harmless by itself should the walls fail: forks are few and short, memory is asked for and not touched.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from illada.evaluate.sandbox import Limits, check_sandbox, launcher, run_program, run_programs, runner

MISSING = launcher.supported()
confined = pytest.mark.skipif(bool(MISSING), reason=f"programs cannot be confined here: {MISSING}")
SHORT = Limits(seconds=2.0)


def marked_processes(mark):
    """Processes whose command line has this word."""
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in found.splitlines() if mark in line and "ps -eo" not in line]


# --- programs that do as they should ------------------------------------------------------------------------------


@confined
@pytest.mark.parametrize(
    "source",
    [
        "x = 1",
        "import math, re, typing, collections, itertools, heapq, hashlib, datetime, random\nassert math.sqrt(4) == 2",
        "from typing import List\ndef f(x: List[int]) -> int:\n    return sum(x)\nassert f([1, 2]) == 3",
        "print('x' * 100_000)",
        "import threading\nt = threading.Thread(target=lambda: None)\nt.start()\nt.join()",
        "with open('mine.txt', 'w') as file:\n    file.write('x')\nassert open('mine.txt').read() == 'x'",
        "if __name__ == '__main__':\n    x = 1\nassert x",
        "import sys\nassert sys.stdin.read() == ''",
    ],
    ids=["nothing", "library", "types", "output", "thread", "own file", "main", "no input"],
)
def test_a_right_program_passes(source):
    outcome = run_program(source)
    assert (outcome.reason, outcome.detail, outcome.passed) == ("passed", "", True)
    assert outcome.seconds > 0


@confined
@pytest.mark.parametrize(
    ("source", "detail"),
    [
        ("assert 1 == 2, 'they differ'", "AssertionError: they differ"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def f(:", "SyntaxError: invalid syntax (program.py, line 1)"),
        ("def f():\n    f()\nf()", "RecursionError: maximum recursion depth exceeded"),
        ("import sys\nsys.exit(0)", "SystemExit: 0"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("class E(Exception):\n    def __str__(self):\n        raise E\nraise E", "E"),
        ("import numpy", "ModuleNotFoundError: No module named 'numpy'"),
        ("raise ValueError('x' * 10_000)", "ValueError: " + "x" * 300),
    ],
)
def test_an_error_is_told_with_its_text(source, detail):
    outcome = run_program(source)
    assert (outcome.reason, outcome.detail) == ("error", detail)
    assert not outcome.passed


# --- programs that take too much ----------------------------------------------------------------------------------


@confined
@pytest.mark.parametrize(
    "source", ["while True:\n    pass", "import time\ntime.sleep(60)", "while True:\n    print('x')"]
)
def test_an_endless_program_is_stopped(source):
    began = time.perf_counter()
    outcome = run_program(source, Limits(seconds=1.0))
    assert outcome.reason == "timeout"
    assert time.perf_counter() - began < 10


@confined
def test_ten_gigabytes_are_refused():
    outcome = run_program("x = bytearray(10 * 10**9)", SHORT)
    assert outcome.reason == "memory"


@confined
def test_a_fork_bomb_does_not_start():
    source = "import os, time\nfor _ in range(50):\n    if os.fork() == 0:\n        time.sleep(3)\n        os._exit(0)"
    outcome = run_program(source, SHORT)
    assert (outcome.reason, outcome.detail) == ("error", "PermissionError: [Errno 1] Operation not permitted")


@confined
@pytest.mark.parametrize(
    "source",
    [
        "import subprocess\nsubprocess.run(['true'])",
        "import os\nos.system('true') and exit()\nassert os.system('true') == 0",
        "import multiprocessing\np = multiprocessing.get_context('fork').Process(target=print)\np.start()",
        "import os\nos.execv('/bin/true', ['true'])",
    ],
    ids=["subprocess", "system", "multiprocessing", "exec"],
)
def test_no_other_program_is_started(source):
    assert run_program(source, SHORT).reason == "error"


@confined
def test_a_large_file_is_refused():
    source = "file = open('big', 'wb')\nfor _ in range(64):\n    file.write(b'x' * 2**20)\nfile.flush()"
    outcome = run_program(source, Limits(seconds=5.0, file_bytes=1 << 20))
    assert outcome.reason in ("error", "killed")
    assert "File too large" in outcome.detail or outcome.detail == "SIGXFSZ"


@confined
def test_limits_cannot_be_raised():
    source = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))"
    assert run_program(source, SHORT).reason == "error"
    assert run_program("import resource\nassert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)").passed


# --- programs that reach outside ----------------------------------------------------------------------------------


@confined
def test_nothing_is_written_outside_the_folder(tmp_path):
    target = tmp_path / "written"
    outcome = run_program(f"open({str(target)!r}, 'w').write('x')", SHORT)
    assert outcome.reason == "error"
    assert "Permission denied" in outcome.detail
    assert not target.exists()


@confined
@pytest.mark.parametrize(
    "action",
    [
        "os.remove({path!r})",
        "os.rename({path!r}, {path!r} + '2')",
        "os.truncate({path!r}, 0)",
        "os.chmod({path!r}, 0)",
        "os.utime({path!r}, (0, 0))",
        "os.symlink({path!r}, 'link') or open('link', 'w')",
        "os.link({path!r}, 'link')",
        "open({path!r}).read()",
        "os.mkdir({path!r} + '.d')",
        "open({path!r}, 'r+').write('x')",
    ],
)
def test_a_file_outside_stays_as_it_is(tmp_path, action):
    path = tmp_path / "file"
    path.write_text("secret")
    before = path.stat()
    outcome = run_program("import os\n" + action.format(path=str(path)), SHORT)
    assert outcome.reason == "error", action
    assert path.read_text() == "secret"
    after = path.stat()
    assert (after.st_mode, after.st_mtime) == (before.st_mode, before.st_mtime)
    assert list(tmp_path.iterdir()) == [path]


@confined
@pytest.mark.parametrize("kind", ["socket.AF_INET", "socket.AF_INET6", "socket.AF_UNIX"])
def test_there_is_no_network(kind):
    outcome = run_program(f"import socket\nsocket.socket({kind})", SHORT)
    assert (outcome.reason, outcome.detail) == ("error", "PermissionError: [Errno 1] Operation not permitted")


@confined
def test_secrets_of_the_environment_are_not_there(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert run_program("import os\nassert 'HF_TOKEN' not in os.environ\nassert 'secret' not in str(os.environ)").passed


@confined
def test_the_arguments_and_memory_of_others_cannot_be_read():
    assert run_program(f"open('/proc/{os.getpid()}/environ').read()", SHORT).reason == "error"
    assert run_program(f"open('/proc/{os.getpid()}/cmdline').read()", SHORT).reason == "error"


@confined
def test_other_processes_cannot_be_stopped():
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"]) as other:
        outcome = run_program(f"import os\nos.kill({other.pid}, 9)", SHORT)
        assert outcome.reason == "error"
        assert other.poll() is None
        other.kill()


# --- programs that pretend ----------------------------------------------------------------------------------------


@confined
@pytest.mark.parametrize("code", [0, 1])
def test_leaving_early_is_not_passing(code):
    outcome = run_program(f"import os\nos._exit({code})\nassert False", SHORT)
    assert (outcome.reason, outcome.passed) == ("left", False)


@confined
def test_a_program_that_stops_itself_is_told_so():
    outcome = run_program("import os\nos.kill(os.getpid(), 9)", SHORT)
    assert (outcome.reason, outcome.detail) == ("killed", "SIGKILL")


@confined
def test_a_guess_at_the_word_for_success_does_not_pass():
    write = """os.write(fd, b'{"token": "0"}')"""
    loop = f"for fd in range(3, 64):\n    try:\n        {write}\n    except OSError:\n        pass"
    assert not run_program(f"import os\n{loop}\nos._exit(0)", SHORT).passed


@confined
def test_changed_builtins_hurt_only_themselves():
    source = "import builtins, json\nbuiltins.str = None\njson.dumps = None\nassert False, 'no'"
    outcome = run_program(source, SHORT)
    assert not outcome.passed
    assert run_program("assert str(1) == '1'").passed


# --- many ---------------------------------------------------------------------------------------------------------


@confined
def test_outcomes_come_in_the_order_of_the_programs_and_progress_is_told():
    told = []
    sources = ["import time\ntime.sleep(0.3)", "assert False", "x = 1", "import os\nos._exit(3)"]
    outcomes = run_programs(sources, workers=4, on_progress=told.append)
    assert [outcome.reason for outcome in outcomes] == ["passed", "error", "passed", "left"]
    assert told == [1, 2, 3, 4]


@confined
def test_nothing_is_left_behind(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run_programs(["open('a', 'w')", "while True: pass", "import os\nos._exit(0)"], Limits(seconds=0.5), workers=3)
    assert list(tmp_path.iterdir()) == []
    assert marked_processes(str(tmp_path)) == []


@confined
def test_descriptors_are_given_back():
    run_program("x = 1")
    open_ones = Path("/proc/self/fd")
    before = len(list(open_ones.iterdir()))
    run_programs(["x = 1", "while True: pass", "1 / 0"], Limits(seconds=0.5))
    assert len(list(open_ones.iterdir())) == before


# --- where it cannot be -------------------------------------------------------------------------------------------


def test_a_machine_that_cannot_confine_refuses(monkeypatch):
    monkeypatch.setattr(launcher.sys, "platform", "darwin")
    with pytest.raises(RuntimeError, match=r"cannot be run safely on this machine: it needs Linux, and this is darwin"):
        check_sandbox()
    with pytest.raises(RuntimeError, match="Linux"):
        run_programs(["x = 1"])


def test_a_kernel_without_landlock_refuses(monkeypatch):
    monkeypatch.setattr(launcher, "landlock_version", lambda: 0)
    with pytest.raises(RuntimeError, match="Landlock" if sys.platform == "linux" else "Linux"):
        run_program("x = 1")


@pytest.mark.parametrize("name", ["seconds", "memory_bytes", "file_bytes", "open_files"])
def test_limits_that_nothing_can_keep_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be above 0"):
        Limits(**{name: 0.0 if name == "seconds" else 0})


def test_every_refused_call_has_a_number_of_its_own():
    for column in (0, 1):
        numbers = [pair[column] for pair in launcher._CALLS.values() if pair[column] >= 0]
        assert len(set(numbers)) == len(numbers)
    assert Path(runner.launcher.__file__).name == "launcher.py"
