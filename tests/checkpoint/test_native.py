import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from illada.checkpoint.native import (
    FORMAT,
    checkpoint_path,
    find_checkpoint,
    list_checkpoints,
    load_checkpoint,
    load_weights,
    retain,
    save_checkpoint,
    verify_checkpoint,
)
from illada.data.tokenizer import Tokenizer
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer, initialize

TOKENIZER = Tokenizer.train(["a text to learn merges from, a text"] * 3, 265)
CONFIG = ModelConfig(vocab_size=265, hidden_size=32, layers=2, heads=4, kv_heads=2, ffn_size=40, tied_head=False)
STATE = {"step": 7, "loader": {"example": 56, "taken": [30, 26]}, "loss": 5.4321e-7, "best": None, "name": "ü"}
FILES = [
    "model.json",
    "model.safetensors",
    "optimizer.safetensors",
    "state.json",
    "tokenizer.json",
    "tokenizer_config.json",
]


def model_of(seed: int) -> Transformer:
    model = Transformer(CONFIG)
    initialize(model, seed=seed)
    return model


def optimizer_of(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    moments = torch.randn(5, 4, generator=generator)
    return {"w/exp_avg": moments, "w/exp_avg_sq": moments.square().T, "w/step": torch.tensor(7.0)}


def save(root: Path, step: int, **options: object) -> Path:
    folder = checkpoint_path(root, step)
    everything = {"optimizer": optimizer_of(step), "state": STATE | {"step": step}} | options
    save_checkpoint(folder, model_config=CONFIG, weights=model_of(step).state_dict(), tokenizer=TOKENIZER, **everything)
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    return save(tmp_path, 7)


# --- there and back -----------------------------------------------------------------------------------------------


def assert_equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    for name in one:
        assert one[name].dtype == two[name].dtype
        assert torch.equal(one[name], two[name])


def test_everything_comes_back(folder):
    loaded = load_checkpoint(folder, with_optimizer=True)
    assert loaded.model_config == CONFIG
    assert_equal(loaded.weights, dict(model_of(7).state_dict()))
    assert_equal(loaded.optimizer, optimizer_of(7))
    assert loaded.state == STATE
    text = "a text, [MASK] and ünicode"
    assert loaded.tokenizer.encode(text) == TOKENIZER.encode(text)
    assert loaded.tokenizer.specials == TOKENIZER.specials


def test_the_folder_holds_what_its_documentation_says(folder):
    assert folder.name == "step_00000007"
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, "manifest.json"])
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["format"] == FORMAT == 1
    assert sorted(manifest["files"]) == FILES
    assert all(entry["bytes"] == (folder / name).stat().st_size for name, entry in manifest["files"].items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int64])
def test_types_and_views_survive(tmp_path, dtype):
    weights = {"a": torch.arange(12).view(3, 4).to(dtype), "b": torch.arange(12).view(3, 4).to(dtype).T}
    save_checkpoint(tmp_path / "c", model_config=CONFIG, weights=weights, tokenizer=TOKENIZER)
    assert_equal(load_checkpoint(tmp_path / "c").weights, weights)


def test_the_optimizer_is_read_only_on_demand(folder):
    assert load_checkpoint(folder).optimizer == {}


def test_an_export_without_training_state_loads(tmp_path):
    exported = save(tmp_path, 1, optimizer=None, state=None)
    loaded = load_checkpoint(exported, with_optimizer=True)
    assert (loaded.optimizer, loaded.state) == ({}, {})
    assert not (exported / "optimizer.safetensors").exists()


def test_the_same_content_makes_the_same_bytes(tmp_path):
    one, two = save(tmp_path / "one", 3), save(tmp_path / "two", 3)
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes()


def test_a_step_is_saved_once(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(FileExistsError, match="step_00000007 exists already"):
        save(folder.parent, 7, state={"step": 99})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


# --- damage -------------------------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("damage", "word"), [(truncate, "altered"), (flip, "altered"), (lengthen, "altered"), (Path.unlink, "missing")]
)
def test_a_damaged_file_is_refused_by_name(folder, name, damage, word):
    verify_checkpoint(folder)
    damage(folder / name)
    with pytest.raises(ValueError, match=f"step_00000007 is damaged: {name} .*{word}; use an earlier checkpoint"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "7",
        "{}",
        '{"format": 1}',
        '{"format": 1, "files": 3}',
        '{"format": 1, "files": ["a"]}',
        '{"format": 1, "files": {"model.json": 3}}',
        '{"format": 1, "files": {"model.json": {"bytes": 3}}}',
        "\udcff",
    ],
)
def test_a_damaged_manifest_is_refused(folder, text):
    (folder / "manifest.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=r"manifest\.json is damaged; use an earlier checkpoint"):
        load_checkpoint(folder)


def test_any_flipped_bit_of_the_manifest_is_refused(folder):
    path = folder / "manifest.json"
    content = path.read_bytes()
    for place in range(0, len(content), 5):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 7]) + content[place + 1 :])
        with pytest.raises(ValueError, match=r"manifest\.json is damaged|format \d+; this version"):
            verify_checkpoint(folder)


def rewrite_manifest(folder: Path, **changes: object) -> None:
    """As the first version wrote it: without a sum of its own."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    del content["sha256"]
    path.write_text(json.dumps(content | changes, indent=2) + "\n")


def test_a_manifest_of_the_first_version_is_read(folder):
    rewrite_manifest(folder)
    assert load_checkpoint(folder).state == STATE


def test_a_checkpoint_of_another_format_is_refused_with_both_numbers(folder):
    rewrite_manifest(folder, format=3)
    with pytest.raises(ValueError, match="has checkpoint format 3; this version of illada reads formats 1 and 2"):
        load_checkpoint(folder)


def test_a_folder_without_a_manifest_is_no_checkpoint(tmp_path, folder):
    (folder / "manifest.json").unlink()
    for path in (folder, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match=f"{path.name} is no checkpoint: it holds no manifest"):
            load_checkpoint(path)


# --- into a model -------------------------------------------------------------------------------------------------


def test_weights_go_into_a_model(folder):
    model = model_of(1)
    load_weights(model, load_checkpoint(folder).weights, source="x")
    assert_equal(dict(model.state_dict()), dict(model_of(7).state_dict()))


def changed(weights: dict[str, torch.Tensor], change: str) -> dict[str, torch.Tensor]:
    weights = dict(weights)
    if change == "missing":
        del weights["norm.weight"]
    elif change == "extra":
        weights["blocks.2.mlp.up_proj.weight"] = torch.ones(1)
    elif change == "misshapen":
        weights["embedding.weight"] = torch.ones(3, 32)
    return weights


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", r"norm\.weight is missing"),
        ("extra", r"blocks\.2\.mlp\.up_proj\.weight is not part of the model"),
        ("misshapen", r"embedding\.weight is \[3, 32\] and should be \[265, 32\]"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name_and_change_nothing(change, message):
    model = model_of(1)
    with pytest.raises(ValueError, match=f"^the file does not fit the model: {message}$"):
        load_weights(model, changed(model_of(7).state_dict(), change), source="the file")
    assert_equal(dict(model.state_dict()), dict(model_of(1).state_dict()))


def test_many_wrong_tensors_are_counted():
    with pytest.raises(ValueError, match=r"x does not fit.*embedding\.weight is missing.*\(and \d+ more\)$") as caught:
        load_weights(model_of(1), {}, source="x")
    assert f"(and {len(model_of(1).state_dict()) - 3} more)" in str(caught.value)


# --- many checkpoints ---------------------------------------------------------------------------------------------


def fill(root: Path, steps: list[int]) -> Path:
    """Folders that count as checkpoints, in the order given."""
    for step in steps:
        folder = checkpoint_path(root, step)
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
    return root


def steps_of(root: Path) -> list[int]:
    return [step for step, _ in list_checkpoints(root)]


def test_checkpoints_are_listed_by_step_and_not_by_name(tmp_path):
    fill(tmp_path, [300, 5, 100_000_000, 20])
    assert steps_of(tmp_path) == [5, 20, 300, 100_000_000]
    assert list_checkpoints(tmp_path)[0][1] == tmp_path / "step_00000005"


def test_what_is_no_complete_checkpoint_is_not_listed(tmp_path):
    fill(tmp_path, [5])
    for name in ("step_00000006", ".step_00000007.partial-1", "step_8", "step_00000009x", "best"):
        (tmp_path / name).mkdir()
        if name != "step_00000006":  # this one has no manifest, the others no fitting name
            (tmp_path / name / "manifest.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("x")
    assert steps_of(tmp_path) == [5]
    assert list_checkpoints(tmp_path / "nowhere") == []


@pytest.mark.parametrize("under", ["checkpoints", ""])
def test_the_newest_checkpoint_of_a_run_is_found(tmp_path, under):
    fill(tmp_path / under, [10, 9, 30, 20])
    assert find_checkpoint(tmp_path) == tmp_path / under / "step_00000030"
    assert find_checkpoint(tmp_path / under) == tmp_path / under / "step_00000030"
    assert find_checkpoint(tmp_path / under / "step_00000010") == tmp_path / under / "step_00000010"


def test_where_there_is_no_checkpoint_none_is_found(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no checkpoint: give a run folder or a checkpoint folder"):
        find_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere does not exist: give a run folder"):
        find_checkpoint(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("last", "every", "kept"),
    [
        (1, None, [70]),
        (2, None, [60, 70]),
        (99, None, [10, 20, 30, 40, 50, 60, 70]),
        (1, 20, [20, 40, 60, 70]),
        (2, 30, [30, 60, 70]),
        (3, 1000, [50, 60, 70]),
    ],
)
def test_the_newest_and_every_so_many_are_kept(tmp_path, last, every, kept):
    fill(tmp_path, [10, 20, 30, 40, 50, 60, 70])
    (tmp_path / "notes.txt").write_text("mine")
    retain(tmp_path, last=last, every=every)
    assert steps_of(tmp_path) == kept
    # nothing of the others is left, and what is no checkpoint stays
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "notes.txt",
        *(checkpoint_path(tmp_path, step).name for step in kept),
    ]


def test_a_deletion_that_is_cut_short_leaves_no_checkpoint(tmp_path, monkeypatch):
    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    fill(tmp_path, [10, 20])
    monkeypatch.setattr("shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        retain(tmp_path, last=1)
    assert steps_of(tmp_path) == [20]


# --- a full disk --------------------------------------------------------------------------------------------------

FULL = """
import resource, signal, sys
from pathlib import Path
import torch
from illada.checkpoint.native import checkpoint_path, load_checkpoint, save_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
root = Path(sys.argv[1])
earlier = load_checkpoint(checkpoint_path(root, 7), with_optimizer=True)
large, small = {"x": torch.ones(200_000)}, {"x": torch.ones(2)}
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for largest in ("weights", "optimizer", "state"):
    try:
        save_checkpoint(
            checkpoint_path(root, 8),
            model_config=earlier.model_config,
            weights=large if largest == "weights" else small,
            tokenizer=earlier.tokenizer,
            optimizer=large if largest == "optimizer" else small,
            state={"x": "x" * 200_000 if largest == "state" else "x"},
        )
    except OSError as error:
        print(largest, type(error).__name__, error)
"""


def test_a_full_disk_leaves_the_earlier_checkpoint_and_no_other(folder):
    """A limit on the size of a file stands in for the full disk."""
    done = subprocess.run([sys.executable, "-c", FULL, str(folder.parent)], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [[name, "OSError"] for name in ("weights", "optimizer", "state")]
    assert all("File too large" in line for line in lines), done.stdout
    assert "cannot write model.safetensors" in lines[0]
    assert "cannot write optimizer.safetensors" in lines[1]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert_equal(load_checkpoint(folder, with_optimizer=True).optimizer, optimizer_of(7))
