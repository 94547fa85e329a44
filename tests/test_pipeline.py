"""Text in, text out: the language model as its users meet it."""

from dataclasses import asdict, replace

import pytest
import torch

import illada
from illada.checkpoint.native import checkpoint_path, save_checkpoint
from illada.data.tokenizer import Tokenizer
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer
from illada.pipeline import LanguageModel, load
from illada.sample.canvas import Canvas
from illada.sample.request import Completion, SamplingParams
from illada.sample.sampler import fill

CONTEXT = 64
TEXT = "the cat sat on the mat and the dog sat on the log, while a man in a hat had a chat with the cat. " * 3
SPECIAL_TEXTS = ("[MASK]", "[BOS]", "[EOS]", "[PAD]")
PROMPTS = [TEXT[start : start + 3 + 2 * (start % 9)] for start in range(20)]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([TEXT], 280)


def new_transformer(tokenizer, *, seed=13, tied=True):
    """Random weights large enough that positions disagree."""
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        layers=1,
        heads=2,
        kv_heads=1,
        ffn_size=24,
        max_length=CONTEXT,
        tied_head=tied,
    )
    model = Transformer(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                spread = 0.8 if "q_proj" in name or "k_proj" in name else 0.45
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return model


@pytest.fixture(scope="module")
def language_model(tokenizer):
    # in float64 a batch and a single row agree to the last bit of the fp32 logits: no near-tie can fall either way
    return LanguageModel(transformer=new_transformer(tokenizer).double(), tokenizer=tokenizer)


def fond_of(tokenizer, token, weight):
    """A model that gives one token a logit in proportion to `weight` at every position, whatever the text."""
    transformer = new_transformer(tokenizer, tied=False)
    with torch.no_grad():
        # coordinate 0 of the residual stream is positive everywhere
        transformer.embedding.weight[:, 0] = 2.0
        transformer.blocks[0].attention.o_proj.weight[0] = 0.0
        transformer.blocks[0].mlp.down_proj.weight[0] = 0.0
        transformer.head.weight[:, 0] = 0.0
        transformer.head.weight[token] = 0.0
        transformer.head.weight[token, 0] = weight
    return LanguageModel(transformer=transformer, tokenizer=tokenizer)


def untimed(completion):
    """Everything but the wall time."""
    return replace(completion, seconds=0.0)


def rows_seen(call, **options):
    """The rows of the first step of a call, and its result."""
    seen = []
    result = call(on_step=lambda number, tokens, revealed: seen.append(tokens.tolist()), **options)
    return seen[0], result


# generate


def test_a_prompt_gives_a_completion_and_a_list_a_list(language_model):
    one = language_model.generate("the cat", length=6)
    assert isinstance(one, Completion)
    several = language_model.generate(["the cat", "the dog"], length=6)
    assert isinstance(several, list)
    assert untimed(several[0]) == untimed(one)
    assert language_model.generate([], length=6) == []


def test_a_completion_says_what_it_is_and_what_it_cost(language_model, tokenizer):
    completion = language_model.generate("the cat", length=7, steps=4, suppress=(tokenizer.specials.eos,))
    assert completion.prompt_tokens == 1 + len(tokenizer.encode("the cat"))
    assert completion.forwards == 4
    assert completion.finish_reason == "length"
    assert len(completion.tokens) == len(completion.revealed_at) == 7
    assert sorted(completion.revealed_at) == [1, 1, 2, 2, 3, 3, 4]
    assert completion.text == tokenizer.decode(completion.tokens)
    assert completion.seconds > 0


def test_unequal_prompts_in_one_call_equal_each_alone_in_their_order(language_model):
    assert len({len(prompt) for prompt in PROMPTS}) > 5
    params = SamplingParams(length=6, block_length=4)
    together = language_model.generate(PROMPTS, params)
    alone = [language_model.generate(prompt, params) for prompt in PROMPTS]
    assert [untimed(completion) for completion in together] == [untimed(completion) for completion in alone]
    assert len({completion.tokens for completion in together}) > 5


def test_noise_is_the_prompts_own_beyond_one_batch(language_model):
    params = SamplingParams(length=5, temperature=1.0, unmasking="random")
    seeds = [100 + number // 2 for number in range(20)]
    together = language_model.generate(PROMPTS, params, seeds=seeds)
    for prompt, seed, completion in zip(PROMPTS, seeds, together, strict=True):
        assert untimed(completion) == untimed(language_model.generate(prompt, params, seed=seed))


def test_a_view_of_the_steps_has_all_prompts_in_their_order(language_model):
    seen = []
    completions = language_model.generate(
        PROMPTS, length=3, on_step=lambda number, tokens, revealed: seen.append((tokens.tolist(), revealed.tolist()))
    )
    assert len(seen) == max(completion.forwards for completion in completions)
    for row, completion in enumerate(completions):
        written = [tokens[row][completion.prompt_tokens :] for tokens, _ in seen]
        assert written[-1][: len(completion.tokens)] == list(completion.tokens)
        assert sum(any(revealed[row]) for _, revealed in seen) == completion.forwards


def test_the_model_sees_bos_then_the_prompt_then_the_canvas(language_model, tokenizer):
    [row], completion = rows_seen(lambda **options: language_model.generate("a man", **options), length=4, steps=1)
    specials = tokenizer.specials
    ids = tokenizer.encode("a man")
    assert row[: 1 + len(ids)] == [specials.bos, *ids]
    assert len(row) == completion.prompt_tokens + 4


def test_a_stop_string_may_be_what_a_special_token_looks_like(tokenizer):
    """As `<|eot_id|>` for LLaDA: no decoded text shows it, but the text ends there."""
    user = tokenizer.special_texts["[USER]"]
    model = fond_of(tokenizer, user, 50.0)
    options = {"length": 6, "block_length": 2}
    assert model.generate("the cat", **options).finish_reason == "length"
    stopped = model.generate("the cat", stop=("zzz", "[USER]"), **options)
    assert (stopped.finish_reason, stopped.tokens, stopped.text) == ("stop", (), "")


def test_special_tokens_spelt_in_a_prompt_stay_text(language_model, tokenizer):
    prompt = "[MASK] the [EOS] cat [BOS][PAD]"
    [row], completion = rows_seen(lambda **options: language_model.generate(prompt, **options), length=2, steps=1)
    specials = tokenizer.specials
    ids = row[: completion.prompt_tokens]
    assert ids[0] == specials.bos
    assert {specials.mask, specials.bos, specials.eos, specials.pad}.isdisjoint(ids[1:])
    assert tokenizer.decode(ids[1:]) == prompt


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_the_same_seed_gives_the_same_text_and_another_seed_another(language_model, seed):
    options = {"length": 12, "temperature": 1.0}
    first = language_model.generate("the cat", seed=seed, **options)
    assert untimed(language_model.generate("the cat", seed=seed, **options)) == untimed(first)
    assert language_model.generate("the cat", seed=7, **options).tokens != first.tokens


def test_equal_prompts_get_equal_texts_unless_seeds_differ(language_model):
    params = SamplingParams(length=12, temperature=1.0, seed=5)
    equal = language_model.generate(["the cat"] * 2, params)
    assert equal[0].tokens == equal[1].tokens
    other = language_model.generate(["the cat"] * 2, params, seeds=[5, 6])
    assert other[0].tokens == equal[0].tokens
    assert other[1].tokens != equal[0].tokens


def test_as_many_seeds_as_prompts(language_model):
    with pytest.raises(ValueError, match="2 prompts need as many seeds, got 3"):
        language_model.generate(["a", "b"], seeds=[1, 2, 3], length=2)


# the end of a text


def test_end_of_text_cuts_the_completion(tokenizer):
    model = fond_of(tokenizer, tokenizer.specials.eos, 10.0)
    model.transformer.double()
    params = SamplingParams(canvas="fixed", length=10, temperature=1.0, unmasking="random")
    seeds = list(range(40))
    prompt = [tokenizer.specials.bos, *tokenizer.encode("the")]
    canvases = [Canvas(tokens=(*prompt, *[None] * 10), seed=seed) for seed in seeds]
    whole = fill(model.transformer, canvases, params, mask_id=tokenizer.specials.mask)
    cut_inside = 0
    for raw, completion in zip(whole, model.generate(["the"] * 40, params, seeds=seeds), strict=True):
        tokens, order = list(raw.tokens[len(prompt) :]), raw.revealed_at[len(prompt) :]
        end = tokens.index(tokenizer.specials.eos) if tokenizer.specials.eos in tokens else None
        cut_inside += end not in (None, 0)
        assert completion.tokens == tuple(tokens[:end])
        assert completion.revealed_at == order[:end]
        assert completion.finish_reason == ("length" if end is None else "stop")
        assert completion.text == tokenizer.decode(tokens[:end])
        assert completion.forwards == 10
    assert 5 < cut_inside < 35


def test_a_model_that_ends_at_once_gives_no_text(tokenizer):
    completion = fond_of(tokenizer, tokenizer.specials.eos, 60.0).generate("the cat", length=5)
    assert (completion.text, completion.tokens, completion.revealed_at) == ("", (), ())
    assert completion.finish_reason == "stop"


def test_a_suppressed_end_of_text_lets_the_canvas_fill(tokenizer):
    eos = tokenizer.specials.eos
    completion = fond_of(tokenizer, eos, 60.0).generate("the cat", length=5, suppress=(eos,))
    assert len(completion.tokens) == 5
    assert eos not in completion.tokens
    assert completion.finish_reason == "length"


@pytest.mark.parametrize("name", ["mask", "bos", "eos", "pad"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_no_special_token_is_ever_text(tokenizer, name, temperature):
    model = fond_of(tokenizer, getattr(tokenizer.specials, name), 60.0)
    for completion in (
        model.generate("the cat", length=8, temperature=temperature),
        model.infill("the ", " sat", length=8, temperature=temperature),
    ):
        assert not any(special in completion.text for special in SPECIAL_TEXTS)
        assert tokenizer.specials.mask not in completion.tokens


# options


def test_options_are_fields_of_the_parameters_and_go_over_them(language_model):
    params = SamplingParams(length=9, steps=3, block_length=4)
    by_name = language_model.generate("the cat", **{**asdict(params), "steps": 5})
    assert untimed(by_name) == untimed(language_model.generate("the cat", params, steps=5))
    assert by_name.forwards == 5
    assert params.steps == 3


@pytest.mark.parametrize("method", ["generate", "infill"])
def test_an_unknown_option_is_refused_with_the_list_of_options(language_model, method):
    texts = ("the",) if method == "generate" else ("the", "cat")
    with pytest.raises(ValueError, match=r"there is no option lenght, topp; there are: length, .*seed"):
        getattr(language_model, method)(*texts, lenght=4, topp=0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, "length must be at least 1, got 0"),
        ({"block_length": -2}, "block_length must be at least 1, got -2"),
        ({"length": 4, "steps": 5}, "got 5 steps for 4 tokens"),
        ({"steps": 0}, "got 0 steps for 128 tokens"),
        ({"temperature": -0.5}, "temperature must be 0 or more, got -0.5"),
        ({"temperature": float("nan")}, "temperature .* got nan"),
        ({"temperature": float("inf")}, "temperature .* got inf"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, got 0.0"),
        ({"top_p": 1.5}, "top_p .* got 1.5"),
        ({"top_p": float("nan")}, "top_p .* got nan"),
        ({"guidance": -1.0}, "guidance must be 0 or more, got -1.0"),
        ({"guidance": float("inf")}, "guidance .* got inf"),
        ({"unmasking": "best"}, "unmasking must be one of low_confidence, random, .*; got 'best'"),
    ],
)
def test_a_bad_option_is_refused_with_its_value(language_model, options, message):
    with pytest.raises(ValueError, match=message):
        language_model.generate("the cat", **options)


def test_prompt_and_completion_beyond_the_context_are_refused_with_both_numbers(language_model, tokenizer):
    prompt = "the cat"
    room = CONTEXT - 1 - len(tokenizer.encode(prompt))
    assert language_model.generate(prompt, length=room, steps=1).forwards == 1
    with pytest.raises(ValueError, match=f"need {CONTEXT + 1} tokens, .* context holds {CONTEXT}"):
        language_model.generate(["a", prompt], canvas="fixed", length=room + 1, steps=1)


# infill


def test_infill_writes_the_gap_alone_between_both_texts(language_model, tokenizer):
    call = lambda **options: language_model.infill("the cat ", " the mat", **options)  # noqa: E731
    [row], completion = rows_seen(call, length=5, steps=1)
    before, after = tokenizer.encode("the cat "), tokenizer.encode(" the mat")
    assert row == [tokenizer.specials.bos, *before, *completion.tokens, *after]
    assert completion.text == tokenizer.decode(completion.tokens)
    assert completion.prompt_tokens == 1 + len(before) + len(after)
    assert completion.revealed_at == (1,) * 5
    assert completion.finish_reason == "length"


def test_infill_sees_prefix_and_suffix(language_model):
    params = SamplingParams(length=8)
    base = language_model.infill("the cat ", " the mat", params)
    assert language_model.infill("the cat ", " a chat with the dog", params).tokens != base.tokens
    assert language_model.infill("while a man ", " the mat", params).tokens != base.tokens
    assert untimed(language_model.infill("the cat ", " the mat", params)) == untimed(base)


@pytest.mark.parametrize("name", ["bos", "eos", "pad"])
def test_infill_never_ends_the_text(tokenizer, name):
    special = getattr(tokenizer.specials, name)
    model = fond_of(tokenizer, special, 60.0)
    assert model.transformer.logits(model.transformer(torch.tensor([[4, 5]]))).argmax(-1).tolist() == [[special] * 2]
    completion = model.infill("the cat", "the mat", length=6)
    assert len(completion.tokens) == 6
    assert special not in completion.tokens
    assert completion.finish_reason == "length"


def test_infill_suppresses_what_it_is_asked_to_as_well(language_model):
    favourites = set(language_model.infill("the cat ", " the mat", length=6).tokens)
    other = language_model.infill("the cat ", " the mat", length=6, suppress=tuple(favourites))
    assert favourites.isdisjoint(other.tokens)


def test_infill_with_nothing_on_one_side_or_either(language_model):
    for prefix, suffix in [("", ""), ("the", ""), ("", "cat")]:
        assert len(language_model.infill(prefix, suffix, length=3).tokens) == 3


def test_infill_beyond_the_context_counts_all_three_parts(language_model, tokenizer):
    room = CONTEXT - 1 - len(tokenizer.encode("the cat")) - len(tokenizer.encode("the mat"))
    assert language_model.infill("the cat", "the mat", length=room, steps=1).forwards == 1
    with pytest.raises(ValueError, match=f"need {CONTEXT + 1} tokens, .* context holds {CONTEXT}"):
        language_model.infill("the cat", "the mat", length=room + 1, steps=1)


# load


def save(folder, model):
    save_checkpoint(
        folder,
        model_config=model.transformer.config,
        weights=model.transformer.state_dict(),
        tokenizer=model.tokenizer,
    )
    return folder


def assert_same_model(loaded, model):
    ours, theirs = loaded.transformer.state_dict(), model.transformer.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert loaded.transformer.config == model.transformer.config
    assert not loaded.transformer.training
    assert untimed(loaded.generate("the cat", length=8)) == untimed(model.generate("the cat", length=8))


@pytest.mark.parametrize("tied", [True, False])
def test_a_checkpoint_folder_gives_the_model_that_was_saved(tmp_path, tokenizer, tied):
    model = LanguageModel(transformer=new_transformer(tokenizer, tied=tied), tokenizer=tokenizer)
    folder = save(tmp_path / "anything", model)
    assert_same_model(load(folder, device="cpu"), model)
    assert_same_model(illada.load(str(folder), device="cpu"), model)


def test_a_run_folder_gives_its_newest_checkpoint(tmp_path, tokenizer):
    models = [LanguageModel(transformer=new_transformer(tokenizer, seed=seed), tokenizer=tokenizer) for seed in (4, 5)]
    for step, model in zip((90, 1000), models, strict=True):
        save(checkpoint_path(tmp_path / "run" / "checkpoints", step), model)
    assert_same_model(load(tmp_path / "run", device="cpu"), models[1])


def test_weights_load_in_the_type_that_is_asked_for(tmp_path, language_model):
    loaded = load(save(tmp_path / "model", language_model), device="cpu", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in loaded.transformer.parameters()} == {torch.bfloat16}
    assert len(loaded.generate("the cat", length=4, suppress=(2,)).tokens) == 4


def test_a_damaged_checkpoint_is_refused_by_name(tmp_path, language_model):
    folder = save(tmp_path / "model", language_model)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged: model\.safetensors was altered"):
        load(folder, device="cpu")


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        load(tmp_path)


@pytest.mark.parametrize("device", ["cuda:99", "abacus"])
def test_a_device_that_is_not_there_is_refused(tmp_path, language_model, device):
    folder = save(tmp_path / "model", language_model)
    with pytest.raises(ValueError, match=f"device '{device}' cannot be used"):
        load(folder, device=device)


def test_a_tokenizer_larger_than_the_model_is_refused(language_model, tokenizer):
    small = Transformer(replace(language_model.transformer.config, vocab_size=tokenizer.vocab_size - 1))
    with pytest.raises(ValueError, match="do not belong together"):
        LanguageModel(transformer=small, tokenizer=tokenizer)


def test_rows_of_the_model_beyond_the_vocabulary_are_never_chosen(tokenizer):
    config = replace(new_transformer(tokenizer).config, vocab_size=tokenizer.vocab_size + 50)
    torch.manual_seed(0)
    model = LanguageModel(transformer=Transformer(config), tokenizer=tokenizer)
    completion = model.generate("a", length=24, temperature=3.0)
    assert max(completion.tokens, default=0) < tokenizer.vocab_size
