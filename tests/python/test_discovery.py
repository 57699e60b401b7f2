"""Caches are found by all their names, quickly, and without running code of the user."""

from __future__ import annotations

import copy
import gc
import threading
import time
import types
from collections import OrderedDict, defaultdict, deque, namedtuple
from unittest.mock import MagicMock

import pytest
import torch
from transformer_lens import ActivationCache

import residscope
from residscope.session import class_kinds, discovery
from residscope.session.caches import name_of
from residscope.session.discovery import search
from tests.support import tiny


def cache(**extra) -> ActivationCache:
    return ActivationCache({"hook_embed": torch.zeros(1, 2, 3)}, None, **extra)


def names(**variables) -> list[list[str]]:
    return names_in(variables)


def names_in(variables) -> list[list[str]]:
    return [found.names for found in search(variables).found]


class Holder:
    def __init__(self, **held):
        self.__dict__.update(held)


class Slotted:
    """An object with slots, one of them empty."""

    __slots__ = ("cache", "empty")

    def __init__(self, cache):
        self.cache = cache


class Own(ActivationCache):
    """A cache class of the user."""


Pair = namedtuple("Pair", "logits cache")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"my_cache": "C"}, [["my_cache"]]),
        ({"_mine": "C"}, [["_mine"]]),
        ({"caches": ["C", 1]}, [["caches[0]"]]),
        ({"runs": {"clean": "C", "it's": 0}}, [['runs["clean"]']]),
        ({"runs": {'a"b': "C"}}, [['runs["a\\"b"]']]),
        ({"runs": {"\u202eab": "C", "\u0000": 0}}, [['runs["\\u202eab"]']]),
        ({"runs": {5: "C", (1, 2): 0}}, [["runs[5]"]]),
        ({"runs": {(1, 2): "C"}}, [["runs[…]"]]),
        ({"runs": OrderedDict(clean="C")}, [['runs["clean"]']]),
        ({"runs": defaultdict(list, clean="C")}, [['runs["clean"]']]),
        ({"pair": ("logits", "C")}, [["pair[1]"]]),
        ({"pair": Pair("logits", "C")}, [["pair[1]"]]),
        ({"held": Holder(cache="C")}, [["held.cache"]]),
        ({"runs": ["C", 0], "a": "C", "b": "C"}, [["a", "b", "runs[0]"]]),
        ({"held": Holder(**{"a.b": "C"})}, [['vars(held)["a.b"]']]),
        ({"held": Holder(**{"class": "C"})}, [['vars(held)["class"]']]),
        ({"x) #": "C"}, [['globals()["x) #"]']]),
        ({"ﬁx": "C"}, [['globals()["ﬁx"]']]),
        ({"runs[0]": "C", "runs": [1]}, [['globals()["runs[0]"]']]),
        ({"a b": ["C"]}, [['globals()["a b"][0]']]),
        ({"_.x": Holder(c="C")}, [['globals()["_.x"].c']]),
        ({5: ["C"], "x": "C"}, [["x"]]),
        ({"deep": [["C"]]}, [["deep[0][0]"]]),
        ({"runs": {"clean": {"cache": "C"}}}, [['runs["clean"]["cache"]']]),
        ({"runs": {"clean": Holder(cache="C")}}, [['runs["clean"].cache']]),
        ({"held": Holder(runs=["C"])}, [["held.runs[0]"]]),
        ({"run": types.SimpleNamespace(cache="C")}, [["run.cache"]]),
        ({"runs": [types.SimpleNamespace(cache="C")]}, [["runs[0].cache"]]),
        ({"last": deque([0, "C"])}, [["last[1]"]]),
        ({"run": Slotted(cache="C")}, [["run.cache"]]),
        ({"runs": {"a": Slotted(cache="C")}}, [['runs["a"].cache']]),
        ({"runs": [["C"]], "mine": "C", "held": Holder(c="C")}, [["mine", "held.c", "runs[0][0]"]]),
        ({"deeper": [[["C"]]]}, []),
        ({"_": "C", "__": "C", "___": "C", "_5": "C", "_oh": {5: "C"}, "Out": {5: "C"}}, [["Out[5]"]]),
        ({"_5": "C", "Out": {5: "C"}, "mine": "C"}, [["mine"]]),
        ({"_i5": "C", "In": ["C"], "_ih": ["C"], "_dh": ["C"]}, []),
    ],
)
@pytest.mark.parametrize("kind", [cache, lambda: Own({}, None)])
def test_a_cache_is_one_row_with_all_its_names(variables, expected, kind):
    found = kind()

    def put(value):
        if value == "C":
            return found
        if isinstance(value, Pair):
            return Pair(*map(put, value))
        if isinstance(value, list | tuple):
            return type(value)(map(put, value))
        if isinstance(value, dict):
            filled = copy.copy(value)
            filled.update({key: put(element) for key, element in value.items()})
            return filled
        if isinstance(value, deque):
            return deque(map(put, value))
        if isinstance(value, Slotted):
            return Slotted(put(value.cache))
        if isinstance(value, types.SimpleNamespace):
            return types.SimpleNamespace(**{name: put(held) for name, held in vars(value).items()})
        if isinstance(value, Holder):
            return Holder(**{name: put(held) for name, held in vars(value).items()})
        return value

    assert names_in({name: put(value) for name, value in variables.items()}) == expected


def test_a_name_leads_to_one_cache_even_if_keys_are_shortened():
    prompt = "When Mary and John went to the store, John gave"
    found = names(runs={f"{prompt} a drink": cache(), f"{prompt} a bone": cache(), (1, 2): cache(), (1, 3): cache()})
    every = [name for row in found for name in row]
    assert len(every) == len(set(every)) == 4
    assert every[1].endswith(" (2)")


def test_rows_are_in_the_namespaces_order():
    one, two, three = cache(), cache(), cache()
    assert names(runs=[one], two=two, held=Holder(x=three), one=one) == [["one", "runs[0]"], ["two"], ["held.x"]]


def test_an_object_that_only_looks_like_a_cache_is_not_found():
    class Half:
        accumulated_resid = 1

        def __init__(self):
            self.cache_dict = {}

    hollow = cache()
    del hollow.__dict__["cache_dict"]
    assert names(half=Half(), hollow=hollow, kind=ActivationCache, module=types, function=cache) == []


class Touchy(type):
    """A metaclass that records every access."""

    touched: list[str] = []  # noqa: RUF012 (all classes share this list on purpose)

    def __hash__(cls):
        Touchy.touched.append("hash of class")
        return 1

    def __eq__(cls, other):
        Touchy.touched.append("comparison of class")
        return False

    def __getattribute__(cls, name):
        Touchy.touched.append(f"attribute {name} of class")
        return type.__getattribute__(cls, name)

    def __instancecheck__(cls, instance):
        Touchy.touched.append("isinstance")
        return True


def recording(what):
    def method(*_args, **_kwargs):
        Touchy.touched.append(what)
        raise RuntimeError(what)

    return method


SPECIAL = ["__getattr__", "__getattribute__", "__len__", "__bool__", "__iter__", "__eq__", "__hash__", "__repr__"]
SPECIAL += ["__getitem__", "__contains__", "__reversed__", "__copy__", "__length_hint__", "__dir__", "keys", "values"]
SPECIAL += ["items", "get", "copy"]


@pytest.mark.parametrize("base", [object, list, dict, tuple, deque, types.SimpleNamespace, Slotted, ActivationCache])
@pytest.mark.parametrize("inside", [False, True])
def test_no_code_of_the_user_is_run(base, inside):
    methods = {name: recording(name) for name in SPECIAL}
    methods |= {name: property(recording(name)) for name in ("__class__", "__dict__", "cache_dict", "cache", "model")}
    kind = Touchy("Kind", (base,), methods)
    value = ActivationCache.__new__(kind) if base is ActivationCache else base.__new__(kind)
    if base is ActivationCache:
        next(c.__dict__["__dict__"] for c in (ActivationCache,)).__get__(value)["cache_dict"] = {}
    Touchy.touched.clear()
    found = search({"value": [[value]] if inside else value, "values": {"a": [value]}}).found
    assert Touchy.touched == []
    assert len(found) == (base is ActivationCache)


def test_names_that_are_not_texts_are_ignored():
    methods = {name: recording(name) for name in ("__eq__", "__str__", "__format__", "__repr__")}
    variables = {Touchy("Kind", (), methods | {"__hash__": lambda _: 1})(): [cache()], "mine": cache()}
    Touchy.touched.clear()
    assert names_in(variables) == [["mine"]]
    assert Touchy.touched == []


def test_mocks_and_tensor_subclasses_are_ignored():
    class Loud(torch.Tensor):
        @classmethod
        def __torch_function__(cls, *_args, **_kwargs):
            raise RuntimeError("code of a tensor was run")

    mock = MagicMock()
    before = len(mock.mock_calls), list(mock._mock_children)
    assert names(mock=mock, mocks=[mock], loud=torch.zeros(2).as_subclass(Loud)) == []
    assert (len(mock.mock_calls), list(mock._mock_children)) == before


def test_containers_may_change_during_the_search():
    kept, growing, stop = cache(), {"kept": None}, threading.Event()
    growing["kept"] = kept

    def grow():
        n = 0
        while not stop.is_set():
            growing[n] = n
            growing.pop(n - 50, None)
            n += 1

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        for _ in range(300):
            assert names(growing=growing) == [['growing["kept"]']]
    finally:
        stop.set()
        thread.join()


def test_classes_are_not_kept_alive():
    kind = type("Passing", (), {})
    assert names(value=kind()) == []
    assert id(kind) in class_kinds.KINDS
    key = id(kind)
    del kind
    gc.collect()
    assert key not in class_kinds.KINDS


@pytest.mark.parametrize("place", [0, 1, 999, 1_000, 1_001, 1_999, 2_000, 99_998])
@pytest.mark.parametrize("kind", [list, tuple, deque, dict])
def test_a_cache_is_found_at_every_place_of_a_long_container(place, kind):
    """Even near the end of the 100,000 elements that are searched."""
    held = [0] * place + [cache()] + [0] * (99_999 - place)
    runs = dict(enumerate(held)) if kind is dict else kind(held)
    found = search({"runs": runs})
    assert ([f.names for f in found.found], found.notes) == ([[f"runs[{place}]"]], [])


@pytest.mark.parametrize("place", [0, 1_000, 1_999])
def test_a_cache_is_found_at_every_place_of_nested_containers(place):
    plain, own = [{} for _ in range(2_000)], cache()
    plain[place] = {"run": own}
    long = [0] * 3_000 + [own]
    for runs, name in ((plain, f'runs[{place}]["run"]'), ({"clean": long}, 'runs["clean"][3000]')):
        found = search({"runs": runs})
        assert ([f.names for f in found.found], found.notes) == ([[name]], [])


def test_an_incomplete_search_says_so():
    found = search({"long": [0] * 3_000_000, "short": [cache()], "late": [0] * 200_000 + [cache()]})
    assert [f.names for f in found.found] == [["short[0]"]]
    assert "100,000" in found.notes[0]
    assert search({"short": [cache()]}).notes == []
    found = search({"runs": [[0] for _ in range(50_000)], "short": [[cache()]]})
    assert "100,000" in found.notes[0]


@pytest.mark.parametrize("variables", [
    {f"v{i}": [{"a": i}, [i]] for i in range(4_000)},
    {"runs": [{"a": i} for i in range(90_000)]},
    {"runs": {i: Holder(a=i, b=[i]) for i in range(90_000)}},
    {"runs": [Slotted(i) for i in range(90_000)]},
])  # fmt: skip
def test_caches_two_levels_deep_are_found_among_many_objects(variables, capsys):
    variables = {"first": {"run": {"cache": cache()}}} | variables
    found, times = search(variables), []
    for _ in range(7):
        start = time.perf_counter()
        found = search(variables)
        times.append(time.perf_counter() - start)
    assert [f.names for f in found.found] == [['first["run"]["cache"]']]
    assert "2,000" in found.notes[0]
    with capsys.disabled():
        print(f" [two levels: {sorted(times)[3] * 1e3:.1f} ms]", end="")


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({"runs": {"clean": {"cache": "C"}}}, 'runs["clean"]["cache"]'),
        ({"run": types.SimpleNamespace(cache="C")}, "run.cache"),
        ({"run": Slotted(cache="C")}, "run.cache"),
        ({"last": deque(["C"])}, "last[0]"),
    ],
)
def test_a_name_with_keys_attributes_or_indices_leads_to_its_object(variables, name, monkeypatch):
    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: types.SimpleNamespace(user_ns=variables))
    assert discovery.leads_to(name, "C")
    assert not discovery.leads_to(name, "another")


def test_ten_thousand_variables(capsys):
    held = ActivationCache({f"blocks.{i % 30}.hook_{i}": torch.zeros(1) for i in range(1400)}, None)
    kinds = [lambda i: i, str, lambda _: print, lambda i: [i, i + 1], lambda i: {"a": i}, lambda i: Holder(a=i), float]
    variables = {f"v{i}": kinds[i % 7](i) for i in range(10_000)} | {"cache": held}
    found, times = search(variables), []
    for _ in range(20):
        start = time.perf_counter()
        found = search(variables)
        times.append(time.perf_counter() - start)
    assert [f.names for f in found.found] == [["cache"]]
    assert found.notes == []
    with capsys.disabled():
        print(f" [10,000 variables: {sorted(times)[10] * 1e3:.1f} ms]", end="")


def test_the_users_namespace_is_searched(monkeypatch):
    clean = cache()
    variables = {"runs": {"clean": clean}, "_": clean}
    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: types.SimpleNamespace(user_ns=variables))
    assert residscope.caches() == {'runs["clean"]': clean}
    assert name_of(clean) == 'runs["clean"]'
    variables["mine"] = clean
    assert name_of(clean) == "mine"
    assert name_of(cache()) == "cache"


def test_the_name_of_a_plain_dictionary_is_found(monkeypatch):
    _, _, made = tiny.run(tiny.boot("llama"))
    variables = {"plain": dict(made.cache_dict)}
    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: types.SimpleNamespace(user_ns=variables))
    assert name_of(variables["plain"]) == "plain"
