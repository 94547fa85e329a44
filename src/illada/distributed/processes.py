"""The processes of a job as torchrun starts them, and the few numbers they exchange on the host.

What goes over this way is small and needs no device: counts, flags, times. A GPU never waits for it.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from illada.model.device import choose_device

T = TypeVar("T")


def speaks_for_all() -> bool:
    """Whether this is the process of its job, if it is part of one, that prints what all have come to."""
    return os.environ.get("RANK", "0") == "0"


_PATIENCE = timedelta(days=2)
"""How long the others wait while one prepares a corpus. A process that dies is noticed at once all the same."""
_SIGNS_OF_A_LOST_PEER = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "Timed out waiting",
    "remote process exited",
)
"""In what gloo and NCCL say."""


class PeerError(ConnectionError):
    """Another process of the job failed; what went wrong stands in its own message."""


class PeerLostError(PeerError):
    """Another process of the job is not there any more."""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """Who this process is among those of its job; by default the only one."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Among the processes of this machine."""
    patient: dist.ProcessGroup | None = None
    """All processes once more, for work that may take hours."""

    @property
    def first(self) -> bool:
        """Whether this is the one that speaks and writes for all."""
        return self.rank == 0

    @property
    def restarted(self) -> bool:
        """Whether torchrun started the job once more after a process of it had died."""
        return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0

    def total(self, *values: float) -> list[float]:
        """Each value summed over all processes; in float64, and the same on every one."""
        if self.size == 1:
            return [float(value) for value in values]
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor)
        summed: list[float] = tensor.tolist()
        return summed

    def anywhere(self, *flags: bool) -> list[bool]:
        """For each flag whether it is set anywhere."""
        return [count > 0 for count in self.total(*map(float, flags))]

    def gather(self, values: Sequence[float]) -> list[list[float]]:
        """[processes][values]: what each process gave."""
        own = torch.tensor(values, dtype=torch.float64)
        if self.size == 1:
            return [own.tolist()]
        rows = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(rows, own)
        return [row.tolist() for row in rows]

    def told_by_first(self, content: Any) -> Any:
        """What the first process gave, as JSON carries it; the others' argument is not read."""
        return self._told_by(0, content)

    def told_by_all(self, content: Any) -> list[Any]:
        """What each process gave, as JSON carries it; one after the other, so for rare occasions."""
        return [self._told_by(rank, content) for rank in range(self.size)]

    def in_turn(self, work: Callable[[], T]) -> T:
        """One process of every machine does `work`; then the others do it, and find what the first left on the disk.

        Raises:
            PeerError: it failed elsewhere.
        """
        if self.local_rank > 0:
            self._meet_patiently(failed=False)
            return work()
        return self._awaited(work)

    def by_first(self, work: Callable[[], Any]) -> Any:
        """The first process does `work`, however long it takes; all get what it gave, as JSON carries it.

        Raises:
            PeerError: it failed there.
        """
        content = None
        if self.first:
            content = self._awaited(work)
        else:
            self._meet_patiently(failed=False)
        return self.told_by_first(content)

    def device(self, name: str) -> torch.device:
        """The device called `name` (see `choose_device`); several processes of a machine have a GPU each.

        Raises:
            ValueError: it is not there, or there are fewer GPUs than processes.
        """
        device = choose_device(name)
        if device.type != "cuda" or self.size == 1:
            return device
        if self.local_rank >= (count := torch.cuda.device_count()):
            raise ValueError(
                f"there are {count} GPUs on this machine, too few for its process number {self.local_rank + 1}: "
                f"start {count} with --nproc-per-node"
            )
        device = torch.device("cuda", self.local_rank)
        torch.cuda.set_device(device)
        return device

    def _told_by(self, rank: int, content: Any) -> Any:
        if self.size == 1:
            return content
        text = json.dumps(content).encode() if self.rank == rank else b""
        length = torch.tensor([len(text)])
        dist.broadcast(length, rank)
        data = torch.tensor(list(text) if self.rank == rank else [0] * int(length), dtype=torch.uint8)
        dist.broadcast(data, rank)
        return json.loads(bytes(data.tolist()))

    def _awaited(self, work: Callable[[], T]) -> T:
        """Do `work`, and then meet those that wait for it; where it fails, they learn of it."""
        try:
            result = work()
        except Exception:
            with contextlib.suppress(PeerError):
                self._meet_patiently(failed=True)
            raise
        self._meet_patiently(failed=False)
        return result

    def _meet_patiently(self, *, failed: bool) -> None:
        """Wait for all, and learn whether one failed."""
        count = torch.tensor([float(failed)])
        if self.size > 1:
            dist.all_reduce(count, group=self.patient)
        if count.item() > 0:
            raise PeerError("another process of the job failed: see its message")


def _meet() -> None:
    # where torchrun keeps its store through a restart, what the dead processes left in it would be taken for an answer
    store, rank, size = next(rendezvous("env://"))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    # the host's numbers go by gloo, the tensors of a GPU by NCCL
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=PrefixStore(f"illada/{attempt}", store), rank=rank, world_size=size)


@contextlib.contextmanager
def joined() -> Iterator[Processes]:
    """Join the job that the environment tells of, as torchrun sets it; alone where it tells of none."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Processes()
        return
    own = not dist.is_initialized()
    if own:
        _meet()
    local_rank = int(os.environ.get("LOCAL_RANK", str(dist.get_rank())))
    patient = dist.new_group(backend="gloo", timeout=_PATIENCE)
    processes = Processes(rank=dist.get_rank(), size=size, local_rank=local_rank, patient=patient)
    processes.anywhere(False)  # a meeting: one that leaves at once would break what the others are still at
    yield processes
    if own:  # after an error the process ends, and with it the job: to wait for the others could take forever
        dist.destroy_process_group()


@contextlib.contextmanager
def peers_in_sight(processes: Processes, *, advice: str) -> Iterator[None]:
    """A process that dies takes the job down: the others say so in one line, with advice how to go on, and leave.

    Of several that are entered one in another, the outermost gives the advice: it knows the command.

    Raises:
        PeerLostError: another process has gone.
    """
    try:
        yield
    except (RuntimeError, PeerLostError) as error:
        signs = processes.size > 1 and any(sign in str(error) for sign in _SIGNS_OF_A_LOST_PEER)
        if not (signs or isinstance(error, PeerLostError)):
            raise
        raise PeerLostError(f"another process of the job has gone: {advice}") from error
