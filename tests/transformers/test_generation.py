"""`generate` writes what our engine writes, in the library's form."""

import pytest
import torch

from illada.pipeline import LanguageModel

pytest.importorskip("transformers", reason="the extra transformers is not installed")

from transformers import AutoModelForMaskedLM, AutoTokenizer, GenerationConfig, pipeline

PROMPTS = [[1, 40, 41, 42], [1, 50], [1, 60, 61, 62, 63, 64, 65]]


@pytest.fixture
def model(published):
    return AutoModelForMaskedLM.from_pretrained(published.folder)


def batch(side: str) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, PROMPTS))
    ids, mask = torch.zeros(len(PROMPTS), longest, dtype=torch.long), torch.zeros(len(PROMPTS), longest)
    for row, prompt in enumerate(PROMPTS):
        place = slice(0, len(prompt)) if side == "right" else slice(longest - len(prompt), longest)
        ids[row, place], mask[row, place] = torch.tensor(prompt), 1
    return ids, mask


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_gets_what_each_prompt_gets_alone(model, published, side):
    ids, mask = batch(side)
    written = model.generate(ids, attention_mask=mask, max_new_tokens=10, block_length=5)
    ours = LanguageModel(transformer=published.transformer, tokenizer=published.tokenizer)
    assert torch.equal(written[:, : ids.shape[1]], ids)
    for row, prompt in enumerate(PROMPTS):
        [alone] = ours.complete_ids([prompt], length=10, block_length=5)
        completion = written[row, ids.shape[1] :].tolist()
        assert completion[: len(alone.tokens)] == list(alone.tokens)
        assert set(completion[len(alone.tokens) :]) <= {published.tokenizer.specials.pad}
        by_itself = model.generate(torch.tensor([prompt]), max_new_tokens=10, block_length=5)
        assert by_itself[0, len(prompt) :].tolist() == list(alone.tokens)


def test_the_library_s_words_are_understood(illada_folder):
    model = AutoModelForMaskedLM.from_pretrained(illada_folder.folder)
    ids = torch.tensor([PROMPTS[0]])
    cold = model.generate(ids, max_new_tokens=8)
    assert torch.equal(model.generate(input_ids=ids, length=8, temperature=0.0), cold)
    assert torch.equal(model.generate(ids, max_new_tokens=8, do_sample=False, temperature=0.9), cold)
    warm = model.generate(ids, max_new_tokens=8, do_sample=True, seed=3)
    assert torch.equal(model.generate(ids, length=8, temperature=1.0, seed=3), warm)
    config = GenerationConfig(max_new_tokens=8, do_sample=True, temperature=0.7, top_p=0.8)
    told = model.generate(ids, generation_config=config, seed=3)
    assert torch.equal(model.generate(ids, length=8, temperature=0.7, top_p=0.8, seed=3), told)
    assert torch.equal(
        model.generate(ids, generation_config=config, max_new_tokens=4, seed=3, do_sample=False), cold[:, :8]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 4}, "generate has no num_beams here: max_new_tokens, do_sample"),
        ({"generation_config": GenerationConfig(repetition_penalty=1.5)}, "generate has no repetition_penalty here"),
        ({"max_new_tokens": 0}, "length must be at least 1, got 0"),
        ({"token_type_ids": torch.ones(1, 4)}, "token_type_ids must be 0"),
    ],
)
def test_what_would_be_ignored_is_refused(illada_folder, options, message):
    model = AutoModelForMaskedLM.from_pretrained(illada_folder.folder)
    with pytest.raises(ValueError, match=message):
        model.generate(torch.tensor([PROMPTS[0]]), **options)


def test_without_prompts_there_is_nothing_to_write(illada_folder):
    model = AutoModelForMaskedLM.from_pretrained(illada_folder.folder)
    with pytest.raises(ValueError, match="generate needs prompts"):
        model.generate()


def test_a_new_model_needs_a_tokenizer(illada_folder):
    model = AutoModelForMaskedLM.from_config(AutoModelForMaskedLM.from_pretrained(illada_folder.folder).config)
    with pytest.raises(ValueError, match=r"was not loaded from a folder with a tokenizer: set model\.tokenizer"):
        model.generate(torch.tensor([PROMPTS[0]]))
    model.tokenizer = illada_folder.tokenizer
    assert model.generate(torch.tensor([PROMPTS[0]]), max_new_tokens=4).shape[1] <= 8


# --- pipelines ----------------------------------------------------------------------------------------------------


def test_a_pipeline_writes_text(illada_folder):
    model = AutoModelForMaskedLM.from_pretrained(illada_folder.folder)
    tokenizer = AutoTokenizer.from_pretrained(illada_folder.folder)
    write = pipeline("text-generation", model=model, tokenizer=tokenizer)
    [answer] = write("the cat", max_new_tokens=6, do_sample=False, return_full_text=False)
    ids = tokenizer("the cat", return_tensors="pt")["input_ids"]
    written = model.generate(ids, max_new_tokens=6)[0, ids.shape[1] :]
    assert answer["generated_text"] == tokenizer.decode(written, skip_special_tokens=True)


def test_a_pipeline_fills_a_mask(illada_folder):
    model = AutoModelForMaskedLM.from_pretrained(illada_folder.folder)
    tokenizer = AutoTokenizer.from_pretrained(illada_folder.folder)
    best = pipeline("fill-mask", model=model, tokenizer=tokenizer)("the cat [MASK] on", top_k=2)
    ids = tokenizer("the cat [MASK] on", return_tensors="pt")["input_ids"]
    [place] = (ids[0] == illada_folder.tokenizer.specials.mask).nonzero().flatten().tolist()
    likeliest = illada_folder.transformer.logits(illada_folder.transformer(ids))[0, place].topk(2)
    assert [entry["token"] for entry in best] == likeliest.indices.tolist()
