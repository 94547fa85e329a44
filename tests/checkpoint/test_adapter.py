"""What is written is what peft reads, and what peft writes can be used."""

import json
from pathlib import Path

import pytest
import torch

from illada.checkpoint.adapter import AdapterCard, merged, put_adapter, read_adapter, write_adapter
from illada.checkpoint.native import open_checkpoint, save_checkpoint
from illada.checkpoint.saved import build
from illada.data.tokenizer import Tokenizer
from illada.model.config import ModelConfig
from illada.model.lora import LoraConfig, adapter_tensors, attach_adapter
from illada.model.transformer import Transformer, initialize

peft = pytest.importorskip("peft", reason="the extra finetune is not installed")

CONFIG = LoraConfig(rank=3, targets=("q_proj", "down_proj")).for_peft(base_model="base")
TOKENS = torch.arange(20).reshape(2, 10)


def plain() -> Transformer:
    model = Transformer(
        ModelConfig(vocab_size=40, hidden_size=16, layers=2, heads=2, kv_heads=1, ffn_size=24, max_length=32)
    )
    initialize(model, seed=0)
    return model.eval()


def fill(tensors) -> None:
    for number, tensor in enumerate(tensors):
        tensor.data.copy_(0.2 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(number)))


def adapted() -> Transformer:
    model = plain()
    attach_adapter(model, CONFIG)
    fill(adapter_tensors(model).values())
    return model


@pytest.fixture
def written(tmp_path) -> Path:
    write_adapter(tmp_path, AdapterCard(config=CONFIG, base_digest="abc"), adapter_tensors(adapted()))
    return tmp_path


def test_what_is_written_comes_back(written):
    saved = read_adapter(written)
    assert (saved.card.config, saved.card.base_digest, saved.base_model) == (CONFIG, "abc", "base")
    model = plain()
    put_adapter(model, saved)
    assert torch.equal(model(TOKENS), adapted()(TOKENS))


def test_peft_reads_it(written):
    theirs = peft.PeftModel.from_pretrained(plain(), written)
    assert torch.equal(theirs(TOKENS), adapted()(TOKENS))
    config = peft.PeftConfig.from_pretrained(written)
    assert (config.r, config.base_model_name_or_path, set(config.target_modules)) == (
        3,
        "base",
        {"q_proj", "down_proj"},
    )


@pytest.mark.parametrize("changes", [{}, {"use_rslora": True}, {"rank_pattern": {"q_proj": 5}}])
def test_what_peft_writes_is_read(changes, tmp_path):
    config = peft.LoraConfig(r=3, lora_alpha=7, lora_dropout=0.2, target_modules=["q_proj", "up_proj"], **changes)
    theirs = peft.get_peft_model(plain(), config).eval()
    fill(parameter for name, parameter in theirs.named_parameters() if ".lora_" in name)
    theirs.save_pretrained(tmp_path)
    model = plain()
    put_adapter(model, read_adapter(tmp_path))
    assert torch.equal(model(TOKENS), theirs(TOKENS))


@pytest.mark.parametrize("changes", [{}, {"use_rslora": True}, {"rank_pattern": {"q_proj": 5}}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merged_as_it_is_read_it_computes_what_peft_merges(changes, dtype, tmp_path):
    config = peft.LoraConfig(r=3, lora_alpha=7, target_modules=["q_proj", "up_proj"], **changes)
    base = plain().to(dtype)
    saved = saved_model(base, tmp_path / "base")
    theirs = peft.get_peft_model(base.float(), config).eval()
    fill(parameter for name, parameter in theirs.named_parameters() if ".lora_" in name)
    theirs.save_pretrained(tmp_path / "adapter")
    model = build(merged(saved, read_adapter(tmp_path / "adapter")), device=torch.device("cpu"), dtype=torch.float32)
    beside = theirs(TOKENS)
    torch.testing.assert_close(model(TOKENS), beside, rtol=0, atol=1e-5)
    reference = theirs.merge_and_unload().state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, reference[name], rtol=0, atol=1e-6)


def saved_model(model: Transformer, folder: Path):
    tokenizer = Tokenizer.train(["a b c"], 280)
    save_checkpoint(folder, model_config=model.config, weights=model.state_dict(), tokenizer=tokenizer)
    return open_checkpoint(folder)


# --- asked for wrongly --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file_is_named(written, name):
    (written / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"holds no adapter: there is no {name}"):
        read_adapter(written)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_damaged_file_is_one_line(written, name):
    (written / name).write_text("{")
    with pytest.raises(ValueError, match=r"the adapter in .* is damaged: ") as caught:
        read_adapter(written)
    assert "\n" not in str(caught.value)


def rewritten(folder: Path, change) -> Path:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


FIRST = "base_model.model.blocks.0.attention.q_proj.lora_A.weight"
HERE = r"blocks\.0\.attention\.q_proj\.lora_A\.default\.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(FIRST), f"{HERE} is missing"),
        (
            lambda tensors: tensors.update({FIRST.replace("q_", "k_"): tensors[FIRST].clone()}),
            "is not part of the model",
        ),
        (lambda tensors: tensors.update({FIRST: tensors[FIRST].T.contiguous()}), rf"{HERE} is \[16, 3\] and should be"),
    ],
)
def test_a_missing_extra_or_transposed_tensor_is_refused_by_name(written, change, message):
    with pytest.raises(ValueError, match=message):
        put_adapter(plain(), read_adapter(rewritten(written, change)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(FIRST.replace("_A", "_B")), f"{HERE} has no matrix to update"),
        (lambda tensors: tensors.pop(FIRST), r"q_proj\.lora_B\.default\.weight is no part of it"),
        (lambda tensors: tensors.update({FIRST: tensors[FIRST].T.contiguous()}), f"{HERE} has no matrix to update"),
    ],
)
def test_what_cannot_be_merged_is_refused_by_name(written, tmp_path_factory, change, message):
    base = saved_model(plain(), tmp_path_factory.mktemp("base") / "model")
    with pytest.raises(ValueError, match=message):
        merged(base, read_adapter(rewritten(written, change)))


def test_a_tensor_that_peft_would_not_call_so_is_refused_by_name(written):
    folder = rewritten(written, lambda tensors: tensors.update({"blocks.0.lora_A.weight": tensors.pop(FIRST)}))
    with pytest.raises(ValueError, match=r"the adapter's tensor blocks\.0\.lora_A\.weight is not called as peft"):
        read_adapter(folder)


def test_an_adapter_that_does_not_say_what_it_belongs_to(written):
    config = json.loads((written / "adapter_config.json").read_text())
    del config["base_model_name_or_path"]
    (written / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="does not say which model it belongs to"):
        _ = read_adapter(written).base_model
