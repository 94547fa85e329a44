"""Checkpoints that transformers writes: its logits, and a diffusion model made of an autoregressive one."""

import json
import os

import pytest
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers

import illada
from illada.checkpoint.source import open_model
from illada.data.corpus import CorpusConfig
from illada.data.packing import PackingConfig
from illada.train.learning_rate import WarmupConstantCosine
from illada.train.loop import LoopConfig
from illada.train.pretrain import HeldOutConfig, PretrainConfig, run

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

SIZES = {
    "vocab_size": 280,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 3e-5,
    "initializer_range": 0.2,
}
CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}
CLOSE = {"atol": 1e-5, "rtol": 0}
BY_LAYOUT = pytest.mark.parametrize("layout", CLASSES)


def write_tokenizer(folder):
    """Bytes and an end of text, as such models have: no [MASK], no BOS."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(models.BPE({character: number for number, character in enumerate(alphabet)}, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>"])
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder, model) by layout, tied or not, in one file or in several."""
    built = {}

    def make(layout, *, tied=False, shard="1GB"):
        if (layout, tied, shard) not in built:
            folder = tmp_path_factory.mktemp("made")
            torch.manual_seed(0)
            config = getattr(transformers, CLASSES[layout].replace("ForCausalLM", "Config"))
            config = config(**SIZES, tie_word_embeddings=tied, rope_theta=700.0, bos_token_id=None, eos_token_id=256)
            model = getattr(transformers, CLASSES[layout])(config).eval()
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.dim() == 1:  # norms and biases that are no identity
                        parameter.add_(0.3 * torch.randn(parameter.shape))
            model.save_pretrained(folder, max_shard_size=shard)
            write_tokenizer(folder)
            built[layout, tied, shard] = folder, model
        return built[layout, tied, shard]

    return make


def logits_of(transformer, ids, **options):
    with torch.inference_mode():
        return transformer.logits(transformer(ids, **options))


def random_ids(rows=3, length=21):
    return torch.randint(0, 257, (rows, length), generator=torch.Generator().manual_seed(1))


@BY_LAYOUT
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shard", ["1GB", "20KB"])
def test_causal_logits_are_those_of_transformers(made, layout, tied, shard):
    folder, theirs = made(layout, tied=tied, shard=shard)
    assert (folder / "model.safetensors").exists() == (shard == "1GB")
    ours = illada.load(folder, device="cpu", attention="causal").transformer
    assert ours.config.rope_theta == 700.0
    ids = random_ids()
    with torch.inference_mode():
        expected = theirs(ids).logits
    found = logits_of(ours, ids)
    assert float(expected.abs().max()) > 1
    torch.testing.assert_close(found, expected, **CLOSE)


@BY_LAYOUT
def test_causal_is_what_such_a_folder_is(made, layout):
    assert illada.load(made(layout)[0], device="cpu").transformer.config.attention == "causal"


@BY_LAYOUT
def test_padded_rows_too(made, layout):
    folder, theirs = made(layout)
    ids, mask = random_ids(), torch.ones(3, 21, dtype=torch.int64)
    mask[0, :4], mask[1, 9:] = 0, 0
    with torch.inference_mode():
        expected = theirs(ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits
    found = logits_of(illada.load(folder, device="cpu").transformer, ids, segments=mask - 1)
    seen = mask.bool()
    torch.testing.assert_close(found[seen], expected[seen], **CLOSE)


@BY_LAYOUT
def test_bidirectional_and_shifted_as_dream_has_it(made, layout):
    """Their model with every position in sight of every other, and its logits moved by one."""
    folder, theirs = made(layout)
    ids = random_ids()
    everything = torch.zeros(3, 1, 21, 21)  # an additive mask that hides nothing
    with torch.inference_mode():
        logits = theirs(ids, attention_mask=everything).logits
    expected = torch.cat((logits[:, :1], logits[:, :-1]), dim=1)
    ours = illada.load(folder, device="cpu", attention="bidirectional").transformer
    assert ours.config.shifted
    torch.testing.assert_close(logits_of(ours, ids), expected, **CLOSE)
    plain = illada.load(folder, device="cpu", attention="bidirectional", shifted=False).transformer
    torch.testing.assert_close(logits_of(plain, ids), logits, **CLOSE)


def test_dreams_own_layout_is_the_same_weights(made, tmp_path):
    folder, _ = made("qwen2")
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    values = json.loads((folder / "config.json").read_text()) | {"model_type": "Dream", "mask_token_id": 256}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="the mask token must differ from BOS, EOS and PAD"):
        illada.load(tmp_path, device="cpu")
    (tmp_path / "config.json").write_text(json.dumps(values | {"mask_token_id": 255}))
    dream = illada.load(tmp_path, device="cpu")
    ids = random_ids()
    ours = illada.load(folder, device="cpu", attention="bidirectional")
    assert torch.equal(logits_of(dream.transformer, ids), logits_of(ours.transformer, ids))
    assert dream.tokenizer.specials.mask == 255


@BY_LAYOUT
def test_the_mask_is_the_first_row_without_a_token(made, layout):
    specials = illada.load(made(layout)[0], device="cpu").tokenizer.specials
    assert (specials.mask, specials.bos, specials.eos, specials.pad) == (257, 256, 256, 256)


def test_where_there_is_no_such_row_it_is_asked_for(made, tmp_path):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**{**SIZES, "vocab_size": 257})
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    with pytest.raises(ValueError, match="does not say which token is mask: name one of its vocabulary with --special"):
        illada.load(tmp_path, device="cpu")
    assert illada.load(tmp_path, device="cpu", special_tokens={"mask": "Q"}).tokenizer.vocab_size == 257


@BY_LAYOUT
def test_as_a_diffusion_model_it_trains(made, layout, tmp_path):
    folder, _ = made(layout)
    (tmp_path / "text.txt").write_text("the fox sat on the log and the dog sat on the mat. " * 400)
    config = PretrainConfig(
        corpus=CorpusConfig(sources=(str(tmp_path / "text.txt"),), workers=1),
        packing=PackingConfig(length=32),
        held_out=HeldOutConfig(rows=8, samples=2),
        learning_rate=WarmupConstantCosine(peak=1e-2, floor=1e-3, warmup_steps=2),
        loop=LoopConfig(steps=20, batch_size=8, precision="fp32", log_every=5, validate_every=20),
        device="cpu",
    )
    start = open_model(folder, illada.Overrides(attention="bidirectional"))
    outcome = run(config, tmp_path / "run", cache=tmp_path / "cache", start=start)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    bounds = [line["held_out/nats_per_token"] for line in lines if "held_out/nats_per_token" in line]
    assert bounds[-1] < bounds[0] - 1
    model = illada.load(outcome.checkpoint, device="cpu")
    assert (model.transformer.config.shifted, model.transformer.config.attention) == (True, "bidirectional")
    assert model.transformer.config.qkv_bias == (layout == "qwen2")
    completion = model.generate("the fox ", length=8, block_length=8)
    assert len(completion.tokens) <= 8
