import errno
import hashlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from illada.durable import atomic_folder, sha256, write_text


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A process of its own that runs `code`, with its output to read."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# --- folders ------------------------------------------------------------------------------------------------------


def test_the_folder_appears_when_the_block_ends(tmp_path):
    target = tmp_path / "run" / "step"
    with atomic_folder(target) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a.txt").write_text("one")
        (folder / "b.bin").write_bytes(b"two")
        assert folder.parent == target.parent  # one file system, or the rename would be a copy
        assert not target.exists()
    assert names(tmp_path / "run") == {"step"}
    assert names(target) == {"sub", "b.bin"}
    assert (target / "sub" / "a.txt").read_text() == "one"
    assert (target / "b.bin").read_bytes() == b"two"


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
def test_an_exception_leaves_nothing(tmp_path, error):
    def fail() -> None:
        with atomic_folder(tmp_path / "step") as folder:
            (folder / "a.txt").write_text("one")
            raise error("stop")

    with pytest.raises(error, match="stop"):
        fail()
    assert names(tmp_path) == set()


def test_a_folder_that_is_there_is_refused_and_untouched(tmp_path):
    target = tmp_path / "step"
    target.mkdir()
    (target / "old.txt").write_text("old")
    with pytest.raises(FileExistsError, match="step exists already: choose another"), atomic_folder(target):
        pytest.fail("the block must not run")
    assert names(tmp_path) == {"step"}
    assert (target / "old.txt").read_text() == "old"


def test_a_folder_that_appears_meanwhile_is_not_overwritten(tmp_path):
    target = tmp_path / "step"

    def race() -> None:
        with atomic_folder(target) as folder:
            (folder / "a.txt").write_text("ours")
            target.mkdir()
            (target / "a.txt").write_text("theirs")

    with pytest.raises(FileExistsError, match="step exists already"):
        race()
    assert names(tmp_path) == {"step"}
    assert (target / "a.txt").read_text() == "theirs"


HOLD = """
import sys
from pathlib import Path
from illada.durable import atomic_folder
with atomic_folder(Path(sys.argv[1])) as folder:
    (folder / "half.txt").write_text("half")
    print(folder, flush=True)
    sys.stdin.read()
"""


def hold(target: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process in the middle of writing `target`, and its unfinished folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(target)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    return process, Path(process.stdout.readline().strip())


def test_a_killed_writer_leaves_no_target_and_the_next_sweeps_up(tmp_path):
    target = tmp_path / "step"
    process, partial = hold(target)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not target.exists()
    assert (partial / "half.txt").exists()
    with atomic_folder(tmp_path / "other"):
        assert partial.exists()  # another name's business
    with atomic_folder(target) as folder:
        assert not partial.exists()
        (folder / "whole.txt").write_text("whole")
    assert names(tmp_path) == {"step", "other"}
    assert names(target) == {"whole.txt"}


def test_the_partial_folder_of_a_living_writer_stays(tmp_path):
    target = tmp_path / "step"
    process, partial = hold(target)
    with atomic_folder(target) as folder:
        assert partial.exists()
        (folder / "whole.txt").write_text("whole")
    assert (partial / "half.txt").exists()
    process.communicate()  # it goes on, and finds the name taken
    assert process.returncode != 0
    assert names(tmp_path) == {"step"}
    assert names(target) == {"whole.txt"}


def test_a_partial_folder_of_this_process_number_does_not_block(tmp_path):
    """In a container every run may be process 1: what an earlier run left has our own number."""
    leftover = tmp_path / f".step.partial-{socket.gethostname()}-{os.getpid()}"
    leftover.mkdir()
    (leftover / "half.txt").write_text("half")
    with atomic_folder(tmp_path / "step") as folder:
        (folder / "whole.txt").write_text("whole")
    assert names(tmp_path) == {"step"}
    assert names(tmp_path / "step") == {"whole.txt"}


def test_what_another_machine_or_a_user_left_stays(tmp_path):
    """Whether a process of another machine lives cannot be known from here."""
    kept = {".step.partial-elsewhere-1", f".step.partial-{socket.gethostname()}-old", ".step.partial-", ".stepladder"}
    for name in kept:
        (tmp_path / name).mkdir()
    with atomic_folder(tmp_path / "step"):
        pass
    assert names(tmp_path) == {"step", *kept}


# --- files --------------------------------------------------------------------------------------------------------


def test_write_text_replaces_a_file(tmp_path):
    path = tmp_path / "a.json"
    write_text(path, "one")
    assert path.read_text() == "one"
    write_text(path, "zwei: ü\n")
    assert path.read_bytes() == "zwei: ü\n".encode()
    assert names(tmp_path) == {"a.json"}


def test_write_text_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new\ud800")
    assert path.read_text() == "old"
    assert names(tmp_path) == {"a.json"}


def test_a_reader_never_sees_half_a_file(tmp_path):
    """The file that was open before the write keeps its whole content: it was replaced, not rewritten."""
    path = tmp_path / "a.json"
    write_text(path, "old")
    with path.open() as reader:
        write_text(path, "new and longer")
        assert reader.read() == "old"


FULL = """
import resource, signal, sys
from pathlib import Path
from illada.durable import atomic_folder, write_text
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
root = Path(sys.argv[1])
try:
    if sys.argv[2] == "file":
        write_text(root / "a.json", "x" * 2000)
    else:
        with atomic_folder(root / "step") as folder:
            (folder / "small").write_text("x")
            (folder / "large").write_text("x" * 2000)
except OSError as error:
    print(error.errno)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_disk_that_is_full_leaves_nothing(tmp_path, kind):
    """A limit on the size of a file stands in for the full disk."""
    output, errors = python(FULL, tmp_path, kind).communicate()
    assert output.strip() == str(errno.EFBIG), errors
    assert names(tmp_path) == set()


def test_a_full_disk_keeps_the_old_file(tmp_path):
    (tmp_path / "a.json").write_text("old")
    output, errors = python(FULL, tmp_path, "file").communicate()
    assert output.strip() == str(errno.EFBIG), errors
    assert (tmp_path / "a.json").read_text() == "old"


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_sha256_is_that_of_the_whole_content(tmp_path, size):
    content = bytes(number % 251 for number in range(1000)) * (size // 1000 + 1)
    (tmp_path / "file").write_bytes(content[:size])
    assert sha256(tmp_path / "file") == hashlib.sha256(content[:size]).hexdigest()
