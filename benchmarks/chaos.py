"""Runs that are killed at random until they are done, and files that are damaged at random: nothing may be lost.

    python benchmarks/chaos.py                      30 runs and 200 damaged files, half an hour on two cores
    python benchmarks/chaos.py --runs 2 --corruptions 20
    python benchmarks/chaos.py --out benchmarks/results/chaos_cpu2_202611.json

A run is `illada pretrain` on two processes that share the weights, with a checkpoint every second step. It is killed
with SIGKILL at a random moment, one process or both, and started again with --resume, until it ends by itself. As
torchrun does, the harness ends what is left of a job in which a process has died. A run has survived if its weights,
moments and state are those of the run that nobody disturbed, to the bit. After every kill each checkpoint that is
there is loaded and compared with the undisturbed run's of the same step: one that loads and differs would be counted
as wrong.

A corruption is one bit flipped in, or the end cut off, a random file of a checkpoint (of one process, of two, or
exported) or of a corpus's token shards. It has been refused if nothing loads and the message names the file.
"""

import contextlib
import json
import multiprocessing
import os
import random
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.table import Table
from torch import Tensor

from card import describe_run, print_card, publish
from illada.checkpoint.native import list_checkpoints, load_checkpoint
from illada.data.shards import TokenShards
from illada.data.tokenizer import Tokenizer

RUN = """
    pretrain tiny --model.hidden-size 32 --model.layers 2 --model.heads 2 --model.kv-heads 2 --model.ffn-size 64
    --corpus.vocab-size 300 --packing.length 32 --learning-rate.warmup-steps 5 --held-out.rows 4 --held-out.samples 1
    --log-every 2 --validate-every 0 --checkpoint-every 2 --keep-last 3 --precision fp32 --device cpu
    --average-decay 0.9
"""
PROCESSES = 2
GRACE_SECONDS = 20.0
"""What torchrun, too, gives the rest of a job before it kills it."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How often to kill and to damage."""

    runs: int = 30
    corruptions: int = 200
    steps: int = 40
    seed: int = 0
    out: Path | None = None
    """Write the result to this file, too."""


# --- jobs ---------------------------------------------------------------------------------------------------------


def _work(arguments: list[str], log: str, environment: dict[str, str]) -> None:
    """In a process of a job: the command line, its output in `log`."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.update(environment)
    torch.set_num_threads(1)
    from illada.cli.main import main as illada

    sys.exit(illada(arguments))


def start_job(arguments: list[str], log: Path, *, size: int = PROCESSES) -> list[ForkServerProcess]:
    """Processes that know of each other; forked from one that has everything imported, so they start at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "illada.cli.pretrain"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = []
    for rank in range(size):
        environment = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        job.append(context.Process(target=_work, args=(arguments, f"{log}.{rank}", environment)))
        job[-1].start()
    return job


def end_of(job: list[ForkServerProcess]) -> list[int | None]:
    """Exit codes; where one process has died, the others are asked to end, and made to."""
    while all(process.is_alive() for process in job):
        time.sleep(0.01)
    for process in job:
        process.join(GRACE_SECONDS)
    if any(process.exitcode != 0 for process in job):
        for process in job:
            if process.is_alive():
                process.terminate()
                process.join(GRACE_SECONDS)
                process.kill()
    for process in job:
        process.join()
    return [process.exitcode for process in job]


# --- what is compared ---------------------------------------------------------------------------------------------

Content = tuple[dict[str, Tensor], dict[str, Any]]


def content_of(checkpoint: Path) -> Content:
    """Every tensor of a checkpoint, and its state."""
    saved = load_checkpoint(checkpoint, with_optimizer=True)
    return {**{f"model/{k}": v for k, v in saved.weights.items()}, **saved.optimizer}, saved.state


def equal(one: Content, other: Content) -> bool:
    """Whether all is the same, to the bit."""
    tensors = one[0].keys() == other[0].keys() and all(torch.equal(one[0][k], other[0][k]) for k in one[0])
    return tensors and one[1] == other[1]


def readings(folder: Path) -> list[dict[str, float]]:
    """The metrics of a run but for what the clock and the machine decide."""
    measured = ("second", "fraction", "memory", "slowest")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not any(word in key for word in measured)} for line in lines]


# --- killing ------------------------------------------------------------------------------------------------------


class Chaos:
    """Kills runs of one configuration, and compares what they come to."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self.chance = random.Random(settings.seed)
        words = ["".join(self.chance.choices("abcdefghij", k=self.chance.randint(2, 6))) for _ in range(60)]
        text = folder / "text.txt"
        text.write_text("\n".join(" ".join(self.chance.choices(words, k=10)) for _ in range(500)) + "\n")
        where = ["--corpus.sources", str(text), "--cache", str(folder / "cache")]
        self.arguments = [*shlex.split(RUN), "--steps", str(settings.steps), *where]
        self.counts: Counter[str] = Counter()

    def undisturbed(self) -> None:
        """The run to compare with; all its checkpoints are kept."""
        run = self.folder / "undisturbed"
        arguments = [*self.arguments, "--out", str(run), "--keep-last", "9999"]
        end_of(start_job(arguments, self.folder / "warm"))  # the fork server starts, the corpus is prepared
        shutil.rmtree(run)
        began = time.monotonic()
        codes = end_of(start_job(arguments, self.folder / "undisturbed.log"))
        assert codes == [0] * PROCESSES, (self.folder / "undisturbed.log.0").read_text()
        self.seconds = time.monotonic() - began
        self.expected = {step: content_of(path) for step, path in list_checkpoints(run / "checkpoints")}
        self.readings = readings(run)

    def survives(self, number: int) -> bool:
        """One run, killed until it is done; whether it came to what the undisturbed one came to."""
        run = self.folder / f"run-{number}"
        kills, limit = 0, 0.9 * self.seconds
        while True:
            log = self.folder / f"run-{number}.log"
            job = start_job([*self.arguments, "--out", str(run), "--resume"], log)
            # the first start is killed before it can be done, a later one at any time or not at all
            killed = self.kill_at(self.chance.uniform(0, 1.5 * self.seconds if kills else limit), job, run)
            codes = end_of(job)
            self.check_checkpoints(run)
            if not killed:
                assert codes == [0] * PROCESSES, f"{codes}: {Path(f'{log}.0').read_text()[-2000:]}"
                if kills:
                    break
                shutil.rmtree(run)  # it was faster than the undisturbed one: it proves nothing, and begins again
                limit *= 0.7
                continue
            kills += 1
        self.counts["kills"] += kills
        self.counts[f"runs killed {min(kills, 3)}{' times or more' if kills >= 3 else ' times'}"] += 1
        step, newest = list_checkpoints(run / "checkpoints")[-1]
        same = equal(content_of(newest), self.expected[self.settings.steps]) and readings(run) == self.readings
        leftovers = [path.name for path in (run / "checkpoints").iterdir() if path.name.startswith(".")]
        shutil.rmtree(run)
        return step == self.settings.steps and same and not leftovers

    def kill_at(self, delay: float, job: list[ForkServerProcess], run: Path) -> bool:
        """Kill one process of the job, or all, after so many seconds; False if it was done before."""
        deadline = time.monotonic() + delay
        while time.monotonic() < deadline and all(process.is_alive() for process in job):
            time.sleep(0.001)
        if not all(process.is_alive() for process in job):
            return False
        saving = any(path.name.startswith(".step") for path in run.glob("checkpoints/.step*"))
        victims = job if self.chance.random() < 0.5 else [self.chance.choice(job)]
        for process in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid or 0, signal.SIGKILL)
        for process in victims:
            process.join()
        if all(process.exitcode == 0 for process in job):
            return False
        self.counts["of all processes" if len(victims) > 1 else "of one process"] += 1
        self.counts["while a checkpoint was written" if saving else "between checkpoints"] += 1
        return True

    def check_checkpoints(self, run: Path) -> None:
        """Load every checkpoint there is: it must be the undisturbed run's."""
        for step, path in list_checkpoints(run / "checkpoints"):
            self.counts["checkpoints loaded"] += 1
            if not equal(content_of(path), self.expected[step]):
                self.counts["checkpoints that loaded wrong"] += 1


# --- damage -------------------------------------------------------------------------------------------------------


def flip(path: Path, chance: random.Random) -> None:
    """Turn one bit round."""
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def truncate(path: Path, chance: random.Random) -> None:
    """Cut off the end."""
    os.truncate(path, chance.randrange(path.stat().st_size))


def corruptions(chaos: Chaos, single: Path) -> Iterator[tuple[str, str, str]]:
    """(what was damaged, how, what came of it: refused, refused without a name, loaded) for each."""
    checkpoints = [path for _, path in list_checkpoints(chaos.folder / "undisturbed" / "checkpoints")]
    checkpoints += [path for _, path in list_checkpoints(single / "checkpoints")] + [chaos.folder / "exported"]
    (corpus,) = (path.parent for path in (chaos.folder / "cache").glob("*/corpus.json"))
    tokenizer = Tokenizer.load(corpus / "tokenizer")
    shards = [corpus / "train-0", corpus / "held-out"]
    for _ in range(chaos.settings.corruptions):
        is_shard = chaos.chance.random() < 0.3
        original = chaos.chance.choice(shards if is_shard else checkpoints)
        copy = chaos.folder / "damaged"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(original, copy)
        victim = chaos.chance.choice([path for path in sorted(copy.iterdir()) if path.stat().st_size])
        how = chaos.chance.choice([flip, truncate])
        how(victim, chaos.chance)

        def load(folder: Path = copy, shard: bool = is_shard) -> object:
            if shard:
                return TokenShards.open(folder, tokenizer=tokenizer)
            return load_checkpoint(folder, with_optimizer=True)

        yield ("shard" if is_shard else "checkpoint"), how.__name__, _outcome(load, victim)


def _outcome(load: Callable[[], object], victim: Path) -> str:
    try:
        load()
    except (ValueError, FileNotFoundError) as error:
        # what a manifest says of a file may be what is damaged: then that file, or the folder, is named
        named = victim.name in str(error) or (victim.name == "manifest.json" and str(victim.parent) in str(error))
        return "refused by name" if named else "refused without its name"
    return "loaded"


def main(settings: Settings) -> None:
    """Kill, damage, show, keep."""
    torch.set_num_threads(1)
    result = describe_run("chaos", torch.device("cpu"), asdict(settings))
    with tempfile.TemporaryDirectory() as folder:
        chaos = Chaos(settings, Path(folder))
        chaos.undisturbed()
        survived = 0
        for number in range(settings.runs):
            survived += chaos.survives(number)
            print(f"{survived} of {number + 1} runs survived, {chaos.counts['kills']} kills", file=sys.stderr)
        single = Path(folder) / "single"
        assert end_of(start_job([*chaos.arguments, "--out", str(single)], Path(folder) / "single.log", size=1)) == [0]
        exported = ["export", str(single), "--out", str(Path(folder) / "exported")]
        assert end_of(start_job(exported, Path(folder) / "export.log", size=1)) == [0]
        damage = Counter(corruptions(chaos, single))
    result["kills"] = {"runs": settings.runs, "survived": survived, **dict(sorted(chaos.counts.items()))}
    result["kills"].setdefault("checkpoints that loaded wrong", 0)
    result["corruptions"] = {
        "total": settings.corruptions,
        "refused_by_name": sum(count for (_, _, came), count in damage.items() if came == "refused by name"),
        "loaded": sum(count for (_, _, came), count in damage.items() if came == "loaded"),
        "by_kind": {" ".join(key): count for key, count in sorted(damage.items())},
    }
    print_card("Runs killed at random, files damaged at random", result_table(result), NOTE)
    publish(result, settings.out)


def result_table(result: dict[str, Any]) -> Table:
    """One line per count."""
    table = Table("what", "how often")
    for part in ("kills", "corruptions"):
        for name, count in result[part].items():
            for line, number in count.items() if isinstance(count, dict) else [(name, count)]:
                table.add_row(line.replace("_", " "), f"{number:,}")
        table.add_section()
    return table


NOTE = "survived: weights, moments, state and metrics are those of the run that nobody disturbed, to the bit"

if __name__ == "__main__":
    main(tyro.cli(Settings))
