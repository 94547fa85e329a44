"""What people mean by a model is found: runs, checkpoints, the package's own, published folders."""

import shutil
from pathlib import Path

import pytest

from illada.assets import embedded_model
from illada.checkpoint.huggingface.configuration import Overrides
from illada.checkpoint.native import checkpoint_path, find_checkpoint
from illada.checkpoint.source import find_model, model_digest, open_adapter, open_model

GOLDEN = Path(__file__).parents[1] / "golden" / "data"


@pytest.fixture
def run(tmp_path):
    for step in (1, 2):
        shutil.copytree(embedded_model("tiny"), checkpoint_path(tmp_path / "run" / "checkpoints", step))
    (tmp_path / "run" / "config.json").write_text('{"seed": 0}')
    return tmp_path / "run"


def test_a_run_is_its_newest_checkpoint(run):
    newest = checkpoint_path(run / "checkpoints", 2)
    assert find_model(run) == find_model(newest) == find_model(str(run)) == newest
    assert open_model(run).folder == newest


def test_the_package_has_its_own():
    assert find_model("tiny") == find_checkpoint(Path("tiny"))


@pytest.mark.parametrize("name", ["illada", "llada"])
def test_a_published_folder_is_itself(name):
    assert find_model(GOLDEN / name) == GOLDEN / name
    assert open_model(GOLDEN / name).model_config.tied_head == (name == "illada")


def test_nothing_of_the_kind(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist: give a run folder or a checkpoint folder or 'tiny'"):
        find_model(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        find_model(tmp_path)


def test_a_checkpoint_of_ours_leaves_nothing_to_assume():
    with pytest.raises(ValueError, match=r"says itself what rope_theta, attention is"):
        open_model("tiny", Overrides(rope_theta=3.0, attention="causal"))


def test_what_is_saved_of_ours_is_checked(run):
    weights = checkpoint_path(run / "checkpoints", 2) / "model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ValueError, match=r"model\.safetensors was altered"):
        open_model(run)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer_config.json"])
def test_a_digest_knows_every_file(tmp_path, file):
    folder = tmp_path / "model"
    shutil.copytree(GOLDEN / "illada", folder)
    before = model_digest(folder)
    (folder / "README.md").write_text("words")
    assert model_digest(folder) == before
    (folder / file).write_bytes((folder / file).read_bytes() + b" ")
    assert model_digest(folder) != before


def test_the_digest_of_ours_is_that_of_the_manifest(run):
    first, second = (checkpoint_path(run / "checkpoints", step) for step in (1, 2))
    assert model_digest(first) == model_digest(second)
    (second / "manifest.json").write_text("{}")
    assert model_digest(first) != model_digest(second)


def test_an_adapter_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no adapter in .*nowhere: give a run or checkpoint with one"):
        open_adapter(tmp_path / "nowhere")
