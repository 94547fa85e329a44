"""What all benchmarks share: how seconds and bytes are taken, and what is printed and kept.

`seconds_of`, `peak_bytes` and `in_fresh_process` measure, `spread` sums up repeats, `describe_run` says where the
numbers come from, `print_card` shows them to people, and `publish` prints one line of JSON, the last of the output,
and writes it to a file.
"""

import ctypes
import gc
import json
import multiprocessing
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.table import Table

T = TypeVar("T")

CARD_WIDTH = 120
"""Columns of a card that goes to a file or a pipe, where no terminal tells its width."""

_STATUS = Path("/proc/self/status")
_RESET_PEAK = Path("/proc/self/clear_refs")


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """How long `work` takes, to the end of what it started on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def peak_bytes(work: Callable[[], object], device: torch.device) -> tuple[int, int] | None:
    """Bytes in use before `work`, and the most while it runs.

    On CUDA those that torch allocated; on a CPU the resident memory of the process, where the system is Linux;
    elsewhere None, since no other system sets the peak back to the present.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return before, torch.cuda.max_memory_allocated(device)
    if not _RESET_PEAK.exists():
        return None
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # what the allocator holds back would count as in use before and be missing afterwards
        trim(0)
    before = _status_bytes("VmRSS")
    _RESET_PEAK.write_text("5")
    work()
    return before, _status_bytes("VmHWM")


def _status_bytes(field: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return 1024 * int(line.split()[1])


def in_fresh_process(work: Callable[[], T]) -> T:
    """The result of `work` (something that can be pickled) in a process that has done nothing before."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work).result()


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of repeats."""
    if len(values) == 1:
        return {"q1": values[0], "median": values[0], "q3": values[0]}
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return {"q1": q1, "median": median, "q3": q3}


def describe_run(subject: str, device: torch.device, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The head of a result: what was measured, on what, with which code, when and how."""
    return {
        "subject": subject,
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "commit": commit(Path(__file__).parent),
        "date": datetime.now(UTC).date().isoformat(),
        "settings": {key: str(value) if isinstance(value, Path) else value for key, value in settings.items()},
    }


def device_name(device: torch.device) -> str:
    """The name of the GPU, or of the CPU with the vector instructions that torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name, facts = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if facts.exists():
        models = (line.partition(":")[2].strip() for line in facts.read_text().splitlines() if "model name" in line)
        name = next(models, name)
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


def commit(folder: Path) -> str:
    """The short name of the commit that `folder` is checked out at; unknown outside a checkout."""
    command = ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def print_card(title: str, table: Table, note: str = "") -> None:
    """Show a table under its title, and a line that explains it."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=CARD_WIDTH)
    console.print(title, style="bold")
    console.print(table)
    console.print(note, style="dim")


def publish(result: Mapping[str, Any], out: Path | None = None) -> None:
    """Print the result as one line of JSON; write it, indented, to `out`."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))
