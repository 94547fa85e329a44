"""The jobs for clusters call the program as it is: recipe, flags, and a mesh that fits their processes."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from illada.cli.flags import parse
from illada.cli.pretrain import Arguments
from illada.recipes.pretraining import PRETRAINING

ROOT = Path(__file__).parents[2]
SLURM = ROOT / "examples" / "slurm" / "illada_8b.sbatch"
KUBERNETES = ROOT / "examples" / "kubernetes" / "illada_8b.yaml"


def slurm_words():
    text = SLURM.read_text().replace("\\\n", " ").replace('"$SLURM_NNODES"', "8")
    (line,) = [line for line in text.splitlines() if line.startswith("srun torchrun")]
    return shlex.split(re.sub(r"\$\w+", "x", line).rstrip("& "))[1:]


def kubernetes_words():
    block = KUBERNETES.read_text().partition("command:\n")[2].partition("          ports:")[0]
    return [line.strip().removeprefix("- ") for line in block.splitlines()]


@pytest.mark.parametrize(("words", "processes"), [(slurm_words(), 64), (kubernetes_words(), 16)])
def test_the_command_of_a_job_is_one_of_the_program(words, processes):
    at = words.index("illada")
    assert words[0] == "torchrun"
    command, recipe, *flags = words[at + 1 :]
    assert command == "pretrain"
    chosen = parse(Arguments, flags, command="pretrain", default=Arguments(config=PRETRAINING[recipe]()))
    assert chosen.resume, "a job that is started again goes on"
    sizes = chosen.config.mesh.sizes(processes)
    assert chosen.config.loop.batch_size % (sizes["shard"] * sizes["replicate"]) == 0


@pytest.mark.parametrize(("words", "processes"), [(slurm_words(), 64), (kubernetes_words(), 16)])
def test_torchrun_knows_its_flags_and_starts_so_many(words, processes):
    flags = [word for word in words[1 : words.index("illada")] if word.startswith("--")]
    from torch.distributed.run import get_args_parser

    known = {option for action in get_args_parser()._actions for option in action.option_strings}
    assert {flag.partition("=")[0] for flag in flags} <= known
    joined = " ".join(words).replace("=", " ")
    count = {name: int(re.search(rf"--{name} (\d+)", joined)[1]) for name in ("nnodes", "nproc-per-node")}
    assert count["nnodes"] * count["nproc-per-node"] == processes


def test_the_nodes_of_the_mesh_are_those_that_are_asked_for():
    text = SLURM.read_text()
    assert re.search(r"#SBATCH --nodes=(\d+)", text)[1] == "8"
    assert re.search(r"#SBATCH --gpus-per-node=(\d+)", text)[1] == "8"
    assert '--mesh.replicate "$SLURM_NNODES"' in text


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_the_script_is_well_formed():
    assert subprocess.run(["bash", "-n", str(SLURM)], check=False).returncode == 0
