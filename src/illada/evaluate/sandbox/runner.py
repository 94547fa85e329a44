"""Start a confined process for each program, watch the clock, and read what it tells."""

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from illada.evaluate.sandbox import launcher

Reason = Literal["passed", "error", "timeout", "memory", "killed", "left"]

_TOLD = 4096
_GRACE = 1.0
"""Seconds that starting a process may take on top of the program's own."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one program may use."""

    seconds: float = 10.0
    memory_bytes: int = 1 << 30
    """Address space."""
    file_bytes: int = 16 << 20
    """Of a single file, in its own folder."""
    open_files: int = 64

    def __post_init__(self) -> None:
        """Refuse limits that nothing can keep."""
        for name, value in asdict(self).items():
            if value <= 0:
                raise ValueError(f"{name} must be above 0, got {value}")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a program."""

    reason: Reason
    """passed: it ran to its end. error: it raised. timeout, memory: a limit. killed: by a signal. left: it ended the
    process itself."""
    detail: str
    """The error's name and text, or the signal."""
    seconds: float

    @property
    def passed(self) -> bool:
        """It ran to its end without an error."""
        return self.reason == "passed"


def check_sandbox() -> None:
    """Is everything there to confine a program?

    Raises:
        RuntimeError: no; the message says what is missing.
    """
    if missing := launcher.supported():
        raise RuntimeError(f"programs cannot be run safely on this machine: {missing}; leave tasks of code out")


def run_program(source: str, limits: Limits = Limits()) -> Outcome:  # frozen
    """Run one program, confined.

    Raises:
        RuntimeError: this machine cannot confine it.
    """
    check_sandbox()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="illada-program-", ignore_cleanup_errors=True) as folder:
        Path(folder, "program.py").write_text(source, encoding="utf-8", errors="replace")
        reader, writer = os.pipe()
        try:
            code, token = _started(folder, limits, writer)
            os.close(writer)
            writer = -1
            told = os.read(reader, _TOLD)
        finally:
            os.close(reader)
            if writer >= 0:
                os.close(writer)
    reason, detail = _read(code, told, token)
    return Outcome(reason=reason, detail=detail, seconds=time.perf_counter() - began)


def run_programs(
    sources: Sequence[str],
    limits: Limits = Limits(),  # frozen
    *,
    workers: int | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> list[Outcome]:
    """Run programs, as many at a time as there are cores; the outcomes in their order.

    Raises:
        RuntimeError: this machine cannot confine them.
    """
    check_sandbox()
    outcomes = []
    with ThreadPoolExecutor(max_workers=workers or os.cpu_count()) as pool:
        for outcome in pool.map(lambda source: run_program(source, limits), sources):
            outcomes.append(outcome)
            if on_progress is not None:
                on_progress(len(outcomes))
    return outcomes


def _started(folder: str, limits: Limits, result: int) -> tuple[int | None, str]:
    """(exit code, or None for one that had to be stopped; the token that a finished program sends back)."""
    token = secrets.token_hex(16)
    command = [sys.executable, "-I", "-S", "-B", launcher.__file__, folder, json.dumps(asdict(limits)), str(result)]
    process = subprocess.Popen(  # noqa: S603  # no shell, and no word of the command from outside
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"HOME": folder, "TMPDIR": folder, "LC_ALL": "C.UTF-8"},
        cwd=folder,
        pass_fds=(result,),
        start_new_session=True,
    )
    try:
        process.communicate(f"{token}\n".encode(), timeout=limits.seconds + _GRACE)
        return process.returncode, token
    except subprocess.TimeoutExpired:
        return None, token
    finally:
        process.kill()
        process.wait()


def _read(code: int | None, told: bytes, token: str) -> tuple[Reason, str]:
    if code is None or code == -signal.SIGXCPU:
        return "timeout", ""
    try:
        answer = json.loads(told)
    except ValueError:
        answer = {}
    if isinstance(answer, dict) and answer.get("token") == token:
        return "passed", ""
    if code < 0:
        return "killed", signal.Signals(-code).name
    if not isinstance(answer, dict) or "error" not in answer:
        return "left", f"the process ended with {code} before the program did"
    if answer["error"] == "MemoryError":
        return "memory", "MemoryError"
    return "error", f"{answer['error']}: {answer.get('text', '')}".rstrip(": ")
