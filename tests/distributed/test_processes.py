"""What processes know and tell one another: one alone, and four in a job of their own."""

import json
from pathlib import Path

import pytest
import torch

from illada.distributed.processes import (
    PeerError,
    PeerLostError,
    Processes,
    joined,
    peers_in_sight,
    speaks_for_all,
)

PROGRAM = Path(__file__).parent / "programs" / "exchange.py"
CPU = torch.device("cpu")


# --- alone --------------------------------------------------------------------------------------------------------


def test_alone_everything_is_its_own():
    processes = Processes()
    assert processes.first
    assert processes.total(1.5, 2.0) == [1.5, 2.0]
    assert processes.anywhere(True, False) == [True, False]
    assert processes.gather([3.0, 4.0]) == [[3.0, 4.0]]
    assert processes.told_by_first({"a": 1}) == {"a": 1}
    assert processes.told_by_all("x") == ["x"]
    assert processes.in_turn(lambda: 7) == 7
    assert processes.by_first(lambda: {"a": [1.5]}) == {"a": [1.5]}
    assert processes.device("cpu") == CPU


def test_alone_an_error_of_the_work_is_its_own():
    def fail():
        raise FileNotFoundError("no such corpus")

    for how in (Processes().in_turn, Processes().by_first):
        with pytest.raises(FileNotFoundError, match="no such corpus"):
            how(fail)


def test_an_environment_without_a_job_is_joined_alone(monkeypatch):
    for size in (None, "1"):
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        if size is not None:
            monkeypatch.setenv("WORLD_SIZE", size)
        with joined() as processes:
            assert processes == Processes()
    assert not torch.distributed.is_initialized()


def test_a_restart_is_known_by_its_count(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    assert not Processes().restarted
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert not Processes().restarted
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    assert Processes().restarted


@pytest.mark.parametrize(("rank", "speaks"), [(None, True), ("0", True), ("3", False)])
def test_the_first_speaks_for_all(monkeypatch, rank, speaks):
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert speaks_for_all() is speaks


def test_each_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch):
    chosen = []
    monkeypatch.setattr("illada.distributed.processes.choose_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert Processes(rank=5, size=8, local_rank=1).device("auto") == torch.device("cuda", 1)
    assert chosen == [torch.device("cuda", 1)]
    with pytest.raises(ValueError, match="there are 2 GPUs on this machine, too few for its process number 3"):
        Processes(rank=6, size=8, local_rank=2).device("auto")


def test_a_lost_peer_is_told_with_the_outermost_advice():
    several = Processes(size=2)

    def lose(processes, message):
        with peers_in_sight(processes, advice="outer"), peers_in_sight(processes, advice="inner"):
            raise RuntimeError(message)

    with pytest.raises(PeerLostError, match=r"^another process of the job has gone: outer$"):
        lose(several, "[gloo] Connection closed by peer [127.0.0.1]:80")
    with pytest.raises(RuntimeError, match=r"^shapes$"):
        lose(several, "shapes")
    with pytest.raises(RuntimeError, match=r"^Broken pipe$"):  # alone there is no peer
        lose(Processes(), "Broken pipe")


def test_a_peer_that_failed_is_not_taken_for_a_lost_one():
    with pytest.raises(PeerError, match=r"^see its message$"), peers_in_sight(Processes(size=2), advice="go on"):
        raise PeerError("see its message")


# --- four ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seen(job, finish, tmp_path_factory):
    """What each of four processes saw."""
    out = tmp_path_factory.mktemp("exchange")
    codes = finish(job([out], out / "logs", size=4, program=PROGRAM))
    assert codes == [0] * 4, (out / "logs" / "0").read_text()
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(4)]


def test_all_learn_the_same_sums(seen):
    assert [one["total"] for one in seen] == [[4.0, 6.0]] * 4


def test_a_flag_set_anywhere_is_known_everywhere(seen):
    assert [one["anywhere"] for one in seen] == [[False, True, True]] * 4


def test_all_learn_what_each_gave(seen):
    assert [one["gather"] for one in seen] == [[[float(rank), 0.5] for rank in range(4)]] * 4
    assert [one["all"] for one in seen] == [[[rank] * rank for rank in range(4)]] * 4


def test_the_first_tells_the_others(seen):
    assert [one["first"] for one in seen] == [{"from": 0, "text": "ü" * 300}] * 4


def test_the_others_find_what_the_first_left(seen):
    assert [one["in_turn"] for one in seen] == [["marks"]] * 4


def test_the_first_works_for_all(seen):
    assert [one["by_first"] for one in seen] == [{"by": 0}] * 4


@pytest.mark.parametrize("how", ["in_turn", "by_first"])
def test_where_the_first_fails_the_others_do_not_wait(how, seen):
    assert seen[0]["failed"][how] == "ValueError: the first cannot"
    told = f"{PeerError.__name__}: another process of the job failed: see its message"
    assert [one["failed"][how] for one in seen[1:]] == [told] * 3


def test_savers_that_are_closed_leave_no_connections_open(seen):
    assert max(one["left_open"] for one in seen) < 3  # each has several; some of other groups may come or go


def test_blocks_lie_where_they_are_said_to_and_share_the_numbers(seen):
    # of 60 x 32 + 2 x (4 x 32 x 32 + 3 x 32 x 48 + 2 x 32) + 32 numbers: matrices of blocks in four, the rest in two
    matrices, rest = 2 * (4 * 32 * 32 + 3 * 32 * 48), 60 * 32 + 2 * 2 * 32 + 32
    assert [one["numbers"] for one in seen] == [matrices // 4 + rest // 2] * 4
