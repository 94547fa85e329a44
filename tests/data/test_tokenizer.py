import json
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from illada.data.tokenizer import SpecialTokens, Tokenizer
from illada.data.tokenizer_files import DEFAULT_TEXTS

TEXTS = [
    "def first(items):\n    return items[0]\n\n\ndef last(items):\n    return items[-1]\n",
    "The mask token hides a word; the model guesses the hidden word from the words around it.\n",
    "for item in items:\n    print(item, end='')\n",
] * 5

TOKENIZER = Tokenizer.train(TEXTS, 320)

FOREIGN = Path(__file__).parents[3] / "shared" / "data" / "tokenizers"


def byte_characters() -> list[str]:
    """The byte alphabet by another route: ask the library what it makes of each byte of a text."""
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    ascii_part = [split.pre_tokenize_str(chr(code))[0][0] for code in range(128)]
    letters = {chr(code): split.pre_tokenize_str(chr(code))[0][0] for code in range(128, 0x800)}
    byte_of = {byte: char for text, chars in letters.items() for byte, char in zip(text.encode(), chars, strict=True)}
    return ascii_part + [byte_of.get(byte, "") for byte in range(128, 256)]


def gpt2_style(folder: Path, *, merges: Sequence[tuple[str, str]] = (), added: Sequence[AddedToken] = ()) -> Path:
    """A file in the manner of GPT-2: bytes first, <|endoftext|> last and both model token and added token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*alphabet, *("".join(pair) for pair in merges), "<|endoftext|>"]
    vocab = {name: number for number, name in enumerate(dict.fromkeys(names))}
    backend = tokenizers.Tokenizer(models.BPE(vocab, list(merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>"])
    backend.add_tokens(list(added))
    folder.mkdir(exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    return folder


# --- training -----------------------------------------------------------------------------------------------------


def test_special_tokens_have_the_first_ids():
    assert TOKENIZER.specials == SpecialTokens(pad=0, bos=1, eos=2, mask=3)


def test_training_reaches_the_size_asked_for():
    assert TOKENIZER.vocab_size == 320


def test_a_small_corpus_gives_a_smaller_vocabulary():
    small = Tokenizer.train(["aab"], 1000)
    assert 263 <= small.vocab_size < 270
    assert small.decode(small.encode("aab")) == "aab"


def test_merges_shorten_text_that_resembles_the_corpus():
    assert len(TOKENIZER.encode("return items")) < len(b"return items") / 2


def test_training_twice_gives_the_same_tokenizer():
    assert Tokenizer.train(TEXTS, 320).fingerprint == TOKENIZER.fingerprint


def test_a_vocabulary_without_room_for_bytes_and_specials_is_refused():
    with pytest.raises(ValueError, match=r"vocab_size is 262, .* at least 263"):
        Tokenizer.train(TEXTS, 262)
    assert Tokenizer.train(TEXTS, 263).vocab_size == 263


@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_training_on_nothing_is_refused(texts):
    with pytest.raises(ValueError, match="no text to train"):
        Tokenizer.train(texts, 300)


def test_training_survives_lone_surrogates():
    assert Tokenizer.train(["abc \ud800 abc"], 300).encode("abc")


# --- bytes --------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_any_bytes_come_back(data):
    assert TOKENIZER.decode_bytes(TOKENIZER.encode(data)) == data


@given(st.text(max_size=100))
def test_any_text_comes_back(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@given(st.lists(st.sampled_from([b"\xff", b"\xe2\x82", "é€🙂".encode(), b"items", b"[MASK]", b"\x00"]), max_size=12))
def test_mixtures_of_text_and_broken_characters_come_back(pieces):
    data = b"".join(pieces)
    assert TOKENIZER.decode_bytes(TOKENIZER.encode(data)) == data


def test_every_single_byte_has_the_token_that_the_library_gives_it():
    vocabulary = json.loads(TOKENIZER._backend.to_str())["model"]["vocab"]
    known = [(byte, char) for byte, char in enumerate(byte_characters()) if char]
    assert len(known) > 180
    for byte, char in known:
        assert TOKENIZER.decode_bytes([vocabulary[char]]) == bytes([byte])


def test_decoding_agrees_with_the_library():
    ids = TOKENIZER.encode("def größer(items): return items # 🙂\n")
    assert TOKENIZER.decode(ids) == TOKENIZER._backend.decode(ids)


def test_valid_text_around_invalid_bytes_is_merged_as_usual():
    ids = TOKENIZER.encode(b"return items\xffreturn items")
    alone = TOKENIZER.encode("return items")
    assert ids[: len(alone)] == alone
    assert ids[-len(alone) :] == alone
    assert len(ids) == 2 * len(alone) + 1


def test_invalid_bytes_decode_to_the_replacement_character():
    assert TOKENIZER.decode(TOKENIZER.encode(b"a\xffb")) == "a\ufffdb"


def test_lone_surrogates_do_not_stop_encoding():
    assert TOKENIZER.decode_bytes(TOKENIZER.encode("a\ud800b")) == b"a\xed\xa0\x80b"


def test_ids_outside_the_vocabulary_show_as_the_replacement_character():
    assert TOKENIZER.decode([TOKENIZER.encode("a")[0], 100_000, -1]) == "a\ufffd\ufffd"


def test_a_batch_is_encoded_as_its_texts_alone():
    texts = ["def f(items):", b"\xff\xfe", "", "[MASK]", "\ud800"]
    assert TOKENIZER.encode_batch(texts) == [TOKENIZER.encode(text) for text in texts]
    assert TOKENIZER.encode_batch([]) == []


def test_decoding_shows_special_tokens_on_request():
    ids = [1, *TOKENIZER.encode("a"), 3, 2, 0]
    assert TOKENIZER.decode(ids) == "a"
    assert TOKENIZER.decode(ids, skip_special=False) == "[BOS]a[MASK][EOS][PAD]"


# --- special tokens never come from text --------------------------------------------------------------------------

LOOKALIKES = st.lists(
    st.one_of(
        st.sampled_from([*DEFAULT_TEXTS.values(), "<|endoftext|>", "[", "MASK", "]", " ", "\n"]), st.text(max_size=3)
    ),
    max_size=10,
).map("".join)


def assert_stays_text(tokenizer: Tokenizer, text: str) -> None:
    specials = tokenizer.specials
    for given_text in (text, text.encode("utf-8", "surrogatepass"), text.encode("utf-8", "surrogatepass") + b"\xe2"):
        ids = tokenizer.encode(given_text)
        assert {specials.mask, specials.bos, specials.eos, specials.pad}.isdisjoint(ids)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(LOOKALIKES)
def test_text_never_becomes_a_special_token(text):
    assert_stays_text(TOKENIZER, text)


@given(LOOKALIKES)
def test_text_never_becomes_a_special_token_after_a_reload(tmp_path_factory, text):
    assert_stays_text(pickle.loads(pickle.dumps(TOKENIZER)), text)


def test_an_added_token_that_is_not_flagged_special_becomes_so(tmp_path):
    tokenizer = Tokenizer.load(gpt2_style(tmp_path, added=[AddedToken("[MASK]", special=False)]))
    assert tokenizer.specials.mask == 257
    for text in ("x[MASK]y", "[MASK]", "a [MASK]", "[MASK][MASK]"):
        assert_stays_text(tokenizer, text)


def test_texts_that_look_like_special_tokens_have_their_ids():
    specials = TOKENIZER.specials
    assert TOKENIZER.special_ids(["[EOS]", "the", "[MASK]", ""]) == (specials.eos, specials.mask)


def test_a_special_text_that_ordinary_merges_reach_is_spelt_in_bytes(tmp_path):
    merges = [("[", "B"), ("[B", "O"), ("[BO", "S"), ("[BOS", "]")]
    gpt2_style(tmp_path, merges=merges)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["pre_tokenizer"]["use_regex"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.specials.bos == content["model"]["vocab"]["[BOS]"]
    assert len(tokenizer.encode("[BOS]")) == 5
    assert_stays_text(tokenizer, "a[BOS]b[BOS]")


def test_the_text_of_a_special_token_goes_through_the_merges_like_any_other():
    tokenizer = Tokenizer.train(["MASK [x] MASK [x]"] * 10, 275)
    assert [tokenizer.decode([token]) for token in tokenizer.encode("x[MASK]")] == ["x", "[", "MASK", "]"]


def test_added_tokens_that_are_text_are_still_used(tmp_path):
    tokenizer = Tokenizer.load(gpt2_style(tmp_path, added=[AddedToken("    ", normalized=False)]))
    assert tokenizer.encode("    ") == [257]
    assert tokenizer.decode([257]) == "    "


def test_every_token_has_the_length_of_its_bytes():
    text = "def größer(items):\n    return items 🙂\n"
    ids = np.array([TOKENIZER.specials.bos, *TOKENIZER.encode(text), TOKENIZER.specials.eos])
    assert TOKENIZER.byte_lengths[ids].sum() == len(text.encode())
    assert TOKENIZER.byte_lengths[[0, 1, 2, 3]].tolist() == [0, 0, 0, 0]
    assert TOKENIZER.byte_lengths.shape == (TOKENIZER.vocab_size,)


# --- the file for other programs ----------------------------------------------------------------------------------


def assert_encodes_alike(tokenizer: Tokenizer, file: Path, texts: Sequence[str]) -> None:
    """The library, with the file alone, gives the ids of `encode` between BOS and EOS."""
    tokenizer.save_for_pipelines(file)
    other = tokenizers.Tokenizer.from_file(str(file))
    specials = tokenizer.specials
    for text, encoding in zip(texts, other.encode_batch(list(texts)), strict=True):
        assert encoding.ids == [specials.bos, *tokenizer.encode(text), specials.eos]


PIPELINE_TEXTS = ["def f(items):\n    return 12", "", "[MASK] and [EOS][BOS]", "<|endoftext|>", "größer 🙂"]


def test_pipelines_encode_as_we_do_and_take_no_special_token_from_a_text(tmp_path):
    assert_encodes_alike(TOKENIZER, tmp_path / "pipeline.json", PIPELINE_TEXTS)


def test_pipelines_keep_the_added_tokens_that_are_text(tmp_path):
    tokenizer = Tokenizer.load(gpt2_style(tmp_path, added=[AddedToken("    ", normalized=False)]))
    assert_encodes_alike(tokenizer, tmp_path / "pipeline.json", ["a    b", *PIPELINE_TEXTS[:-1]])


@pytest.mark.skipif(not FOREIGN.is_dir(), reason="needs ../shared")
@pytest.mark.parametrize("name", ["gpt2", "gptneox"])
def test_pipelines_encode_with_published_vocabularies(tmp_path, name):
    assert_encodes_alike(Tokenizer.load(FOREIGN / name), tmp_path / "pipeline.json", PIPELINE_TEXTS)


def test_a_vocabulary_that_reaches_a_special_token_by_merges_is_not_for_pipelines(tmp_path):
    gpt2_style(tmp_path, merges=[("[", "B"), ("[B", "O"), ("[BO", "S"), ("[BOS", "]")])
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["pre_tokenizer"]["use_regex"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"merges of this vocabulary reach the special token '\[BOS\]'"):
        Tokenizer.load(tmp_path).save_for_pipelines(tmp_path / "pipeline.json")
    assert not (tmp_path / "pipeline.json").exists()


# --- files --------------------------------------------------------------------------------------------------------


def test_saving_and_loading_changes_nothing(tmp_path):
    TOKENIZER.save(tmp_path / "a" / "tokenizer")
    loaded = Tokenizer.load(tmp_path / "a" / "tokenizer")
    text = "def f(items): return [MASK] é"
    assert loaded.encode(text) == TOKENIZER.encode(text)
    assert loaded.specials == TOKENIZER.specials
    assert loaded.fingerprint == TOKENIZER.fingerprint
    assert pickle.loads(pickle.dumps(loaded)).fingerprint == TOKENIZER.fingerprint
    assert Tokenizer.load(tmp_path / "a" / "tokenizer" / "tokenizer.json").fingerprint == TOKENIZER.fingerprint


def test_the_saved_configuration_names_the_special_tokens_as_hugging_face_does(tmp_path):
    TOKENIZER.save(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert settings["mask_token"] == "[MASK]"
    assert settings["pad_token"] == "[PAD]"
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_the_fingerprint_tells_vocabularies_and_special_ids_apart(tmp_path):
    folder = gpt2_style(tmp_path)
    plain = Tokenizer.load(folder)
    other_eos = Tokenizer.load(folder, special_texts={"eos": "[PAD]"})
    fingerprints = {plain.fingerprint, other_eos.fingerprint, TOKENIZER.fingerprint}
    fingerprints.add(Tokenizer.train(TEXTS, 319).fingerprint)
    assert len(fingerprints) == 4


def test_a_foreign_file_gets_the_tokens_it_lacks_at_the_next_ids(tmp_path):
    tokenizer = Tokenizer.load(gpt2_style(tmp_path))
    assert tokenizer.specials == SpecialTokens(eos=256, pad=257, bos=258, mask=259)
    assert tokenizer.vocab_size == 260
    assert_stays_text(tokenizer, "a<|endoftext|>[MASK]")
    tokenizer.save(tmp_path / "saved")
    assert Tokenizer.load(tmp_path / "saved").fingerprint == tokenizer.fingerprint


def test_special_texts_come_from_the_configuration_file_and_from_the_caller(tmp_path):
    folder = gpt2_style(tmp_path, added=[AddedToken("<m>", special=True), AddedToken("<n>", special=True)])
    settings = {"mask_token": {"content": "<m>", "lstrip": False}, "bos_token": "<|endoftext|>", "pad_token": None}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = Tokenizer.load(folder)
    assert (tokenizer.specials.mask, tokenizer.specials.bos) == (257, 256)
    assert tokenizer.decode([tokenizer.specials.pad], skip_special=False) == "[PAD]"
    assert Tokenizer.load(folder, special_texts={"mask": "<n>"}).specials.mask == 258


def test_an_unknown_special_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown special token 'maks': choose among pad, bos, eos, mask"):
        Tokenizer.load(gpt2_style(tmp_path), special_texts={"maks": "<m>"})


def test_the_mask_must_be_a_token_of_its_own(tmp_path):
    with pytest.raises(ValueError, match=r"tokenizer.json: the mask token must differ"):
        Tokenizer.load(gpt2_style(tmp_path), special_texts={"mask": "<|endoftext|>"})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no tokenizer at .*nowhere"):
        Tokenizer.load(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"model": {"type": "BPE"}}', "\x00"])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=r"tokenizer.json is no readable"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("content", ["{", "[1]", '{"mask_token": {"text": "x"}}'])
def test_a_damaged_configuration_is_named(tmp_path, content):
    TOKENIZER.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(ValueError, match=r"tokenizer_config.json is no readable"):
        Tokenizer.load(tmp_path)


def test_a_tokenizer_that_is_not_byte_level_is_refused(tmp_path):
    backend = tokenizers.Tokenizer(models.BPE({"a": 0}, []))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="no byte-level BPE"):
        Tokenizer.load(tmp_path)


def test_a_byte_without_a_token_is_named(tmp_path):
    gpt2_style(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    del content["model"]["vocab"]["ÿ"]
    content["model"]["vocab"]["spare"] = 255
    if "spare" not in content["model"]["vocab"]:
        pytest.fail("the vocabulary needs an entry in the place of the byte")
    ids = {name: number for number, name in enumerate(content["model"]["vocab"])}
    content["model"]["vocab"] = ids
    content["added_tokens"][0]["id"] = ids["<|endoftext|>"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.decode(tokenizer.encode("fine")) == "fine"
    with pytest.raises(ValueError, match="no token for the byte 0xFF"):
        tokenizer.encode(b"\xff")


def test_truncation_padding_and_templates_of_a_foreign_file_do_not_apply(tmp_path):
    gpt2_style(tmp_path)
    backend = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    backend.enable_truncation(3)
    backend.enable_padding(length=8)
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 256)]
    )
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.load(tmp_path)
    assert [len(ids) for ids in tokenizer.encode_batch(["a", "abcdef"])] == [1, 6]


def test_a_foreign_normalizer_keeps_working(tmp_path):
    gpt2_style(tmp_path)
    backend = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    backend.normalizer = normalizers.Replace(Regex("A"), "a")
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.decode(tokenizer.encode("AbA")) == "aba"


@pytest.mark.parametrize(
    ("name", "eos", "added", "round_trip"),
    [("gpt2", 50256, 50269, "def f():\n    return 'é€🙂'"), ("gptneox", 0, 50289, "def f():\n        return 'é€🙂'")],
)
def test_published_tokenizers_load(name, eos, added, round_trip):
    if not (FOREIGN / name).is_dir():
        pytest.skip(f"the {name} tokenizer is not on this machine")
    tokenizer = Tokenizer.load(FOREIGN / name)
    assert tokenizer.specials == SpecialTokens(eos=eos, pad=added, bos=added + 1, mask=added + 2)
    assert tokenizer.vocab_size == added + 3
    assert tokenizer.decode(tokenizer.encode(round_trip)) == round_trip
    assert_stays_text(tokenizer, "[MASK] and <|endoftext|><|padding|>")
    reference = tokenizers.Tokenizer.from_file(str(FOREIGN / name / "tokenizer.json"))
    assert tokenizer.encode(round_trip) == reference.encode(round_trip).ids


# --- special tokens that neither the file names nor we do ---------------------------------------------------------


def test_special_tokens_by_their_ids(tmp_path):
    gpt2_style(tmp_path)
    tokenizer = Tokenizer.load(tmp_path, special_ids={"mask": 65, "bos": 256, "pad": 10**6})
    assert (tokenizer.specials.mask, tokenizer.specials.bos) == (65, 256)
    assert tokenizer.added == {"pad"}  # there is no such id: it is ours, and new


def test_a_text_that_is_named_comes_before_an_id(tmp_path):
    gpt2_style(tmp_path)
    (tmp_path / "special_tokens_map.json").write_text('{"mask_token": "B"}')
    assert Tokenizer.load(tmp_path, special_ids={"mask": 65}).texts["mask"] == "B"
    (tmp_path / "tokenizer_config.json").write_text('{"mask_token": {"content": "C"}}')
    assert Tokenizer.load(tmp_path, special_ids={"mask": 65}).texts["mask"] == "C"
    assert Tokenizer.load(tmp_path, special_ids={"mask": 65}, special_texts={"mask": "D"}).texts["mask"] == "D"


def test_what_was_added_is_known(tmp_path):
    gpt2_style(tmp_path)
    assert Tokenizer.load(tmp_path).added == {"pad", "bos", "mask"}
    assert Tokenizer.train(["text"], 270).added == frozenset()


def test_an_answer_may_end_in_several_ways(tmp_path):
    gpt2_style(tmp_path)
    tokenizer = Tokenizer.load(tmp_path, ends=[65, "B", "no such token", 10**6, 256])
    eos, first = tokenizer.specials.eos, tokenizer.encode("B")[0]
    assert tokenizer.end_ids == (eos, 65, first)
    for copy in (pickle.loads(pickle.dumps(tokenizer)), saved_and_loaded(tokenizer, tmp_path / "copy")):
        assert copy.end_ids == tokenizer.end_ids
        assert copy.specials == tokenizer.specials
    assert Tokenizer.load(tmp_path).end_ids == (eos,)


@pytest.mark.parametrize("value", ['"B"', "[3]", "{}"])
def test_ends_that_are_no_list_of_texts(tmp_path, value):
    gpt2_style(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(f'{{"end_tokens": {value}}}')
    with pytest.raises(ValueError, match=r"the end_tokens in .*tokenizer_config\.json are no list of texts"):
        Tokenizer.load(tmp_path)


def test_a_damaged_map_of_special_tokens(tmp_path):
    gpt2_style(tmp_path)
    (tmp_path / "special_tokens_map.json").write_text("{")
    with pytest.raises(ValueError, match=r"special_tokens_map\.json is no readable special_tokens_map\.json"):
        Tokenizer.load(tmp_path)


def saved_and_loaded(tokenizer, folder):
    tokenizer.save(folder)
    return Tokenizer.load(folder)
