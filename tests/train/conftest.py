"""A small text, a configuration that trains on it in a second, and processes that run the command line."""

import json
import multiprocessing
import os
import random
import shlex
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

SMALL_RUN = """
    pretrain tiny --model.hidden-size 32 --model.layers 2 --model.heads 2 --model.kv-heads 1 --model.ffn-size 64
    --corpus.vocab-size 300 --packing.length 32 --learning-rate.warmup-steps 5 --held-out.rows 8 --held-out.samples 2
    --steps 30 --log-every 2 --validate-every 10 --checkpoint-every 5 --precision fp32 --device cpu
"""

# what a child of the fork server runs: the limit on file sizes makes the disk "full"
_CHILD = """
import os, resource, sys
log = os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.dup2(log, 1)
os.dup2(log, 2)
if {file_limit}:
    resource.setrlimit(resource.RLIMIT_FSIZE, ({file_limit}, {file_limit}))
{prelude}
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
    """Processes that run the command line; they are forked from one that has everything imported already.

    So each takes a second instead of five, and can be killed like any other. No shape checks run in them.
    """
    threads = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS",)}
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("forkserver")
    # an optimizer imports torch._dynamo when it is first made: that takes as long as torch itself
    context.set_forkserver_preload(["torch._dynamo", "illada.cli.pretrain"])

    def start(arguments, log, *, file_limit=0, prelude="") -> ForkServerProcess:
        code = _CHILD.format(log=str(log), file_limit=file_limit, prelude=prelude, arguments=list(map(str, arguments)))
        process = context.Process(target=exec, args=(code, {}))
        process.start()
        return process

    yield start
    for name, value in threads.items():
        os.environ.pop(name)
        if value is not None:
            os.environ[name] = value


@pytest.fixture(scope="session")
def readings():
    """The lines of a run's metrics file, as they are but for the speeds."""

    def read(folder: Path) -> list[dict[str, float]]:
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [{key: value for key, value in line.items() if "per_second" not in key} for line in lines]

    return read
