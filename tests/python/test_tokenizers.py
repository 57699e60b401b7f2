"""Answers as texts, with tokenizers of all kinds: the token is the written text, or a note or error says otherwise."""

from __future__ import annotations

import copy

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

import residscope
from residscope import ResidscopeError
from residscope.cache.vocabulary import Vocabulary
from residscope.serving.service import Service
from tests.support import tiny


def run_with(tokenizer):
    """Return a model with this tokenizer, its logits at the end of a prompt, and its cache."""
    model = copy.deepcopy(tiny.boot("llama"))
    with torch.no_grad():
        logits, cache = model.run_with_cache(torch.tensor([[1, 5, 6, 7]]))
    model._tokenizer = tokenizer  # the setter accepts only Hugging Face tokenizers; older bridges accept any
    return model, logits[0, -1], cache


def wrapped(tokenizer: Tokenizer, tmp_path, **special):
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(tmp_path)
    return PreTrainedTokenizerFast.from_pretrained(tmp_path)


def words_with(*words: str, unknown: str, tmp_path, told: bool = True, lower: bool = False):
    """Return a tokenizer of whole words. `told`: whether it declares its unknown token."""
    names = ["<pad>", "<s>", "</s>", unknown, *words]
    names += [f"w{i}" for i in range(len(names), tiny.VOCAB)]
    made = Tokenizer(models.WordLevel({name: id for id, name in enumerate(names)}, unk_token=unknown))
    if lower:
        made.normalizer = normalizers.BertNormalizer(lowercase=True)
    special = {"unk_token": unknown} if told else {}
    return wrapped(made, tmp_path, pad_token="<pad>", bos_token="<s>", eos_token="</s>", **special)


def measured(cache, answer) -> float:
    return float(residscope.attribute(cache, answer).measured)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("unknown", ["[UNK]", "<unk>", "UNK", "unk", "⁇", "|UNK|", "�"])
def test_a_word_outside_the_vocabulary_is_refused_for_any_unknown_token(unknown, told, tmp_path):
    model, logits, cache = run_with(words_with("Paris", unknown=unknown, told=told, tmp_path=tmp_path))
    for answer in ("Parris", ("Paris", "Parris"), {"Paris", "Parris"}):
        with pytest.raises(ResidscopeError, match="“Parris” is not in this model's vocabulary") as error:
            residscope.attribute(cache, answer)
        assert f"“{unknown}”" in str(error.value)
    assert measured(cache, "Paris") == pytest.approx(float(logits[4]), abs=1e-5)
    assert measured(cache, unknown) == pytest.approx(float(logits[3]), abs=1e-5)  # the unknown token's name is accepted
    answered, _ = Service(cache).answer({"id": "1", "ask": {"kind": "check", "text": "Parris"}})
    assert not answered["reply"]["single"]
    assert "not in this model" in residscope.targets.explain("Parris", model)


@pytest.mark.parametrize(("text", "read", "id"), [("Paris", "paris", 4), ("café", "cafe", 5), ("US", "us", 6)])
def test_a_word_that_the_tokenizer_changes_is_read_with_a_note(text, read, id, tmp_path):
    tokenizer = words_with("paris", "cafe", "us", unknown="[UNK]", lower=True, tmp_path=tmp_path)
    _, logits, cache = run_with(tokenizer)
    found = residscope.attribute(cache, text)
    assert float(found.measured) == pytest.approx(float(logits[id]), abs=1e-5)
    assert f"reads “{text}” as “{read}”" in found.notes[0]
    lens = residscope.token_lens(cache, text)
    assert f"reads “{text}” as “{read}”" in lens.notes[0]
    assert float(lens.answer_probability[-1, -1]) == pytest.approx(float(logits.softmax(-1)[id]), abs=1e-5)
    drawn = residscope.attention(cache, "1.1", weighting="contribution", answers=text)
    assert f"reads “{text}” as “{read}”" in drawn.notes[0]
    assert "reads" not in "".join(residscope.attribute(cache, read).notes)
    with pytest.raises(ResidscopeError, match="not in this model's vocabulary"):
        residscope.attribute(cache, "Berlin")


def sentence_pieces(tmp_path):
    """Return a tokenizer like that of Llama 2: it adds a space before every text, and some bytes have tokens."""
    pieces, merges = [], []
    for word in ("▁Paris", "▁the"):
        parts = list(word)
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            pieces.append(parts[0] + parts[1])
            parts = [parts[0] + parts[1], *parts[2:]]
    single = list(dict.fromkeys("▁Paristhe"))
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in "你".encode()), *single, *dict.fromkeys(pieces)]
    names += [f"w{i}" for i in range(len(names), tiny.VOCAB)]
    vocabulary = {name: id for id, name in enumerate(names)}
    made = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return vocabulary, wrapped(made, tmp_path, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def test_the_shown_text_of_sentence_pieces_can_be_typed(tmp_path):
    vocabulary, tokenizer = sentence_pieces(tmp_path)
    model, logits, cache = run_with(tokenizer)
    spaced = vocabulary["▁Paris"]
    for text in (" Paris", "Paris", "▁Paris"):
        found = residscope.attribute(cache, text)
        assert float(found.measured) == pytest.approx(float(logits[spaced]), abs=1e-5), text
        assert any("as “·Paris”" in note for note in found.notes) == (text == "Paris")
    assert residscope.targets.explain(" Paris", model) == f"“·Paris” is one token in this model, id {spaced}."
    with pytest.raises(ResidscopeError, match="is not in this model's vocabulary"):
        residscope.attribute(cache, " Berlin")
    # If the shown text of a token is typed, a token with this text is found (perhaps with a space before it).
    words = Vocabulary(model)
    for id in range(len(words.tokenizer)):
        check = words.check(words.text(id))
        assert check.single, check.message
        assert words.text(check.tokens[0].id).strip() == words.text(id).strip()


def test_parts_of_characters_are_shown_as_their_bytes(ioi, tmp_path):
    words, encode = Vocabulary(ioi.model), ioi.model.tokenizer.encode
    for text in ("你", " 😀", "é", "�", "Ж", "한"):
        ids = encode(text, add_special_tokens=False)
        shown = [words.text(id) for id in ids]
        # Brackets contain bytes in order, and the rest is the text itself, so nothing is lost.
        data = b""
        for part in shown:
            if "⟨" in part:
                before, _, part = part.partition("⟨")
                data += before.encode() + bytes.fromhex(part.rstrip("⟩"))
            else:
                data += part.encode()
        assert data.decode() == text, shown
        assert [words.token_of_text(part).id for part in shown] == ids
    assert words.text(encode("你", add_special_tokens=False)[0]) == "⟨E4 BD⟩"
    vocabulary, tokenizer = sentence_pieces(tmp_path)
    model, _, _ = run_with(tokenizer)
    assert [Vocabulary(model).text(vocabulary[f"<0x{byte:02X}>"]) for byte in "你".encode()] == ["⟨E4⟩", "⟨BD⟩", "⟨A0⟩"]


# --- the space before a word -----------------------------------------------------------------------------------------
def said(notes: list[str]) -> bool:
    return any("without a leading space" in note for note in notes)


def test_words_without_a_space_have_a_note_if_the_model_expects_one(ioi):
    bare, spaced = ("Mary", "John"), (" Mary", " John")
    for answers, expected in ((bare, True), (spaced, False), ("Mary", True), ({"Mary", "John"}, True)):
        for by in ("head", "layer", "accumulated"):
            assert said(residscope.attribute(ioi.cache, answers, by=by).notes) == expected
        assert said(residscope.token_lens(ioi.cache, answers, points="final_post", positions=-1).notes) == expected
        found = residscope.attention(ioi.cache, "23.3", weighting="contribution", answers=answers)
        assert said(found.notes) == expected
        panel = residscope.inspect(ioi.cache, answers=answers, show=False)
        ask = {"kind": "attribute", "by": "layer", "target": panel.wire_target}
        answered, _ = panel._service.answer({"id": "1", "ask": ask})
        assert said(answered["reply"]["notes"]) == expected
        panel.close()
    ids = torch.tensor([[ioi.model.to_single_token(name) for name in bare]] * 8)
    assert said(residscope.attribute(ioi.cache, ids).notes)  # ids often come from `to_single_token("Mary")`
    assert not said(residscope.attribute(ioi.cache, Service(ioi.cache).default_target()).notes)  # the model's choice


def test_a_word_at_the_start_of_a_line_is_not_noted(ioi):
    """At the start of a line, the model's own logits favour words without a space."""
    tokens = ioi.model.to_tokens("List of names:\nJohn\nMary\nJohn\nMary\nJohn\n")
    with torch.no_grad():
        logits, cache = ioi.model.run_with_cache(tokens)
    mary, with_space = (ioi.model.to_single_token(word) for word in ("Mary", " Mary"))
    assert logits[0, -1, mary] > logits[0, -1, with_space]
    assert not said(residscope.attribute(cache, ("Mary", "John"), by="layer").notes)


def test_if_two_tokens_share_an_embedding_neither_is_assumed():
    model = copy.deepcopy(tiny.boot("llama"))
    with torch.no_grad():
        weight = model.embed.original_component.weight
        weight[40] = weight[6]
    for row, known in (([1, 5, 6, 7], False), ([1, 5, 40, 7], False), ([1, 5, 8, 7], True)):
        with torch.no_grad():
            cache = model.run_with_cache(torch.tensor([row]))[1]
        held = type(cache)({name: t for name, t in cache.items() if name != "embed.hook_in"}, model)
        said = [f"w{id}" if id > 2 else "<s>" for id in row] if known else ["0", "1", "2", "3"]
        assert residscope.attention(held, "1.1", prompt=0).tokens == said
        if not known:
            with pytest.raises(ResidscopeError, match="pass `tokens=`"):
                residscope.scores(held, "duplicate")


# --- tokenizers of other kinds ---------------------------------------------------------------------------------------
LETTERS = "".join(chr(48 + i) for i in range(tiny.VOCAB))


class Letters:
    """A tokenizer with only `encode` and `decode`, as in character-level notebooks."""

    def encode(self, text):
        return [LETTERS.index(letter) for letter in text]

    def decode(self, ids):
        return "".join(LETTERS[id] for id in ids)


class Tik(Letters):
    """A tokenizer like tiktoken: with other options, and with a method for the bytes of a token."""

    n_vocab = tiny.VOCAB

    def encode(self, text, *, allowed_special=frozenset(), disallowed_special="all"):  # noqa: ARG002
        if "<|" in text:
            raise ValueError("Encountered text corresponding to disallowed special token")
        return super().encode(text)

    def decode(self, tokens, errors="replace"):  # noqa: ARG002
        return super().decode(tokens)

    def decode_single_token_bytes(self, token):
        return LETTERS[token].encode()


class Partly(Letters):
    """A tokenizer that has names for only some of its tokens."""

    pad_token_id = eos_token_id = bos_token_id = None

    def convert_ids_to_tokens(self, id):
        if id > 40:
            raise IndexError(id)
        return LETTERS[id]

    def decode(self, ids, **_options):
        return self.convert_ids_to_tokens(ids[0])


def rust():
    """Return a tokenizer of the `tokenizers` library without a wrapper."""
    return Tokenizer(models.WordLevel({letter: id for id, letter in enumerate(LETTERS)}, unk_token="0"))


@pytest.mark.parametrize("make", [Letters, Tik, Partly, rust])
def test_a_tokenizer_need_only_encode_and_decode(make):
    _, logits, cache = run_with(make())
    assert measured(cache, "A") == pytest.approx(float(logits[LETTERS.index("A")]), abs=1e-5)
    assert residscope.attention(cache, "1.1", prompt=0).tokens == [LETTERS[id] for id in (1, 5, 6, 7)]
    lens = residscope.token_lens(cache, "A", k=64, points="final_post", positions=3)
    known = [LETTERS[id] if make is not Partly or id <= 40 else f"#{id}" for id in lens.ids[0, 0].tolist()]
    assert lens.tokens[0][0] == known
    panel = residscope.inspect(cache, answers="A", show=False)
    for ask in ({"kind": "suggest"}, {"kind": "tokens"}, {"kind": "check", "text": "AB"}, {"kind": "target"}):
        answered, _ = panel._service.answer({"id": "1", "ask": ask})
        assert answered.get("failure") is None
    panel.close()


@pytest.mark.parametrize(
    ("tokenizer", "text", "words"),
    [
        (Letters(), "é", ["Letters", "ValueError", "token ids"]),
        (Tik(), "<|end|>", ["disallowed special", "token ids"]),
        (object(), "A", ["has no `encode`", "token ids"]),
        (lambda _text: [5], "A", ["has no `encode`", "token ids"]),
    ],
)
def test_a_tokenizer_that_fails_is_named_in_the_sentence(tokenizer, text, words):
    _, _, cache = run_with(tokenizer)
    with pytest.raises(ResidscopeError) as error:
        residscope.attribute(cache, text)
    for word in words:
        assert word in str(error.value)
    assert residscope.attribute(cache, 5).unexplained.abs().max() < 1e-4


class _Strict:
    """A tokenizer of five texts that refuses any other text. It has no method for the names of its tokens."""

    words = ("<s>", "Mary", " Mary", "John", " John")

    def encode(self, text: str) -> list[int]:
        return [self.words.index(text)]

    def decode(self, ids: list[int]) -> str:
        return "".join(self.words[id] for id in ids)


@pytest.mark.parametrize("kind", ["whole words", "no names"])
def test_a_word_with_its_space_is_found_even_if_names_have_no_space_mark(kind, tmp_path):
    words = ["Mary", " Mary", "John", " John"]
    made = words_with(*words, unknown="<unk>", tmp_path=tmp_path) if kind == "whole words" else _Strict()
    model, _, _ = run_with(made)
    vocabulary = Vocabulary(model)
    bare = [vocabulary.token(made.encode(word)[0]) for word in ("Mary", "John")]
    assert [found and found.text for found in vocabulary.perhaps_spaced(bare)] == [" Mary", " John"]


def test_tokens_of_the_tokenizer_that_the_model_does_not_have_are_no_answers(tmp_path):
    """The tokenizer has more tokens than W_U. The word with a space is one of those that are left out."""
    names = ["<unk>", "Mary", *(f"w{i}" for i in range(2, tiny.VOCAB)), " Mary", "Ma"]
    made = Tokenizer(models.WordLevel({name: id for id, name in enumerate(names)}, unk_token="<unk>"))
    model, logits, cache = run_with(wrapped(made, tmp_path, unk_token="<unk>"))
    vocabulary = Vocabulary(model)
    assert vocabulary.token_of_text(" Mary") is None
    assert measured(cache, "Mary") == pytest.approx(float(logits[1]), abs=1e-5)
    assert vocabulary.perhaps_spaced([vocabulary.token(1)]) == [None]
    with pytest.raises(ResidscopeError, match="Token id 64 is outside the vocabulary"):
        residscope.attribute(cache, " Mary")
