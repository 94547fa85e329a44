"""Completions piece by piece, and conversations."""

import pytest
import torch

from illada.data.tokenizer import Tokenizer
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer
from illada.pipeline import MASK_SHOWN, LanguageModel
from illada.sample.request import SamplingParams

TEXT = "the cat sat on the mat and the dog sat on the log é 🙂 – naïve café 🙂🙂 " * 4


@pytest.fixture(scope="module")
def language_model():
    tokenizer = Tokenizer.train([TEXT], 290)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=16, layers=1, heads=2, kv_heads=1, ffn_size=24, max_length=96
    )
    transformer = Transformer(config).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in transformer.parameters():
            if parameter.dim() == 2:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.45)
    return LanguageModel(transformer=transformer.double(), tokenizer=tokenizer)


def collected(chunks):
    chunks = list(chunks)
    assert all(chunk.completion is None for chunk in chunks[:-1])
    assert chunks[-1].completion is not None
    return chunks, chunks[-1].completion


def untimed(completion):
    return {key: value for key, value in vars(completion).items() if key != "seconds"}


@pytest.mark.parametrize("provisional", [False, True])
@pytest.mark.parametrize("canvas", ["variable", "fixed"])
@pytest.mark.parametrize("seed", range(6))
def test_the_chunks_together_are_the_completion(language_model, seed, canvas, provisional):
    params = SamplingParams(length=40, block_length=8, temperature=1.0, seed=seed, canvas=canvas, stop=("at ", "og"))
    chunks, completion = collected(language_model.stream("the cat", params, provisional=provisional))
    assert "".join(chunk.text for chunk in chunks) == completion.text
    assert untimed(completion) == untimed(language_model.generate("the cat", params))


def test_bytes_of_a_character_that_come_in_two_blocks_are_not_torn(language_model):
    torn = 0
    for seed in range(30):
        params = SamplingParams(length=24, block_length=1, temperature=3.0, seed=seed)
        chunks, completion = collected(language_model.stream("the", params))
        assert "".join(chunk.text for chunk in chunks) == completion.text
        torn += any(ord(character) > 127 and character != "\ufffd" for character in completion.text)
    assert torn > 0


def test_a_chunk_comes_with_every_block_or_with_every_forward(language_model):
    eos = language_model.tokenizer.specials.eos
    params = SamplingParams(length=24, block_length=8, suppress=(eos,))
    blocks = list(language_model.stream("the cat", params))
    assert len(blocks) == 3
    assert all(chunk.provisional is None for chunk in blocks)
    forwards = list(language_model.stream("the cat", params, provisional=True))
    assert len(forwards) == 24
    shown = [chunk.provisional.count(MASK_SHOWN) for chunk in forwards[:-1]]
    # with its last token a block becomes text, and the next one is in sight
    assert shown == [*range(7, 0, -1), 8, *range(7, 0, -1), 8, *range(7, 0, -1)]


def test_nothing_that_may_become_a_stop_string_is_told_too_early(language_model):
    tokenizer = language_model.tokenizer
    texts = {token: tokenizer.decode([token]) for token in range(tokenizer.vocab_size)}
    # every byte a character, so that any part of the text can be a stop string
    barred = tuple(token for token, text in texts.items() if not text or not text.isascii())
    whole = language_model.generate("the cat", length=24, block_length=4, suppress=barred).text
    for start in range(1, len(whole) - 3):
        stop = whole[start : start + 3]
        chunks, completion = collected(
            language_model.stream("the cat", length=24, block_length=4, suppress=barred, stop=(stop,))
        )
        assert completion.stop_string == stop
        assert completion.text == whole[: whole.index(stop)]
        assert "".join(chunk.text for chunk in chunks) == completion.text


def test_a_stream_that_is_left_does_no_more_work(language_model, monkeypatch):
    calls = []
    recompute = language_model.transformer.recompute
    monkeypatch.setattr(language_model.transformer, "recompute", lambda *args: calls.append(1) or recompute(*args))
    chunks = language_model.stream("the cat", length=24, provisional=True)
    next(chunks)
    chunks.close()
    assert len(calls) == 1
    assert next(chunks, None) is None


def test_a_bad_request_is_refused_before_the_first_chunk(language_model):
    with pytest.raises(ValueError, match="length must be at least 1"):
        language_model.stream("the", length=0)
    with pytest.raises(ValueError, match="fills the model's context of 96"):
        language_model.stream("cat " * 100)


def test_streams_side_by_side_do_not_disturb_each_other(language_model):
    one = language_model.stream("the cat", length=16, provisional=True)
    other = language_model.stream("the dog", length=16, provisional=True)
    texts = ["", ""]
    for first, second in zip(one, other, strict=False):
        texts = [texts[0] + first.text, texts[1] + second.text]
        assert not torch.is_inference_mode_enabled()
    alone = language_model.generate("the cat", length=16).text
    assert alone.startswith(texts[0])


# --- conversations ------------------------------------------------------------------------------------------------


def test_a_conversation_is_answered_behind_its_template(language_model):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "the cat?"},
        {"role": "assistant", "content": "sat"},
        {"role": "user", "content": " the dog? [EOS]"},
    ]
    ids = language_model.chat_template.encode(messages)
    specials = language_model.tokenizer.specials
    assert ids[0] == specials.bos
    assert specials.eos not in ids
    text = "[BOS][SYSTEM]Be brief.[USER]the cat?[ASSISTANT]sat[USER]the dog? [EOS][ASSISTANT]"
    assert language_model.tokenizer.decode(ids, skip_special=False) == text
    [completion] = language_model.chat([messages], length=8)
    assert untimed(completion) == untimed(language_model.complete_ids([ids], length=8)[0])
    _, streamed = collected(language_model.stream_chat(messages, length=8))
    assert untimed(streamed) == untimed(completion)


def test_conversations_share_forwards_and_are_answered_as_if_alone(language_model):
    conversations = [[{"role": "user", "content": TEXT[: 5 * count]}] for count in range(1, 8)]
    together = language_model.chat(conversations, length=12, block_length=4)
    for conversation, completion in zip(conversations, together, strict=True):
        assert untimed(completion) == untimed(language_model.chat([conversation], length=12, block_length=4)[0])


def test_an_empty_prompt_is_bos_alone(language_model):
    completion = language_model.generate("", length=4)
    assert completion.prompt_tokens == 1


def test_tokens_per_forward(language_model):
    eos = language_model.tokenizer.specials.eos
    completion = language_model.generate("the cat", length=12, steps=4, block_length=6, suppress=(eos,))
    assert completion.tokens_per_forward == 3.0
