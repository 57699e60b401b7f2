"""Answers in the notebook's variables: which are offered and which targets they give. No code of the user runs."""

from __future__ import annotations

import time
import types
from collections import namedtuple
from typing import Any

import numpy
import pytest
import torch

import residscope
from residscope.serving.dispatcher import Dispatcher
from residscope.session import answers

Ask = Any


@pytest.fixture
def ask(ioi, monkeypatch):
    """A function that sends a request about the demo's cache to a dispatcher, in a notebook with given variables."""

    def asked(variables: dict[Any, Any], kind: str, **fields: Any) -> dict[str, Any]:
        shell = types.SimpleNamespace(user_ns={"cache": ioi.cache} | variables)
        monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: shell)
        dispatcher = Dispatcher()
        (row,) = dispatcher.answer({"id": "list", "ask": {"kind": "caches"}})[0]["reply"]["caches"]
        return dispatcher.answer({"id": "1", "ask": {"kind": kind} | fields, "cache": row["ref"]})[0]

    return asked


def offered(ask: Ask, **variables: Any) -> dict[str, str]:
    return {found["name"]: found["words"] for found in ask(variables, "answers")["reply"]["variables"]}


def difference(ioi) -> torch.Tensor:
    logits = ioi.logits[:, -1].gather(1, ioi.answer_tokens)
    return logits[:, 0] - logits[:, 1]


def answer(ioi) -> torch.Tensor:
    return ioi.logits[:, -1].gather(1, ioi.answer_tokens[:, :1])[:, 0]


def first_pair(ioi) -> torch.Tensor:
    logits = ioi.logits[:, -1, ioi.answer_tokens[0]]
    return logits[:, 0] - logits[:, 1]


def some(ioi) -> torch.Tensor:
    """The mean of the answer's and the distractor's logit, minus the distractor's logit."""
    return difference(ioi) / 2


def along(direction: Any) -> Any:
    """Return a function that projects the model's normalised final stream on a direction."""

    def measured(ioi) -> torch.Tensor:
        final = ioi.cache["ln_final.hook_normalized"][:, -1] * ioi.model.ln_final.weight
        return (final * torch.as_tensor(direction(ioi)).to(final)).sum(-1)

    return measured


def first(ioi) -> torch.Tensor:
    return ioi.model.W_U[:, 100] - ioi.model.W_U[:, 200]


def each(ioi) -> torch.Tensor:
    return torch.nn.Parameter(ioi.model.W_U[:, :8].T.detach().clone())


# For each case: the words that describe the variable, a function that makes the variable, and a function that computes
# the target of each prompt from the model's own logits or stream.
FITTING = {
    "a tensor of pairs": ("[8, 2] ids", lambda ioi: ioi.answer_tokens, difference),
    "a tensor of ids": ("[8] ids", lambda ioi: ioi.answer_tokens[:, 0].int(), answer),
    "an array of pairs": ("[8, 2] ids", lambda ioi: ioi.answer_tokens.numpy(), difference),
    "a list of pairs": ("8 pairs", lambda ioi: list(ioi.answers), difference),
    "a list of pairs of ids": ("8 pairs", lambda ioi: [tuple(pair) for pair in ioi.answer_tokens.tolist()], difference),
    "a list of texts": ("8 texts", lambda ioi: [answer for answer, _ in ioi.answers], answer),
    "a list of ids": ("8 ids", lambda ioi: ioi.answer_tokens[:, 0].tolist(), answer),
    "pairs with sets": ("8 pairs", lambda ioi: [({a, d}, [d]) for a, d in ioi.answers], some),
    "an array of texts": ("[8] texts", lambda ioi: numpy.array([answer for answer, _ in ioi.answers]), answer),
    "an array of objects": ("[8, 2] pairs", lambda ioi: numpy.array(ioi.answers, dtype=object), difference),
    "a pair for all prompts": ("a pair for all prompts", lambda ioi: ioi.answers[0], first_pair),
    "a direction": ("[576] direction", first, along(first)),
    "a direction for each prompt": ("[8, 576] direction", each, along(each)),
    "a direction as an array": ("[576] direction", lambda ioi: first(ioi).detach().double().numpy(), along(first)),
}  # fmt: skip


@pytest.mark.parametrize("case", FITTING)
def test_a_variable_that_fits_is_offered_and_gives_the_models_own_number(ioi, ask, case):
    words, make, by_hand = FITTING[case]
    mine = make(ioi)
    assert offered(ask, mine=mine) == {"mine": words}
    chosen = ask({"mine": mine}, "resolve", name="mine")["reply"]
    assert (chosen["name"], chosen["notes"]) == ("mine", [])
    for prompt, expected in ((None, by_hand(ioi).mean()), (3, by_hand(ioi)[3])):
        reply = ask({}, "attribute", by="head", target=chosen["target"], prompt=prompt)["reply"]
        assert reply["measured"] == pytest.approx(expected.item(), abs=2e-4)
        assert abs(reply["unexplained"]) <= reply["tolerance"]


Pair = namedtuple("Pair", "answer distractor")


TOUCHED: list[str] = []
"""Operations on objects of the classes below. The code under test must cause none."""


class Loud(str):
    def __len__(self):
        TOUCHED.append("len")
        return 8

    def __getattribute__(self, name: str):
        TOUCHED.append(name)
        return object.__getattribute__(self, name)

    def __hash__(self):
        TOUCHED.append("hash")
        return 1

    def __eq__(self, other: object):
        TOUCHED.append("eq")
        return True


class LoudMeta(type):
    def __hash__(cls):
        TOUCHED.append("hash of the class")
        return 1

    def __eq__(cls, other: object):
        TOUCHED.append("eq of the class")
        return True


def loud(base: type) -> Any:
    return LoudMeta("Of" + base.__name__, (base,), {name: vars(Loud)[name] for name in ("__len__", "__getattribute__")})


class LoudTensor(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        TOUCHED.append("torch")
        return super().__torch_function__(function, types, args, kwargs)


@pytest.mark.parametrize(
    "mine",
    [
        [" Mary"] * 7,
        torch.zeros(7, 2, dtype=torch.long),
        torch.zeros(8, 3, dtype=torch.long),
        torch.zeros(1, dtype=torch.long),
        torch.zeros((), dtype=torch.long),
        torch.zeros(8, 2, dtype=torch.bool),
        torch.zeros(8, 2),
        torch.zeros(575),
        torch.zeros(7, 576),
        torch.zeros(576, dtype=torch.complex64),
        torch.zeros(8, 2, dtype=torch.long, device="meta"),
        torch.zeros(8, 2, dtype=torch.long).to_sparse(),
        torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
        numpy.zeros((8, 2), dtype="datetime64[s]"),
        ["When John and Mary went to the shops, John gave the bag to a man who then gave it back"] * 8,
        [True] * 8,
        [[" Mary", " John"]] * 8,
        [(" Mary", ())] * 8,
        [("a", "b", "c")] * 8,
        [10**5000] * 8,
        [None] * 8,
        (1, 2),
        " Mary",
        {" Mary": 1},
        range(8),
        [Loud(" Mary")] * 8,
        [(Loud(" Mary"), " John")] * 8,
        [({Loud(" Mary")}, " John")] * 8,
        [Pair(" Mary", " John")] * 8,
        numpy.array([Loud(" Mary")] * 8, dtype=object),
        (Loud(" Mary"), " John"),
        loud(list)([" Mary"] * 8),
        loud(tuple)((" Mary", " John")),
        loud(object)(),
        numpy.zeros((8, 2), dtype=int).view(loud(numpy.ndarray)),
        torch.zeros(8, 2, dtype=torch.long).as_subclass(LoudTensor),
    ],
    ids=lambda mine: f"{type(mine).__name__}",
)
def test_a_variable_that_does_not_fit_is_not_offered_accepted_or_touched(ask, mine):
    TOUCHED.clear()
    assert offered(ask, mine=mine) == {}
    failure = ask({"mine": mine}, "resolve", name="mine")["failure"]
    assert TOUCHED == []
    assert failure["code"] == "answers"
    assert failure["message"].startswith("`mine` was deleted, or some of its entries are not answers for 8")


def test_a_mistake_in_a_variable_has_the_message_of_attribute(ioi, ask):
    for mine, code in (
        ([" Josephine", *[" Mary"] * 7], "several-tokens"),
        (torch.full((8,), 10**6), "token-id"),
        (torch.full((576,), torch.nan), "direction"),
    ):
        with pytest.raises(residscope.ResidscopeError) as raised:
            residscope.attribute(ioi.cache, mine)
        assert len(offered(ask, mine=mine)) == 1  # offered because of its class and shape; its values are not checked
        assert ask({"mine": mine}, "resolve", name="mine")["failure"] == {"code": code, "message": str(raised.value)}
    late = [" Mary"] * 2_000
    late[-1] = None  # the list of offers does not check the last entries
    assert ask({"mine": late}, "resolve", name="mine")["failure"]["code"] == "answers"


def test_a_text_that_is_read_as_another_token_has_a_note(ioi, ask, monkeypatch):
    names = ["Mary", *[" Mary"] * 7]
    target = ask({"names": names}, "resolve", name="names")["reply"]["target"]
    notes = ask({}, "attribute", by="head", target=target)["reply"]["notes"]
    assert set(residscope.attribute(ioi.cache, names).notes) <= set(notes)
    assert any("“·Mary”" in note for note in notes)
    # If a tokenizer reads another text than was written, a note says so, because the target shows only what was read.
    mary = int(ioi.answer_tokens[0, 0])
    monkeypatch.setattr(type(ioi.model.tokenizer), "encode", lambda *_, **__: [mary])
    (note,) = ask({"names": ["mary"] * 8}, "resolve", name="names")["reply"]["notes"]
    assert note == "This model's tokenizer reads “mary” as “·Mary”: that token is used."


NAMES = ["a b", "\u202egnirts", "<img src=x onerror=alert(1)>", 'x"]; y["', "\ud800", "ﬁx", "class"]


@pytest.mark.parametrize("name", NAMES)
def test_a_variable_of_any_name_can_be_chosen(ioi, ask, name):
    others = {name + "!": [" John"] * 8, 5: [" John"] * 8, "x" * 300: [" John"] * 8, "a b" * 20: [" John"] * 8}
    variables = {name: ioi.answer_tokens, "In": [" John"] * 8, "_i3": [" John"] * 8} | others
    found = {one["name"]: one["words"] for one in ask(variables, "answers")["reply"]["variables"]}
    (written,) = [written for written, words in found.items() if words == "[8, 2] ids"]
    assert eval(written, dict(variables)) is ioi.answer_tokens
    assert written.isprintable()
    assert len(found) == 2  # left out: variables of IPython, a key that is not a text, too long names
    target = ask(variables, "resolve", name=written)["reply"]["target"]
    assert [[c["answer"][0]["id"], c["distractor"][0]["id"]] for c in target["contrasts"]] == ioi.answer_tokens.tolist()


def test_the_list_is_made_in_milliseconds_and_says_if_it_is_incomplete(ask):
    many: dict[str, Any] = {f"z{i}": [(set(map(str, range(5_000))), " John")] * 8 for i in range(20)}
    many |= {f"x{i}": [None] * 8 for i in range(4_900)} | {f"y{i}": object() for i in range(100_000)}
    assert len(offered(ask, **many)) == 20
    took: list[float] = []
    for _ in range(5):
        started = time.thread_time()
        answers.fitting(8, 576)
        took.append(time.thread_time() - started)
    assert min(took) < 0.15  # for a few hundred variables it takes 0.1 ms
    for variables, listed, looked in (
        ({f"x{i}": [" Mary"] * 8 for i in range(300)}, 200, "200"),
        ({f"x{i}": [None] * 8 for i in range(6_000)}, 0, "5,000"),
    ):
        reply = ask(variables, "answers")["reply"]
        assert len(reply["variables"]) == listed
        assert reply["notes"] == [f"Only the first {looked} lists, tuples, arrays and tensors were checked."]


def test_the_target_of_an_inline_panel_is_offered_to_the_sidebar(ioi, ask):
    def panels() -> Any:
        return ask({}, "answers")["reply"]["panel"]

    panel = residscope.inspect(ioi.cache, show=False)
    assert panels() is None  # no target was chosen in the panel
    assert panel.wire_target["own"]
    assert ask({}, "target")["reply"]["target"] == panel.wire_target
    for chosen, words in (
        ((" Mary", " John"), "“·Mary” − “·John”"),
        (ioi.answers, "8 pairs"),
        (first(ioi), "a direction"),
    ):
        panel.target = chosen
        assert panels() == words
        assert ask({}, "target")["reply"]["target"] == panel.wire_target  # a sidebar opens with the same target
        reply = ask({}, "resolve", name=None)["reply"]
        asked = {"by": "layer", "target": reply["target"]}
        measured = ask({}, "attribute", **asked)["reply"]["measured"]
        assert measured == pytest.approx(residscope.attribute(ioi.cache, chosen).measured.mean().item(), abs=1e-4)
    own, _ = panel._service.answer({"id": "1", "ask": {"kind": "answers"}})
    assert own["reply"]["panel"] is None  # a panel does not offer its target to itself
    panel.target = residscope.targets.neuron("L0N0")
    assert ask({}, "target")["reply"]["target"]["own"]  # a sidebar opens with logits, not with a target inside
    panel.target = None
    assert panels() is None
    panel.target = " Mary"
    panel.close()
    assert panels() is None
    assert ask({}, "resolve", name=None)["failure"]["message"].startswith("The panel of this cache is closed")


def test_a_chosen_direction_is_stored_once_and_keeps_its_value(ioi, ask):
    mine = first(ioi).detach().clone()
    expected = residscope.attribute(ioi.cache, mine).measured.mean().item()
    target = ask({"mine": mine}, "resolve", name="mine")["reply"]["target"]
    assert ask({"mine": mine}, "resolve", name="mine")["reply"]["target"] == target
    mine *= 2
    other = ask({"mine": mine}, "resolve", name="mine")["reply"]["target"]
    for asked, factor in ((target, 1), (other, 2)):
        reply = ask({}, "attribute", by="layer", target=asked, prompt=None)["reply"]
        assert reply["measured"] == pytest.approx(factor * expected, abs=1e-4)
