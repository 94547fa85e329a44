"""An adapter computes W x + alpha / rank · B (A x), and nothing but its two matrices trains."""

import sys

import pytest
import torch

from illada.model.lora import LINEAR_LAYERS, LoraConfig, adapter_tensors, attach_adapter, initialize_adapter
from illada.model.quantized import quantize

pytest.importorskip("peft", reason="the extra finetune is not installed")

TOKENS = torch.arange(24).reshape(2, 12)
PLAIN = {"peft_type": "LORA", "r": 2, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"]}


def fill(model, seed: int = 3) -> None:
    """Values as training might leave them."""
    for number, tensor in enumerate(adapter_tensors(model).values()):
        noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed + number))
        tensor.data.copy_(0.1 * noise)


def added_by_hand(model, config, *, scale: float) -> dict[str, torch.Tensor]:
    """The weights of the plain model with every update added, in float64."""
    tensors = {name: value.detach().double() for name, value in adapter_tensors(model).items()}
    weights = {name.replace(".base_layer", ""): value.double() for name, value in model.state_dict().items()}
    weights = {name: value for name, value in weights.items() if ".lora_" not in name}
    for name in weights:
        layer = name.removesuffix(".weight")
        if layer.rpartition(".")[2] in config["target_modules"]:
            update = tensors[f"{layer}.lora_B.default.weight"] @ tensors[f"{layer}.lora_A.default.weight"]
            weights[name] = weights[name] + scale * update
    return weights


# --- what it computes ---------------------------------------------------------------------------------------------


def test_at_first_it_changes_nothing(small):
    model = small()
    before = model(TOKENS)
    attach_adapter(model, LoraConfig(rank=4).for_peft(base_model="x"))
    initialize_adapter(model, seed=0)
    assert torch.equal(model(TOKENS), before)
    assert len(adapter_tensors(model)) == 2 * 7 * 2


@pytest.mark.parametrize(
    ("changes", "scale"), [({}, 4.0), ({"use_rslora": True}, 8 / 2**0.5), ({"lora_alpha": 1}, 0.5)]
)
def test_the_update_is_alpha_by_rank_times_b_a(small, transformer_by_hand, changes, scale):
    model, plain = small(), small()
    config = PLAIN | changes
    attach_adapter(model, config)
    fill(model)
    for name, value in added_by_hand(model, config, scale=scale).items():
        plain.get_parameter(name).data.copy_(value)
    by_hand = transformer_by_hand(plain, TOKENS[0])
    torch.testing.assert_close(model(TOKENS)[0].double(), by_hand, rtol=0, atol=5e-5)
    assert not torch.allclose(model(TOKENS), small()(TOKENS), atol=0.1)


def test_it_stays_fp32_beside_weights_in_bf16(small):
    model = small().to(torch.bfloat16)
    attach_adapter(model, PLAIN)
    assert {tensor.dtype for tensor in adapter_tensors(model).values()} == {torch.float32}
    assert model(TOKENS).dtype == torch.bfloat16


# --- what trains --------------------------------------------------------------------------------------------------


def test_only_the_adapter_asks_for_gradients(small):
    model = small()
    attach_adapter(model, PLAIN)
    fill(model)
    model(TOKENS).pow(2).sum().backward()
    own = adapter_tensors(model)
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == own.keys()
    assert all(float(tensor.grad.abs().max()) > 0 for tensor in own.values())
    assert all(parameter.grad is None for name, parameter in model.named_parameters() if name not in own)


@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_gradients_reach_it_through_quantised_weights(small, bits):
    pytest.importorskip("torchao", reason="the extra quant is not installed")
    model, plain = small(hidden_size=64, ffn_size=96), small(hidden_size=64, ffn_size=96)
    quantize(model, bits)
    for name, layer in model.named_modules():
        if hasattr(layer, "unpacked"):
            plain.get_submodule(name).weight.data.copy_(layer.unpacked())
    for each in (model, plain):
        attach_adapter(each, PLAIN)
        fill(each)
        each(TOKENS).pow(2).sum().backward()
    for ours, reference in zip(adapter_tensors(model).values(), adapter_tensors(plain).values(), strict=True):
        torch.testing.assert_close(ours.grad, reference.grad, rtol=1e-3, atol=1e-4 * float(reference.grad.abs().max()))


def test_first_values_depend_on_seed_and_name_alone(small):
    drawn = []
    for seed, targets in ((0, LINEAR_LAYERS), (0, ("up_proj", "q_proj")), (1, LINEAR_LAYERS)):
        model = small()
        attach_adapter(model, LoraConfig(rank=3, targets=targets).for_peft(base_model="x"))
        torch.manual_seed(len(drawn))  # the global state is nobody's
        initialize_adapter(model, seed=seed)
        drawn.append({name: tensor.detach().clone() for name, tensor in adapter_tensors(model).items()})
    assert drawn[1].items() != {}
    assert all(torch.equal(drawn[0][name], tensor) for name, tensor in drawn[1].items())
    name = "blocks.0.attention.q_proj.lora_A.default.weight"
    assert not torch.equal(drawn[0][name], drawn[2][name])
    assert not torch.equal(drawn[0][name], drawn[0][name.replace("blocks.0", "blocks.1")])
    bound = 32**-0.5
    assert 0.8 * bound < float(drawn[0][name].abs().max()) <= bound
    assert float(drawn[0][name].mean().abs()) < 0.3 * bound


# --- asked for wrongly --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 0}, "lora.rank must be at least 1, got 0"),
        ({"alpha": 0.0}, "lora.alpha must be above 0, got 0.0"),
        ({"targets": ("q_proj", "head")}, "lora.targets must be some of q_proj, .*; got q_proj, head"),
        ({"targets": ()}, "lora.targets must be some of"),
    ],
)
def test_what_cannot_be_built_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        LoraConfig(**changes)


def test_without_a_rank_there_is_no_adapter():
    with pytest.raises(ValueError, match="an adapter needs a rank"):
        LoraConfig().for_peft(base_model="x")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "only adapters of peft_type LORA can be used, got 'IA3'"),
        ({"use_dora": True}, "the adapter's use_dora is True, which is not supported"),
        ({"bias": "all"}, "the adapter's bias is 'all', which is not supported"),
        ({"megatron_config": {"a": 1}, "megatron_core": "os"}, "the adapter's megatron_config is .* not supported"),
        ({"modules_to_save": ["head"]}, "the adapter's modules_to_save is .* not supported"),
        ({"target_modules": ["query"]}, "the adapter does not fit the model: Target modules"),
    ],
)
def test_an_adapter_that_does_something_else_is_refused_by_the_name_of_it(small, changes, message):
    with pytest.raises(ValueError, match=message):
        attach_adapter(small(), PLAIN | changes)


def test_what_peft_writes_besides_is_no_obstacle(small):
    from peft import LoraConfig as Theirs

    written = Theirs(r=2, lora_alpha=8, lora_dropout=0.1, target_modules=["q_proj"], task_type="CAUSAL_LM").to_dict()
    model = small()
    attach_adapter(model, written | {"target_modules": ["q_proj"], "peft_type": "LORA"})
    assert len(adapter_tensors(model)) == 4


def test_without_the_library_the_extra_is_named(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'illada\[finetune\]'"):
        attach_adapter(small(), PLAIN)
