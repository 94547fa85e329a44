"""What several rooms need: a small text, a configuration that trains on it in a second, processes to run it in.

And run-time shape checks for the whole suite: every annotated call in illada is checked against its jaxtyping names.
"""

import importlib
import json
import multiprocessing
import os
import random
import shlex
import socket
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

install_import_hook("illada", "beartype.beartype")

# beartype checks one entry of a list at random, in the loader's thread as well, and Hypothesis takes any change of the
# global generator for a fault of its strategies: when beartype is first imported, it is given a generator of its own.
with pytest.MonkeyPatch.context() as patch:
    patch.setattr(random, "getrandbits", random.Random().getrandbits)
    importlib.import_module("beartype")

# How long an example takes says something about the machine and who else uses it, and nothing about what is tested.
settings.register_profile("illada", deadline=None, suppress_health_check=(HealthCheck.too_slow,))
settings.load_profile("illada")

# Small models gain nothing from more threads, and two that wait for each other on a busy machine lose tenfold.
torch.set_num_threads(1)

SMALL_RUN = """
    pretrain tiny --model.hidden-size 32 --model.layers 2 --model.heads 2 --model.kv-heads 1 --model.ffn-size 64
    --corpus.vocab-size 300 --packing.length 32 --learning-rate.warmup-steps 5 --held-out.rows 8 --held-out.samples 2
    --steps 30 --log-every 2 --validate-every 10 --checkpoint-every 5 --precision fp32 --device cpu
"""

# what a child of the fork server runs: the limit on file sizes makes the disk "full"
_CHILD = """
import os, resource, runpy, sys
log = os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.dup2(log, 1)
os.dup2(log, 2)
os.environ.update({environment!r})
if {file_limit}:
    resource.setrlimit(resource.RLIMIT_FSIZE, ({file_limit}, {file_limit}))
{prelude}
if {program!r}:
    sys.argv[:] = [{program!r}, *{arguments!r}]
    sys.path.insert(0, os.path.dirname({program!r}))  # as Python does for a script
    runpy.run_path({program!r}, run_name="__main__")
else:
    from illada.cli.main import main
    sys.exit(main({arguments!r}))
"""


@pytest.fixture(scope="session")
def small_text(tmp_path_factory) -> Path:
    """Lines of made-up words: little to learn, but more than nothing."""
    chance = random.Random(0)
    words = ["".join(chance.choices("abcdefghij", k=chance.randint(2, 6))) for _ in range(60)]
    lines = [" ".join(chance.choices(words, k=10)) for _ in range(500)]
    file = tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """Prepared corpora, shared by all runs on the same text."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def small_run(small_text, cache) -> list[str]:
    """The arguments of a run of 30 steps, but for --out."""
    return [*shlex.split(SMALL_RUN), "--corpus.sources", str(small_text), "--cache", str(cache)]


@pytest.fixture(scope="session")
def processes():
    """Processes that run the command line, or a program; they are forked from one that has all imported already.

    So each takes a second instead of five, and can be killed like any other. No shape checks run in them.
    """
    threads = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS",)}
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("forkserver")
    # an optimizer imports torch._dynamo when it is first made: that takes as long as torch itself
    context.set_forkserver_preload(["torch._dynamo", "illada.cli.pretrain"])

    def start(arguments, log, *, file_limit=0, prelude="", program="", environment=None) -> ForkServerProcess:
        code = _CHILD.format(
            log=str(log),
            file_limit=file_limit,
            prelude=prelude,
            program=str(program),
            environment=environment or {},
            arguments=list(map(str, arguments)),
        )
        process = context.Process(target=exec, args=(code, {}))
        process.start()
        return process

    yield start
    for name, value in threads.items():
        os.environ.pop(name)
        if value is not None:
            os.environ[name] = value


@pytest.fixture(scope="session")
def job(processes):
    """Several processes that know of each other, as torchrun starts them; each has a log of its own."""

    def start(arguments, logs, *, size, **options) -> list[ForkServerProcess]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        logs.mkdir(parents=True, exist_ok=True)
        common = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        return [
            processes(
                arguments,
                logs / str(rank),
                environment=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                **options,
            )
            for rank in range(size)
        ]

    return start


@pytest.fixture(scope="session")
def finish():
    """Wait for all processes of a job; their exit codes."""

    def wait(started, *, seconds=120) -> list[int]:
        for process in started:
            process.join(seconds)
        codes = [process.exitcode for process in started]
        for process in started:
            if process.exitcode is None:
                process.kill()
                process.join()
            process.close()
        return codes

    return wait


@pytest.fixture(scope="session")
def readings():
    """The lines of a run's metrics file, as they are but for what the clock and the machine decide."""

    def read(folder: Path) -> list[dict[str, float]]:
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        measured = ("second", "fraction", "memory", "slowest")
        return [{key: value for key, value in line.items() if not any(w in key for w in measured)} for line in lines]

    return read
