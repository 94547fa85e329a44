"""Published folders are read by path alone, whatever way they are stored; a wrong tensor is refused by its name."""

from pathlib import Path

import pytest
import safetensors.torch
import torch

import illada
from illada.checkpoint.huggingface.reader import is_published, open_published
from illada.checkpoint.saved import build

SHARED = Path(__file__).parents[4] / "shared" / "golden"
KEYS = "model.layers.1.self_attn.k_proj.weight"
DOWN = "model.layers.0.mlp.down_proj.weight"


def logits_of(folder, ids, **options):
    model = illada.load(folder, device="cpu", **options).transformer
    with torch.inference_mode():
        return model.logits(model(ids))


# --- variants of one model ----------------------------------------------------------------------------------------


def as_it_is(folder):
    pass


def with_its_head(folder):
    tensors = folder.tensors()
    folder.write({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()})


def in_shards(folder):
    folder.shard(into=3)


def in_bf16_shards(folder):
    folder.shard(into=2, dtype=torch.bfloat16)  # the golden weights are exact in bf16


@pytest.mark.parametrize("change", [as_it_is, with_its_head, in_shards, in_bf16_shards])
def test_variants_are_one_model(published, expected_logits, change):
    folder = published()
    before = folder.tensors()
    change(folder)
    ids, logits = expected_logits("illada")
    torch.testing.assert_close(logits_of(folder.path, ids), logits, atol=3e-4, rtol=0)
    model = build(open_published(folder.path), device=torch.device("cpu"), dtype=torch.float32)
    assert torch.equal(model.embedding.weight, before["model.embed_tokens.weight"])
    assert torch.equal(model.blocks[1].attention.k_proj.weight, before[KEYS])


@pytest.mark.skipif(not SHARED.is_dir(), reason="the whole golden set is not beside the repository")
@pytest.mark.parametrize("name", ["illada", "illada-with-head", "illada-sharded", "llada", "llada-gqa"])
def test_every_folder_of_the_golden_set(name):
    model = illada.load(SHARED / name, device="cpu")
    expected = safetensors.torch.load_file(
        SHARED / "expected" / f"{name.replace('-with-head', '').replace('-sharded', '')}_logits.safetensors"
    )
    same = safetensors.torch.load_file(SHARED / "illada" / "model.safetensors")
    with torch.inference_mode():
        for length in (1, 7, 64):
            logits = model.transformer.logits(model.transformer(expected[f"len{length}.input_ids"]))
            torch.testing.assert_close(logits, expected[f"len{length}.logits"], atol=3e-4, rtol=0)
    if name.startswith("illada"):
        assert torch.equal(model.transformer.embedding.weight, same["model.embed_tokens.weight"])


def test_a_head_that_is_another_dtype_is_still_the_same(published):
    folder = published()
    tensors = folder.tensors()
    folder.write({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].bfloat16()})
    open_published(folder.path)


def test_rates_of_angles_that_old_files_hold(published):
    folder = published()
    rates = 10_000.0 ** -(torch.arange(0, 8, 2) / 8)
    folder.write({**folder.tensors(), "model.layers.0.self_attn.rotary_emb.inv_freq": rates.half()})
    assert "rotary" not in "".join(open_published(folder.path).tensors)
    with pytest.raises(ValueError, match=r"rotary_emb\.inv_freq does not follow from rope_theta 500\.0"):
        open_published(folder.path, illada.Overrides(rope_theta=500.0))


# --- tensors that do not belong -----------------------------------------------------------------------------------


def renamed(tensors):
    tensors["model.layers.1.self_attn.key.weight"] = tensors.pop(KEYS)


def missing(tensors):
    del tensors[DOWN]


def extra(tensors):
    tensors["model.layers.2.self_attn.q_norm.weight"] = torch.ones(8)


def transposed(tensors):
    tensors[DOWN] = tensors[DOWN].T.contiguous()


def other_head(tensors):
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] * 1.01


def smaller_head(tensors):
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"][:-1].clone()


def no_layer(tensors):
    for name in [name for name in tensors if "layers.1." in name]:
        del tensors[name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed, rf"{KEYS} is missing; model\.layers\.1\.self_attn\.key\.weight is not part of the model$"),
        (missing, rf"does not fit its configuration: {DOWN} is missing$"),
        (extra, r"model\.layers\.2\.self_attn\.q_norm\.weight is not part of the model$"),
        (transposed, rf"{DOWN} is \[176, 64\] and should be \[64, 176\]$"),
        (other_head, r"tie_word_embeddings, but lm_head\.weight differs from model\.embed_tokens\.weight$"),
        (smaller_head, r"tie_word_embeddings, but lm_head\.weight differs from model\.embed_tokens\.weight$"),
        (no_layer, r"model\.layers\.1\.\S+ is missing; .* \(and 6 more\)$"),
    ],
)
@pytest.mark.parametrize("shards", [1, 2])
def test_a_wrong_tensor_is_refused_by_name(published, change, message, shards):
    folder = published()
    tensors = folder.tensors()
    change(tensors)
    folder.write(tensors)
    if shards > 1:
        folder.shard(into=shards)
    with pytest.raises(ValueError, match=message):
        illada.load(folder.path, device="cpu")


def test_an_untied_model_needs_its_head(published):
    folder = published("llada")
    tensors = folder.tensors()
    del tensors["model.transformer.ff_out.weight"]
    folder.write(tensors)
    with pytest.raises(ValueError, match=r"model\.transformer\.ff_out\.weight is missing$"):
        illada.load(folder.path, device="cpu")


# --- what folders do not say --------------------------------------------------------------------------------------


def test_what_is_given_takes_the_place_of_what_is_missing(published, expected_logits):
    folder = published()
    folder.without("rope_theta", "rms_norm_eps")
    with pytest.raises(ValueError, match=r"does not give rope_theta.*--rope-theta"):
        illada.load(folder.path, device="cpu")
    with pytest.raises(ValueError, match=r"does not give rms_norm_eps.*--norm-eps"):
        illada.load(folder.path, device="cpu", rope_theta=10_000.0)
    ids, logits = expected_logits("illada")
    found = logits_of(folder.path, ids, rope_theta=10_000.0, norm_eps=1e-6)
    torch.testing.assert_close(found, logits, atol=3e-4, rtol=0)
    wrong = logits_of(folder.path, ids, rope_theta=11_000.0, norm_eps=1e-6)
    assert float((wrong - logits).abs().max()) > 0.01


def test_code_in_a_folder_is_not_run(published, tmp_path):
    folder = published()
    for name in ("modeling_illada.py", "configuration_illada.py"):
        (folder.path / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit")
    illada.load(folder.path, device="cpu")
    assert not (tmp_path / "ran").exists()


def test_an_option_that_there_is_not(published):
    with pytest.raises(
        ValueError, match="there is no option theta; there are: rope_theta, norm_eps, attention, shifted"
    ):
        illada.load(published().path, theta=3.0)


def test_which_folders_are_published_ones(published, tmp_path):
    folder = published()
    assert is_published(folder.path)
    folder.without("model_type")
    assert not is_published(folder.path)  # a run of ours has a config.json as well
    assert not is_published(tmp_path)
