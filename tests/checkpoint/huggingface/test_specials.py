"""Which tokens are [MASK], BOS, EOS, PAD and ends: what the folder says, in the order in which it is believed."""

import pytest

import illada
from illada.checkpoint.huggingface.reader import open_published
from illada.data.chat import ChatTemplate

ALL_NAMED = ("bos_token", "eos_token", "pad_token", "mask_token")


def specials_of(folder, **texts):
    specials = open_published(folder.path, illada.Overrides(special_tokens=texts)).tokenizer.specials
    return {name: getattr(specials, name) for name in ("mask", "bos", "eos", "pad")}


def test_illada_knows_its_mask_though_nothing_names_it(published):
    folder = published("illada")
    assert "mask_token_id" not in folder.json()
    assert specials_of(folder) == {"mask": 5, "bos": 0, "eos": 2, "pad": 1}


def test_llada_has_it_in_its_configuration(published):
    folder = published("llada")
    assert specials_of(folder) == {"mask": 500, "bos": 490, "eos": 491, "pad": 491}
    folder.json(mask_token_id=495)
    assert specials_of(folder)["mask"] == 495
    folder.without("mask_token_id")
    assert specials_of(folder)["mask"] == 500  # by its text


def test_the_tokenizers_own_word_comes_first(published):
    folder = published("llada")
    folder.json("tokenizer_config.json", mask_token="<|reserved_token_1|>")
    assert specials_of(folder)["mask"] == 493


def test_a_map_of_special_tokens_is_read_too(published):
    folder = published("illada")
    folder.without(*ALL_NAMED, name="tokenizer_config.json")
    (folder.path / "special_tokens_map.json").write_text(
        '{"pad_token": {"content": "<reserved_0>"}, "eos_token": "<eos>"}'
    )
    assert specials_of(folder) == {"mask": 5, "bos": 0, "eos": 2, "pad": 4}  # bos by its id in config.json


def test_what_is_said_outright_comes_before_all(published):
    folder = published("illada")
    assert specials_of(folder, mask="<reserved_0>", eos="<unk>") == {"mask": 4, "bos": 0, "eos": 3, "pad": 1}


def test_where_nothing_names_them_bos_and_pad_are_the_end(published):
    folder = published("illada")
    folder.without("bos_token", "pad_token", name="tokenizer_config.json")
    folder.without("bos_token_id", "pad_token_id")
    assert specials_of(folder) == {"mask": 5, "bos": 2, "eos": 2, "pad": 2}


@pytest.mark.parametrize("ends", [2, [2, 3]])
def test_of_several_ends_in_the_configuration_the_first_is_eos(published, ends):
    folder = published("illada")
    folder.without(*ALL_NAMED, name="tokenizer_config.json")
    folder.without("bos_token_id", "pad_token_id")
    folder.json(eos_token_id=ends)
    assert specials_of(folder) == {"mask": 5, "bos": 2, "eos": 2, "pad": 2}
    expected = (2,) if ends == 2 else (2, 3)
    assert open_published(folder.path).tokenizer.end_ids == expected


def test_an_end_that_nothing_names_is_asked_for(published):
    folder = published("illada")
    folder.without(*ALL_NAMED, name="tokenizer_config.json")
    folder.without("bos_token_id", "pad_token_id", "eos_token_id")
    with pytest.raises(ValueError, match=r"does not say which token is bos: .* --special-tokens bos TEXT"):
        specials_of(folder)
    assert specials_of(folder, eos="<eos>")["bos"] == 2


def test_a_mask_that_is_not_in_the_vocabulary_is_asked_for(published):
    folder = published("illada")
    text = (folder.path / "tokenizer.json").read_text()
    (folder.path / "tokenizer.json").write_text(text.replace("<[MASK]>", "<reserved_1>"))
    with pytest.raises(
        ValueError, match=r"which token is mask: name one of its vocabulary with --special-tokens mask T"
    ):
        specials_of(folder)
    assert specials_of(folder, mask="<reserved_1>")["mask"] == 5
    with pytest.raises(ValueError, match="which token is mask"):
        specials_of(folder, mask="<no such token>")


def test_turns_of_llada_end_with_a_token_of_their_own(published):
    folder = published("llada")
    assert open_published(folder.path).tokenizer.end_ids == (491, 507)
    (folder.path / "generation_config.json").write_text('{"eos_token_id": [491, 505]}')
    assert open_published(folder.path).tokenizer.end_ids == (491, 505, 507)


def test_the_chat_template_comes_along(published):
    folder = published("llada")
    template = folder.json("tokenizer_config.json")["chat_template"]
    assert open_published(folder.path).tokenizer.chat_template == template
    folder.without("chat_template", name="tokenizer_config.json")
    (folder.path / "chat_template.jinja").write_text("{{ messages[0]['content'] }}!")
    template = ChatTemplate(open_published(folder.path).tokenizer)
    assert template.render([{"role": "user", "content": "hi"}]) == "hi!"


def test_a_folder_without_a_tokenizer(published):
    folder = published("llada")
    (folder.path / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match="no tokenizer at"):
        open_published(folder.path)
