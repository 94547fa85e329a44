"""What is written can be read by anyone who reads such folders, and whatever goes out comes back as it was."""

import json
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

import illada
from illada.checkpoint.export import ExportConfig, export
from illada.checkpoint.huggingface.layouts import LAYOUTS
from illada.checkpoint.huggingface.reader import open_published
from illada.checkpoint.huggingface.writer import plan_shards
from illada.checkpoint.native import load_checkpoint, save_checkpoint
from illada.data.tokenizer import Tokenizer
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer, initialize

FP32 = ExportConfig(dtype=torch.float32)


def tensors_of(folder):
    return {name: stored.read() for name, stored in open_published(folder).tensors.items()}


@pytest.fixture
def native(tmp_path):
    """A checkpoint of ours, in fp32."""

    def make(**changes):
        tokenizer = Tokenizer.train(["the quick brown fox"], 280)
        config = ModelConfig(
            vocab_size=300, hidden_size=16, layers=3, heads=2, kv_heads=1, ffn_size=24, max_length=64, init_std=0.07
        )
        config = replace(config, **changes)
        model = Transformer(config)
        initialize(model, seed=1)
        save_checkpoint(
            tmp_path / "native", model_config=config, weights=model.state_dict(), tokenizer=tokenizer, state={}
        )
        return tmp_path / "native"

    return make


# --- there and back -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "changes"),
    [
        ("illada", {}),
        ("illada", {"tied_head": False}),
        ("llada", {}),
        ("llada", {"tied_head": False, "qkv_bias": True}),
        ("llama", {"attention": "causal"}),
        ("qwen2", {"attention": "causal", "qkv_bias": True, "tied_head": False}),
        ("dream", {"qkv_bias": True, "shifted": True}),
    ],
)
@pytest.mark.parametrize("shard_bytes", [10**9, 5000])
def test_native_to_published_to_native(native, tmp_path, layout, changes, shard_bytes):
    before = native(**changes)
    export(before, tmp_path / "out", replace(FP32, layout=layout, shard_bytes=shard_bytes))
    assert (tmp_path / "out" / "model.safetensors").exists() == (shard_bytes == 10**9)
    export(tmp_path / "out", tmp_path / "back", FP32)
    one, two = load_checkpoint(before), load_checkpoint(tmp_path / "back")
    assert two.model_config == one.model_config
    assert two.weights.keys() == one.weights.keys()
    assert all(torch.equal(two.weights[name], tensor) for name, tensor in one.weights.items())
    assert (two.tokenizer.fingerprint, two.tokenizer.texts) == (one.tokenizer.fingerprint, one.tokenizer.texts)
    assert two.tokenizer.chat_template == one.tokenizer.chat_template


@pytest.mark.parametrize("name", ["illada", "llada", "llada-gqa"])
def test_a_golden_folder_comes_out_as_it_went_in(published, tmp_path, name):
    """The same tensors, and of its configuration and tokenizer all that a reader of such folders asks for."""
    folder = published(name)
    export(folder.path, tmp_path / "native", FP32)
    export(tmp_path / "native", tmp_path / "out", replace(FP32, layout=name.removesuffix("-gqa")))
    before, after = folder.tensors(), safetensors.torch.load_file(tmp_path / "out" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    unlike = {key: (value, written[key]) for key, value in folder.json().items() if written.get(key, value) != value}
    assert unlike == {}
    one, two = open_published(folder.path), open_published(tmp_path / "out")
    assert two.model_config == one.model_config
    assert (two.tokenizer.specials, two.tokenizer.end_ids) == (one.tokenizer.specials, one.tokenizer.end_ids)
    assert two.tokenizer.chat_template == one.tokenizer.chat_template


def test_the_dtype_is_the_one_asked_for(native, tmp_path):
    before = native()
    export(before, tmp_path / "out", ExportConfig(layout="illada"))
    weights = load_checkpoint(before).weights
    for name, tensor in tensors_of(tmp_path / "out").items():
        assert torch.equal(tensor, weights[name].bfloat16())
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "bfloat16"


# --- files --------------------------------------------------------------------------------------------------------


def test_shards_are_within_their_size_and_in_order(native, tmp_path):
    export(native(), tmp_path / "out", replace(FP32, layout="llada", shard_bytes=6000))
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert [file.name for file in files] == [
        f"model-{n + 1:05}-of-{len(files):05}.safetensors" for n in range(len(files))
    ]
    seen = {}
    for file in files:
        tensors = safetensors.torch.load_file(file)
        size = sum(tensor.numel() * 4 for tensor in tensors.values())
        assert size <= 6000 or len(tensors) == 1
        seen |= dict.fromkeys(tensors, file.name)
        with safe_open(file, "pt") as opened:
            assert opened.metadata() == {"format": "pt"}
    assert seen == index["weight_map"]
    total = sum(stored.bytes for stored in open_published(tmp_path / "out").tensors.values())
    assert index["metadata"] == {"total_size": total}
    assert len(files) > 2


@pytest.mark.parametrize(
    ("sizes", "limit", "parts"),
    [
        ({"a": 3, "b": 3, "c": 3}, 6, [["a", "b"], ["c"]]),
        ({"a": 3, "b": 9, "c": 3, "d": 3}, 6, [["a"], ["b"], ["c", "d"]]),
        ({"a": 9}, 6, [["a"]]),
        ({"a": 1, "b": 1}, 2, [["a", "b"]]),
    ],
)
def test_plans(sizes, limit, parts):
    assert plan_shards(sizes, limit) == parts


def test_all_that_is_published_is_there(native, tmp_path):
    export(native(), tmp_path / "out", replace(FP32, layout="illada"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    specials = Tokenizer.load(tmp_path / "out").specials
    assert config["mask_token_id"] == specials.mask == 3
    assert generation == {"bos_token_id": specials.bos, "eos_token_id": specials.eos, "pad_token_id": specials.pad}
    assert illada.load(tmp_path / "out", device="cpu").generate("the", length=3).prompt_tokens > 1


def test_ends_of_turns_are_among_the_ends(published, tmp_path):
    export(published("llada").path, tmp_path / "out", replace(FP32, layout="llada"))
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == [491, 507]
    export(tmp_path / "out", tmp_path / "native", FP32)
    assert illada.load(tmp_path / "native", device="cpu").tokenizer.end_ids == (491, 507)


# --- refusals: nothing is left behind -----------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["illada", "llada", "llama"])
def test_what_a_layout_cannot_say(native, tmp_path, layout):
    with pytest.raises(ValueError, match=rf"the layout {layout} cannot say .*shifted True: choose another layout"):
        export(native(shifted=True), tmp_path / "out", ExportConfig(layout=layout))
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_there(native, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="out exists already"):
        export(native(), tmp_path / "out", ExportConfig(layout="illada"))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_size_of_nothing(native, tmp_path):
    with pytest.raises(ValueError, match="at least 1 byte, got 0"):
        export(native(), tmp_path / "out", ExportConfig(layout="illada", shard_bytes=0))


def test_a_disk_that_is_full(native, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise safetensors.SafetensorError("No space left on device")

    monkeypatch.setattr("illada.checkpoint.stored.save_file", fail)
    with pytest.raises(OSError, match=r"cannot write model\.safetensors: No space left"):
        export(native(), tmp_path / "out", ExportConfig(layout="illada"))
    assert not (tmp_path / "out").exists()


def test_the_layouts_that_can_be_chosen_are_those_there_are():
    for name in ("native", *LAYOUTS):
        assert ExportConfig(layout=name).layout == name
