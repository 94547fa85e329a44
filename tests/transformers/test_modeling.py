"""Outputs are those of our own Transformer; a row of a batch gets what it gets alone."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import illada

transformers = pytest.importorskip("transformers", reason="the extra transformers is not installed")

from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM  # noqa: E402

GOLDEN = Path(__file__).parent.parent / "golden" / "data"


def tokens(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(8, 280, (batch, length), generator=torch.Generator().manual_seed(seed))


# --- forward ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_hidden_states_and_logits_are_ours(published):
    ids = tokens(3, 20)
    hidden = published.transformer(ids)
    base = AutoModel.from_pretrained(published.folder)
    head = AutoModelForMaskedLM.from_pretrained(published.folder)
    assert type(base).__module__ == type(head).__module__ == "illada.transformers.modeling"
    torch.testing.assert_close(base(ids).last_hidden_state, hidden, rtol=0, atol=1e-5)
    torch.testing.assert_close(head(ids).logits, published.transformer.logits(hidden), rtol=0, atol=1e-5)
    assert torch.equal(head(ids, return_dict=False)[0], head(ids).logits)


@pytest.mark.parametrize("name", ["illada", "llada", "llada-gqa"])
@torch.no_grad()
def test_golden_folders_give_the_logits_of_the_authors_code(name):
    model = AutoModelForMaskedLM.from_pretrained(GOLDEN / name)
    ours = illada.load(GOLDEN / name, device="cpu").transformer
    data = load_file(GOLDEN / "expected" / f"{name}_logits.safetensors")
    for length in (1, 7, 64):
        ids = data[f"len{length}.input_ids"]
        logits = model(ids).logits
        torch.testing.assert_close(logits, data[f"len{length}.logits"], rtol=0, atol=3e-4)
        torch.testing.assert_close(logits, ours.logits(ours(ids)), rtol=0, atol=1e-5)
    for side in ("left", "right"):
        mask = data[f"padded.{side}.attention_mask"]
        logits = model(data[f"padded.{side}.input_ids"], attention_mask=mask).logits
        for row in range(3):
            alone = data[f"padded.row{row}.logits"]
            torch.testing.assert_close(logits[row][mask[row] == 1], alone, rtol=0, atol=3e-4)


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_a_padded_row_gets_what_it_gets_alone(published, side):
    model = AutoModelForMaskedLM.from_pretrained(published.folder)
    lengths = [5, 12, 9]
    ids, mask = tokens(3, 12), torch.zeros(3, 12, dtype=torch.long)
    for row, length in enumerate(lengths):
        mask[row, slice(0, length) if side == "right" else slice(12 - length, 12)] = 1
    together = model(ids, attention_mask=mask).logits
    for row, length in enumerate(lengths):
        here = mask[row] == 1
        alone = model(ids[row : row + 1, here]).logits[0]
        assert alone.shape[0] == length
        torch.testing.assert_close(together[row, here], alone, rtol=0, atol=1e-5)
    # what stands in the padding makes no difference
    changed = torch.where(mask == 1, ids, 9)
    assert torch.equal(model(changed, attention_mask=mask).logits[mask == 1], together[mask == 1])


@torch.no_grad()
def test_a_mask_of_ones_is_no_mask(illada_folder):
    model = AutoModelForMaskedLM.from_pretrained(illada_folder.folder)
    ids = tokens(2, 7)
    assert torch.equal(model(ids, attention_mask=torch.ones_like(ids)).logits, model(ids).logits)


# --- training -----------------------------------------------------------------------------------------------------


def test_the_loss_is_the_mean_cross_entropy_where_something_is_asked(illada_folder):
    model = AutoModelForMaskedLM.from_pretrained(illada_folder.folder)
    ids, labels = tokens(2, 9), torch.full((2, 9), -100)
    labels[0, 3], labels[1, 8] = 17, 99
    output = model(ids, labels=labels)
    by_hand = -output.logits.double().log_softmax(-1)[[0, 1], [3, 8], [17, 99]]
    assert float(output.loss.detach()) == pytest.approx(float(by_hand.mean().detach()), rel=1e-5)
    half = model(ids, labels=labels, num_items_in_batch=4).loss
    assert float(half.detach()) == pytest.approx(float(by_hand.sum().detach()) / 4, rel=1e-5)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_computes_twice_and_changes_no_gradient(illada_folder, reentrant):
    ids = tokens(2, 10)
    gradients, calls = [], []
    for checkpointed in (False, True):
        model = AutoModelForMaskedLM.from_pretrained(illada_folder.folder).train()
        if checkpointed:
            enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
            enable({"use_reentrant": reentrant})
        counted = [0]
        # before: a recomputation ends as soon as it has all that the backward pass needs
        model.transformer.blocks[0].mlp.register_forward_pre_hook(
            lambda *_, counted=counted: counted.__setitem__(0, counted[0] + 1)
        )
        model(ids, labels=ids).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
        calls.append(counted[0])
        with torch.no_grad():
            model(ids)
        assert counted[0] == calls[-1] + 1
    assert calls == [1, 2]
    assert model.gradient_checkpointing
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain, rtol=0, atol=1e-6)


def test_gradient_checkpointing_can_be_turned_off_again(illada_folder):
    model = AutoModelForMaskedLM.from_pretrained(illada_folder.folder)
    model._set_gradient_checkpointing(True)
    assert all("forward" in vars(block) for block in model.transformer.blocks)
    model._set_gradient_checkpointing(False)
    assert not any("forward" in vars(block) for block in model.transformer.blocks)


def test_a_new_model_follows_the_library_s_seed(illada_folder):
    config = AutoConfig.from_pretrained(illada_folder.folder)
    drawn = []
    for seed in (0, 0, 1):
        transformers.set_seed(seed)
        drawn.append(AutoModelForMaskedLM.from_config(config).transformer.embedding.weight)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert float(drawn[0].detach().std()) == pytest.approx((2 * 32) ** -0.5, rel=0.05)


def test_a_head_of_its_own_stays_so(published):
    config = AutoConfig.from_pretrained(published.folder)
    model = AutoModelForMaskedLM.from_config(config).transformer
    assert (model.head is None) == published.transformer.config.tied_head
    if model.head is not None:
        assert model.head.weight.data_ptr() != model.embedding.weight.data_ptr()


# --- asked for wrongly --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention_mask": torch.ones(2, 1, 5, 5)}, r"attention_mask must be \[batch, length\], got \[2, 1, 5, 5\]"),
        ({"attention_mask": torch.tensor([[1, 0, 1, 1, 1]] * 2)}, "attention_mask has padding amid a text"),
        ({"inputs_embeds": torch.ones(2, 5, 32)}, "the model does not take inputs_embeds"),
        ({"output_attentions": True}, "the model does not take output_attentions"),
        ({"token_type_ids": torch.ones(2, 5)}, "the model does not take token_type_ids"),
    ],
)
def test_what_would_be_ignored_is_refused(illada_folder, options, message):
    model = AutoModel.from_pretrained(illada_folder.folder)
    with pytest.raises(ValueError, match=message):
        model(tokens(2, 5), **options)


def test_what_asks_for_nothing_is_taken(illada_folder):
    model = AutoModel.from_pretrained(illada_folder.folder)
    ids = tokens(2, 5)
    nothing = {"token_type_ids": torch.zeros(2, 5), "use_cache": False, "past_key_values": None}
    assert torch.equal(model(ids, **nothing).last_hidden_state, model(ids).last_hidden_state)


def test_a_vocabulary_is_not_resized(illada_folder):
    model = AutoModelForMaskedLM.from_pretrained(illada_folder.folder)
    assert model.get_input_embeddings() is model.transformer.embedding
    assert model.get_output_embeddings() is None
    with pytest.raises(ValueError, match="a vocabulary of 300 rows cannot be resized"):
        model.resize_token_embeddings(310)


def test_a_configuration_that_lacks_something_is_refused_by_the_key():
    from illada.transformers.configuration import IlladaConfig

    with pytest.raises(ValueError, match="does not give rope_theta"):
        AutoModel.from_config(IlladaConfig(hidden_size=32, num_hidden_layers=1))


def test_the_loss_needs_no_gradient_checkpointing_flag_to_agree_with_torch(illada_folder):
    model = AutoModelForMaskedLM.from_pretrained(illada_folder.folder)
    ids = tokens(1, 6)
    output = model(ids, labels=ids)
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits[0], ids[0]))
