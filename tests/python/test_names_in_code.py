"""A name in exported code leads to the right object, and no code of the user's objects is run to find this name."""

from __future__ import annotations

import ast
from collections import OrderedDict, namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
import torch

import residscope
from residscope.export.code import ASSIGNED
from residscope.export.python_source import is_addressable, literal
from residscope.serving.service import Service
from residscope.session.discovery import search
from residscope.terms import Against, AttentionScore, SegmentRange, Target
from residscope.wire.shown import Picture, Shown, WriteCode
from tests.support import saes, tiny

PAIR = ("w5", "w9")


@pytest.fixture(scope="module")
def llama():
    """A tiny model with tokens, logits and cache of a run, and another cache with other values."""
    model = tiny.boot("llama")
    tokens, logits, cache = tiny.run(model)
    other = type(cache)({name: value + 1 for name, value in cache.items()}, model)
    return SimpleNamespace(model=model, tokens=tokens, logits=logits, cache=cache, other=other)


@pytest.fixture
def planted():
    """A list in which the user's methods record that they were run."""
    return []


@pytest.fixture
def notebook(monkeypatch, planted):
    """The variables of a notebook, which a test fills. One variable is a function that must never be called."""
    import IPython.core.getipython

    variables: dict[str, object] = {"run": lambda: planted.append("run")}
    monkeypatch.setattr(IPython.core.getipython, "get_ipython", lambda: SimpleNamespace(user_ns=variables))
    return variables


@pytest.mark.parametrize("value", [(5,), (5, 6), ("w5", {6, 7}), set(), [], [("w5",)], {"w5"}, ()])
def test_a_literal_is_the_value_again(value):
    assert eval(literal(value)) == value


def written(given: Service, prompt: int | None = 1) -> str:
    return given.reply(WriteCode("heads", Shown(given.targets().resolve(PAIR), prompt)))[0].code


def ran(monkeypatch, code: str, namespace: dict[str, object]) -> tuple[object, dict[str, object], np.ndarray]:
    """Run the code in a new cell. Return the cache and options that it passes to `attribute`, and its array."""
    given: list[tuple[object, dict[str, object]]] = []
    attribute = residscope.attribute

    def watched(cache, *args, **options):
        given.append((cache, options))
        return attribute(cache, *args, **options)

    monkeypatch.setattr(residscope, "attribute", watched)
    exec(compile(code, "cell", "exec"), namespace)
    [(cache, options)] = given
    return cache, options, np.asarray(namespace["values"])


class Holder:
    """An object of the user."""

    cache = None  # an attribute of the instance replaces this default

    def __init__(self, **held):
        object.__getattribute__(self, "__dict__").update(held)


def recording_class(planted: list[str], *names: str, base: type = Holder) -> type:
    """Return a class whose methods record that they were run."""

    def method(*_args, **_kwargs):
        planted.append("method")
        raise AttributeError

    return type("Recording", (base,), {name: property(method) if name == "cache" else method for name in names})


Pair = namedtuple("Pair", "logits cache")
Text = type("Text", (str,), {})
WAYS = {
    "plain": (lambda c, _: {"x": c}, "x"),
    "letters of any script": (lambda c, _: {"קש": c}, "קש"),
    "letters with marks": (lambda c, _: {"नमस्ते": c}, "नमस्ते"),
    "a tower of marks": (lambda c, _: {"x" + "\u0301" * 450: c}, "x" + "\u0301" * 450),
    "private attribute": (lambda c, _: {"obj": Holder(__private=c)}, "obj.__private"),
    "attribute with a class default": (lambda c, _: {"obj": Holder(cache=c)}, "obj.cache"),
    "list": (lambda c, o: {"runs": [o, c]}, "runs[1]"),
    "named tuple": (lambda c, _: {"pair": Pair(0, c)}, "pair[1]"),
    "ordered dictionary": (lambda c, _: {"runs": OrderedDict(clean=c)}, 'runs["clean"]'),
    "key with quotes": (lambda c, _: {"runs": {"a\"b'": c}}, 'runs["a\\"b\'"]'),
    "key with a backslash": (lambda c, _: {"runs": {"\\d": c}}, 'runs["\\\\d"]'),
    "key that reverses its text": (lambda c, _: {"runs": {"\u202egnirts": c}}, 'runs["\\u202egnirts"]'),
    "key of two lines": (lambda c, _: {"runs": {'"]\nrun()': c}}, 'runs["\\"]\\nrun()"]'),
    "key with other line ends": (lambda c, _: {"runs": {"\u2028\x85\x0c": c}}, 'runs["\\u2028\\x85\\f"]'),
    "key with half a character": (lambda c, _: {"runs": {"\ud800": c}}, 'runs["\\ud800"]'),
    "key of an emoji": (lambda c, _: {"runs": {"👩‍👩‍👧": c}}, 'runs["👩‍👩‍👧"]'),
    "key that is a comment": (lambda c, _: {"runs": {"# x": c}}, 'runs["# x"]'),
    "key like a format string": (lambda c, _: {"runs": {"{run()}": c}}, 'runs["{run()}"]'),
    "negative key": (lambda c, _: {"runs": {-1: c}}, "runs[-1]"),
    "float as key": (lambda c, _: {"runs": {1e-7: c}}, "runs[1e-07]"),
    "True as key": (lambda c, _: {"runs": {True: c}}, "runs[True]"),
    "a second name": (lambda c, _: {"x) #": c, "runs": {"clean": c}}, 'runs["clean"]'),
    "a second variable": (lambda c, _: {"x) #": c, "y": c}, "y"),
    # A cache without a usable name is written as `cache`.
    "bracket and comment": (lambda c, _: {"x) #": c}, None),
    "call": (lambda c, _: {"run()": c}, None),
    "two statements": (lambda c, _: {"run();x": c}, None),
    "two lines": (lambda c, o: {"x\nrun()": c, "x": o}, None),
    "spaces": (lambda c, o: {" x": c, "x ": c, "x": o}, None),
    "look-alike": (lambda c, o: {"ﬁx": c, "fix": o}, None),
    "decomposed accent": (lambda c, o: {"e\u0301": c, "é": o}, None),
    "keyword": (lambda c, _: {"class": c}, None),
    "constant": (lambda c, _: {"None": c}, None),
    "debug": (lambda c, _: {"__debug__": c}, None),
    "the package's own name": (lambda c, _: {"residscope": c}, None),
    "variable like an attribute": (lambda c, o: {"a.b": c, "a": Holder(b=o)}, None),
    "variable like an element": (lambda c, o: {"runs[0]": c, "runs": [o]}, None),
    "attribute with a dot": (lambda c, o: {"obj": Holder(**{"a.b": c, "a": Holder(b=o)})}, None),
    "attribute that calls": (lambda c, _: {"obj": Holder(**{"run()": c})}, None),
    "attribute that is a look-alike": (lambda c, o: {"obj": Holder(**{"ﬁx": c} | {"fix": o})}, None),
    "attribute that is a keyword": (lambda c, _: {"obj": Holder(**{"class": c})}, None),
    "NaN as key": (lambda c, _: {"runs": {float("nan"): c}, "nan": 0}, None),
    "infinity as key": (lambda c, _: {"runs": {float("inf"): c}, "inf": 0}, None),
    "long key": (lambda c, o: {"runs": {"x" * 41: c, f"{'x' * 39}…": o}}, None),
    "tuple as key": (lambda c, _: {"runs": {(1, 2): c}}, None),
    "key of a user's class": (lambda c, _: {"runs": {Text("a"): c}}, None),
    "property that hides the attribute": (lambda c, _, p: {"obj": recording_class(p, "cache")(cache=c)}, None),
    "attributes that run": (lambda c, _, p: {"obj": recording_class(p, "__getattribute__")(cache=c)}, None),
    "elements that run": (lambda c, _, p: {"runs": recording_class(p, "__getitem__", base=dict)(clean=c)}, None),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_name_in_the_code_leads_to_the_shown_cache(llama, notebook, planted, monkeypatch, way):
    make, expected = WAYS[way]
    notebook |= make(llama.cache, llama.other, *([planted] if make.__code__.co_argcount == 3 else []))
    variables = set(notebook)
    service = Service(llama.cache, search().found[0].names[0])
    code = written(service)
    code.encode()
    assert planted == []
    assert ("# `cache` stands for the ActivationCache that is shown" in code) == (expected is None)
    name = expected or "cache"
    assert f"residscope.attribute({name}, " in code.replace("(\n    ", "(").replace(",\n   ", ",")
    cache, _, values = ran(monkeypatch, code, dict(notebook) | ({} if expected else {"cache": llama.cache}))
    assert cache is llama.cache
    np.testing.assert_allclose(values, residscope.attribute(llama.cache, PAIR).grid[..., 1], atol=1e-6)
    assert planted == []
    assert set(notebook) == variables


@pytest.mark.parametrize("name", ["x) #", "run() #", "ﬁx", "class", "a.b", "residscope"])
@pytest.mark.parametrize("given", ["logits", "tokens", "model", "direction"])
def test_arguments_given_with_the_cache_are_named_in_the_same_way(llama, notebook, planted, monkeypatch, name, given):
    values = {name: getattr(llama, name) for name in ("logits", "tokens", "model")}
    direction = torch.randn(llama.model.cfg.d_model)
    notebook |= {"cache": llama.cache, name: direction if given == "direction" else values[given]}
    service = Service(llama.cache, "cache", **values)
    shown = Shown(service.targets().resolve(direction if given == "direction" else PAIR), 1)
    code = service.reply(WriteCode("heads", shown))[0].code
    assert f"# `{given}` stands for " in code
    cache, options, _ = ran(monkeypatch, code, {"direction": direction, **values, "cache": llama.cache})
    assert cache is llama.cache
    assert {name: value for name, value in options.items() if name in values} == values
    assert planted == []


def test_classes_of_variables_are_not_compared_with_the_class_of_tensors(llama, notebook, planted):
    class Meta(type):
        def __eq__(cls, other):
            planted.append("comparison")
            return False

        __hash__ = type.__hash__

    notebook |= {"odd": Meta("Odd", (), {})(), "cache": llama.cache}
    service = Service(llama.cache, "cache")
    target = service.targets().resolve(torch.randn(llama.model.cfg.d_model))
    assert "`direction` stands for" in service.reply(WriteCode("heads", Shown(target, 1)))[0].code
    assert planted == []


def test_the_names_in_a_feature_from_a_view_stay_inside_a_comment(llama):
    service = Service(llama.cache, "cache")
    sae = saes.TopK(24, hook_name="blocks.1.hook_resid_pre")
    target = service.targets().resolve(residscope.targets.feature(sae, 3))
    facts = msgspec.structs.replace(target.inner.feature, sae="x\nrun()", read="y\r\nrun()")
    target = msgspec.structs.replace(target, inner=msgspec.structs.replace(target.inner, feature=facts))
    code = service.reply(WriteCode("layers", Shown(target, 1)))[0].code
    assert not [line for line in code.splitlines() if line.startswith("run()")]
    [_] = [line for line in code.splitlines() if line.startswith("# `sae` stands for")]


BAD_NAMES = ["x) #", "ﬁx", "class", " x", "x\r\nrun()", "a\x0crun()", "a\u2028run()", "x[\n0]", "x.y z", "residscope"]
BAD_NAMES += ["x[run()]", "x[f'{run()}']", "x['\\d']", "x[{[]: 1}]", "x[0:1]", "\ud800", "\x00", "\u202egnirts"]
BAD_NAMES += ["x" * 9999, "x" + "[0]" * 90_000]


def short(text: str) -> str:
    return ascii(text)[:20]


@pytest.mark.parametrize("name", BAD_NAMES, ids=short)
def test_the_name_of_a_panel_stays_inside_a_comment(llama, notebook, planted, monkeypatch, name, recwarn):
    service = Service(llama.cache, name)
    code = written(service)
    code.encode()
    assert not is_addressable(name)
    [remark] = [line for line in code.splitlines() if line.startswith("# `cache` stands for")]
    assert len(code.splitlines()) == 7
    assert len(remark) < 250
    assert ran(monkeypatch, code, notebook | {"cache": llama.cache})[0] is llama.cache
    assert planted == []
    assert not recwarn.list


def test_an_unused_name_is_kept_and_a_used_one_is_replaced(llama, notebook):
    assert "residscope.attribute(clean, " in written(Service(llama.cache, "clean"))
    assert "residscope.attribute(runs['clean'], " in written(Service(llama.cache, "runs['clean']"))
    notebook |= {"clean": llama.other, "runs": {}}  # now these names do not lead to the cache
    for name in ("clean", 'runs["clean"]'):
        assert "residscope.attribute(cache, " in written(Service(llama.cache, name))


def test_an_object_without_a_name_never_gets_the_name_of_another_object(llama, notebook):
    made = Service(llama.cache, "cache", logits=llama.logits, tokens=llama.tokens)
    notebook |= {"cache": llama.other, "logits": llama.logits + 1, "tokens": llama.tokens + 1}  # values of a later run
    code = written(made)
    assert "residscope.attribute(\n    shown_cache,\n" in code
    assert "logits=shown_logits,\n    tokens=shown_tokens," in code
    assert "# `shown_cache` stands for the ActivationCache that is shown" in code


def test_a_given_name_that_leads_to_the_cache_is_kept(llama, notebook):
    notebook["runs"] = {"a": {"b": {"c": llama.cache}}}  # too deep for the search
    assert "residscope.attribute(runs['a']['b']['c'], " in written(Service(llama.cache, "runs['a']['b']['c']"))


PLAIN = ["lens", "layers", "heads", "ranking", "attention", "positions", "token-lens", "prompts"]
RUNS = [
    {"against": against, "run": run}
    for against in (Against("other"), Against("other", 1), Against(None, 2), Against(without=["L0H1"]))
    for run in ("first", "second", "difference")
]
EFFECTS = [{"effect": effect} for effect in ("total", "direct", "indirect", "estimate")]
EFFECTS += [{"effect": "total", "replaced_by": "other", "against": Against("other")}]
SHOWN: dict[str, list[dict[str, Any]]] = {
    **{picture: [{}] for picture in PLAIN},
    "lens": [{}, {"norm": "recomputed"}, *RUNS],
    "layers": [{}, *RUNS],
    "heads": [{}, {"score": "induction"}, {"score": "copying"}, *RUNS, *EFFECTS],
    "ranking": [{}, {"ranking": "neurons"}, {"ranking": "neurons", "layer": 0}, *RUNS, *EFFECTS],
    "attention": [{}, {"weighting": "contribution"}, {"presentation": "text"}, {"presentation": "all"}],
    "positions": [{"by": by} for by in ("accumulated", "layer", "head")],
    "token-lens": [{}, *RUNS],
    "prompts": [{}, {"heads": []}],
    "runs": [*RUNS, {"effect": "total"}],
    "attention-of-runs": RUNS,
    "stream": [{}, {"replaced_by": "mean"}, *RUNS],
    "why": [{"why": "sides"}, {"why": "pairs"}],
    "segments": [{"segments": [("a", 0, 3), ("b", 3, 7)]}, {"segments": [("a", 0, 7)], "weighting": "contribution"}],
    "features": [{"tab": "features"}],
}


def assigned(code: str) -> set[str]:
    """Return the names that the code assigns or imports in the notebook. Names in a comprehension stay inside it."""
    within = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Lambda)

    def of(node: ast.AST) -> set[str]:
        if isinstance(node, within):
            return {name.target.id for name in ast.walk(node) if isinstance(name, ast.NamedExpr)}
        if isinstance(node, ast.Import | ast.ImportFrom):
            return {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        own = {node.id} if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load) else set()
        return own.union(*map(of, ast.iter_child_nodes(node)))

    return of(ast.parse(code))


def test_every_picture_is_tested():
    assert set(SHOWN) == set(get_args(Picture))


@pytest.mark.parametrize("picture", SHOWN)
def test_the_code_assigns_only_the_names_that_the_documentation_names(llama, notebook, picture):
    sae = saes.TopK(24, hook_name="blocks.1.hook_resid_pre")
    notebook |= {"cache": llama.cache, "other": llama.other, "sae": sae, "heads": "mine", "effects": "mine"}
    service = Service(llama.cache, "cache")
    target = service.targets().resolve(PAIR)
    if picture == "why":
        target = Target([], inner=AttentionScore(2, 1, 5, 2))
    for given in SHOWN[picture]:
        segments = given.get("segments")
        given = given | ({} if segments is None else {"segments": [SegmentRange(*one) for one in segments]})
        shown = Shown(target, 1, **({"heads": ["L1H2", "L0H1"]} | given))
        code = service.reply(WriteCode(picture, shown))[0].code
        assert {"values", "figure"} <= assigned(code) <= {"residscope", *ASSIGNED}, given


def test_the_documentation_names_what_the_code_assigns():
    pages = Path(residscope.__file__).parents[1] / "docs"
    section = (pages / "exports.md").read_text("utf8").partition("## Code")[2].partition("```")[0]
    assert section.count("`") == 2 * len(ASSIGNED)
    assert all(f"`{name}`" in section for name in ASSIGNED)


TEXTS = ['"); run() #', "'''", "\\", "\ud800", "\u202egnirts", "\u2028\u2029\x85\r\n", "\x00", "{run()}", "'\"\\'"]


@pytest.mark.parametrize("text", [*TEXTS, "e" + "\u0301" * 9, "x" * 99_999], ids=short)
def test_a_text_in_the_code_evaluates_to_that_text(text):
    for value in (text, (text, "w"), [(text, text)] * 9, {text, "w"}):
        code = literal(value)
        code.encode()
        assert ast.literal_eval(code) == value
        assert "\u202e" not in code
        assert len(literal(text).splitlines()) == 1
