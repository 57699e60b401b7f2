"""The components of rows and their labels, in results, in messages, and as users write them."""

import json
import pickle
from pathlib import Path

import msgspec
import pytest

import residscope
from residscope.cache.component_names import parse, parse_point
from residscope.errors import ResidscopeError
from residscope.serving.service import Service
from residscope.terms import By, Component, ComponentKind, ComponentTable
from residscope.wire.caches import Describe
from residscope.wire.decompositions import Attribute
from tests.support import saes, tiny

CASES = json.loads((Path(__file__).parents[1] / "texts" / "components.json").read_text())
ROWS = [Component(*place) for place, _, _ in CASES]


@pytest.mark.parametrize(("place", "label", "_"), CASES)
def test_a_component_has_the_label_of_the_views(place, label, _):
    assert Component(*place).label == label
    assert Component(*place).is_whole


def test_the_examples_have_every_kind():
    assert {row.kind for row in ROWS} == set(ComponentKind.__args__)


@pytest.mark.parametrize("place", [("head", 1), ("head", None, 1), ("embed", 0), ("embed", None, 0), ("source", 1, 1)])
def test_a_component_needs_the_layer_and_index_of_its_kind(place):
    assert not Component(*place).is_whole


def test_components_can_be_read_from_their_table():
    table = ComponentTable.of(iter(ROWS))
    assert table.components() == ROWS
    assert msgspec.json.decode(msgspec.json.encode(table), type=ComponentTable) == table
    assert pickle.loads(pickle.dumps(ROWS)) == ROWS
    assert ComponentTable.of([]).components() == [] == ComponentTable.empty().components()


def test_a_table_of_many_rows_is_hardly_larger_than_their_labels():
    heads = [Component("head", layer, head) for layer in range(48) for head in range(25)]
    named = msgspec.json.encode([head.label for head in heads])
    assert len(msgspec.json.encode(ComponentTable.of(heads))) < 1.05 * len(named)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("kinds", ["colour"]),
        ("kind", [-1]),
        ("layer", [-1]),
        ("index", [0.5]),
        ("index", ["0"]),
    ],
)
def test_a_wrong_table_is_refused(column, value):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(msgspec.to_builtins(ComponentTable.of(ROWS)) | {column: value}, ComponentTable)


@pytest.mark.parametrize(
    ("written", "place"),
    [("L23H3", (23, 3)), ("23.3", (23, 3)), ("23H3", (23, 3)), (" L2H3 ", (2, 3)), ((2, 3), (2, 3))],
)
def test_a_head_is_read_in_each_way_of_writing_it(written, place):
    assert parse(written) == place
    assert parse(Component("head", *place).label) == place


@pytest.mark.parametrize("point", [row for row in ROWS if row.kind in ("pre", "mid", "final_post")])
def test_a_point_is_read_by_its_name(point):
    assert parse_point(point.label) == point


@pytest.mark.parametrize("name", ["3_post", "pre", "3_", "_pre", "x3_pre", "3_pre ", "embed", "L3H3", None, 3])
def test_a_wrong_name_of_a_point_is_refused(name):
    with pytest.raises(ResidscopeError, match="There is no point"):
        parse_point(name)


@pytest.fixture(scope="module")
def cache():
    return tiny.run(tiny.boot("llama"))[2]


@pytest.mark.parametrize("by", By.__args__)
def test_every_decomposition_names_the_components_of_its_rows(cache, by):
    sae = saes.TopK(24, hook_name="blocks.1.hook_mlp_out")
    more = {"source": {"heads": ["L1H2"]}, "feature": {"sae": sae}}.get(by, {})
    found = residscope.attribute(cache, (5, 6), by=by, **more)
    assert [row.label for row in found.components] == found.labels
    assert len(set(found.components)) == len(found.components) == len(found.values)
    assert all(row.is_whole for row in found.components)
    kinds = {"head": "head", "neuron": "neuron"}
    if by in kinds:
        assert {row.kind for row in found.components[: found.parts]} == {kinds[by]}
    own = found.components
    own.clear()  # a user's change of this list has no effect
    assert residscope.attribute(cache, (5, 6), by=by, **more).labels == found.labels


@pytest.mark.parametrize("by", ["layer", "head", "accumulated"])
def test_replies_name_the_components_of_their_rows(cache, by):
    service = Service(cache)
    found = residscope.attribute(cache, (5, 6), by=by)
    reply, _ = service.reply(Attribute(by, service.targets().resolve((5, 6))))
    assert reply.components.components() == found.components
    if by == "accumulated":
        assert service.reply(Describe())[0].points.components() == found.components
