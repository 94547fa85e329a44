"""Folders in, folders out: whatever is not as it should be is named, and nothing is made up."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import illada

pytest.importorskip("transformers", reason="the extra transformers is not installed")

from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoTokenizer

IDS = torch.arange(10, 30)[None]


@pytest.fixture
def copied(illada_folder, tmp_path) -> Path:
    folder = tmp_path / "copy"
    shutil.copytree(illada_folder.folder, folder)
    return folder


# --- round trips --------------------------------------------------------------------------------------------------


def test_saved_and_loaded_every_tensor_is_the_same(published, tmp_path):
    model = AutoModelForMaskedLM.from_pretrained(published.folder)
    model.save_pretrained(tmp_path / "saved")
    first, second = (load_file(folder / "model.safetensors") for folder in (published.folder, tmp_path / "saved"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    again = AutoModelForMaskedLM.from_pretrained(tmp_path / "saved")
    assert torch.equal(again(IDS).logits, model(IDS).logits)
    was, now = (json.loads((folder / "config.json").read_text()) for folder in (published.folder, tmp_path / "saved"))
    assert {key: now[key] for key in was if key not in ("torch_dtype", "use_cache")} == {
        key: value for key, value in was.items() if key not in ("torch_dtype", "use_cache")
    }


def test_with_its_tokenizer_a_saved_folder_is_ours_again(published, tmp_path):
    AutoModelForMaskedLM.from_pretrained(published.folder).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(published.folder).save_pretrained(tmp_path)
    model = illada.load(tmp_path)
    assert torch.equal(model.transformer(IDS), published.transformer(IDS))
    assert model.tokenizer.specials == published.tokenizer.specials


def test_shards_take_the_place_of_what_was_there(illada_folder, tmp_path):
    model = AutoModelForMaskedLM.from_pretrained(illada_folder.folder)
    model.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    files = sorted(path.name for path in tmp_path.glob("model*"))
    assert len(files) > 3
    assert "model.safetensors" not in files
    assert torch.equal(AutoModelForMaskedLM.from_pretrained(tmp_path)(IDS).logits, model(IDS).logits)
    model.save_pretrained(tmp_path, max_shard_size=10**9)
    assert [path.name for path in tmp_path.glob("model*")] == ["model.safetensors"]


def test_a_given_state_is_what_is_saved(illada_folder, tmp_path):
    model = AutoModelForMaskedLM.from_pretrained(illada_folder.folder)
    state = {name: value + 1 for name, value in model.state_dict().items()}
    model.save_pretrained(tmp_path, state_dict=state)
    saved = load_file(tmp_path / "model.safetensors")
    assert torch.equal(saved["model.norm.weight"], state["transformer.norm.weight"])
    model.save_pretrained(tmp_path / "not", is_main_process=False)
    assert not (tmp_path / "not").exists()


def test_a_state_may_have_the_names_of_the_files(published):
    config = AutoConfig.from_pretrained(published.folder)
    model = AutoModelForMaskedLM.from_config(config)
    model.load_state_dict(load_file(published.folder / "model.safetensors"))
    assert torch.equal(model(IDS).logits, published.transformer.logits(published.transformer(IDS)))


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({}, torch.float32),
        ({"dtype": "auto"}, torch.float32),
        ({"dtype": torch.bfloat16}, torch.bfloat16),
        ({"torch_dtype": "bfloat16"}, torch.bfloat16),
    ],
)
def test_weights_come_in_the_dtype_that_is_asked_for(illada_folder, options, dtype):
    from illada.transformers.modeling import IlladaModel

    model = IlladaModel.from_pretrained(illada_folder.folder, **options)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert not model.training


@pytest.mark.parametrize("device_map", [None, "cpu", "auto", {"": "cpu"}, torch.device("cpu")])
def test_a_device_map_of_one_device_is_followed(illada_folder, device_map, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = AutoModel.from_pretrained(illada_folder.folder, device_map=device_map)
    assert model.device == torch.device("cpu")
    assert model.hf_device_map == {"": torch.device("cpu")}


def test_what_was_missing_is_told_if_asked(illada_folder):
    model, told = AutoModel.from_pretrained(illada_folder.folder, output_loading_info=True)
    assert model.transformer.config.layers == 2
    assert not any(told.values())


# --- asked for wrongly --------------------------------------------------------------------------------------------


NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(NAME), rf"{NAME} is missing"),
        (lambda tensors: tensors.update(extra=torch.ones(2)), "extra is not part of the model"),
        (lambda tensors: tensors.update({NAME + "s": tensors.pop(NAME)}), f"{NAME} is missing; {NAME}s is not part"),
        (lambda tensors: tensors.update({NAME: tensors[NAME].T.contiguous()}), rf"{NAME} is \[32, 48\] and should be"),
    ],
)
def test_a_tensor_that_is_missing_extra_renamed_or_transposed_is_refused_by_name(copied, change, message):
    tensors = load_file(copied / "model.safetensors")
    change(tensors)
    save_file(tensors, copied / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=message):
        AutoModelForMaskedLM.from_pretrained(copied)


def test_a_value_that_the_folder_does_not_give_can_be_given(copied, illada_folder):
    config = json.loads((copied / "config.json").read_text())
    theta = config.pop("rope_theta")
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="does not give rope_theta"):
        AutoModelForMaskedLM.from_pretrained(copied)
    model = AutoModelForMaskedLM.from_pretrained(copied, rope_theta=theta)
    assert torch.equal(model.transformer(IDS), illada_folder.transformer(IDS))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device_map": "balanced"}, "the model is put on one device: .* got 'balanced'"),
        ({"device_map": {"transformer.blocks.0": "cpu", "transformer.norm": "cpu"}}, "the model is put on one device"),
        ({"device_map": "toaster"}, "device 'toaster' cannot be used"),
        ({"attn_implementation": "eager"}, "attention is computed by torch's own kernels"),
        ({"dtype": "int8"}, "dtype must be one of floating-point numbers"),
        ({"dropout": 0.1}, "from_pretrained does not know dropout"),
        ({"cache_dir": "/somewhere"}, "cache_dir has no effect here: set HF_HOME"),
    ],
)
def test_what_would_be_ignored_is_refused(illada_folder, options, message):
    from illada.transformers.modeling import IlladaModel

    with pytest.raises(ValueError, match=message):
        IlladaModel.from_pretrained(illada_folder.folder, **options)


def test_what_cannot_be_saved_is_refused(illada_folder, tmp_path):
    model = AutoModel.from_pretrained(illada_folder.folder)
    with pytest.raises(ValueError, match="weights are written as safetensors"):
        model.save_pretrained(tmp_path / "not", safe_serialization=False)
    with pytest.raises(ValueError, match="max_shard_size is a number of bytes, or a text such as 5GB; got '5 apples'"):
        model.save_pretrained(tmp_path, max_shard_size="5 apples")
    assert not (tmp_path / "not").exists()


def test_a_folder_without_a_model_is_one_line(tmp_path):
    from illada.transformers.modeling import IlladaModel

    with pytest.raises(FileNotFoundError, match=r"is no published model: it holds no config\.json"):
        IlladaModel.from_pretrained(tmp_path)
