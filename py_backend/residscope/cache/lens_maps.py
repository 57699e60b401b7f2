"""Maps of the residual stream to its end, for the logit lens: tuned lens, Jacobian lens, or your own.

A tuned lens (Belrose et al. 2023) reads h + A h + b in place of the stream h before a layer: its translators are
*added*. A Jacobian lens (Gurnee et al. 2026) reads J h in place of the stream h after a layer. In both, the result is
then read as the logit lens reads the end of the stream. Matrices alone do not show whether they are added to the
stream, or to which points they belong. So both are options, and a note says what was used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from residscope.cache.finite import check_finite
from residscope.cache.positions import last
from residscope.cache.view import CacheView
from residscope.cache.weights import unusable
from residscope.compute.memo import NoKeyError, key_of, unique_id
from residscope.compute.precision import working
from residscope.errors import ResidscopeError
from residscope.terms import Component

if TYPE_CHECKING:
    from collections.abc import Hashable

    from jaxtyping import Float
    from torch import Tensor

_END = Component("final_post")


@dataclass(frozen=True, eq=False)
class LensMaps:
    """Maps of the residual stream to its end, with their convention, as `lens=` takes them.

    A plain list as `lens=` means `LensMaps(list)`.

    Attributes:
        maps: One map for each layer: a list, a tensor `[layer, d_model, d_model]`, a `TunedLens` of the package
            tuned-lens, or a dictionary from layers to maps. Layers that are not in the dictionary are left out. A map
            is a matrix A `[d_model, d_model]`, a pair `(A, b)` with b `[d_model]`, a `torch.nn.Linear`, or another
            object with `.weight` and `.bias`. The rows of A are the output, as in `torch.nn.Linear`. None leaves the
            stream as it is.
        at: `"pre"`: map i is for the stream before layer i, as in tuned-lens. With n_layers maps, the end of the stream
            stays as it is. With n_layers + 1 maps, the last one is for the end of the stream. `"post"`: map i is for
            the stream after layer i, as in a Jacobian lens, and the stream before layer 0 is left out. With n_layers
            maps, the last one is for the end of the stream. With n_layers - 1 maps, the end stays as it is.
        adds: Whether a map is added to the stream (h + A h + b, as in tuned-lens) or replaces it (A h + b). By default
            objects with `.weight` are added, and matrices and pairs replace the stream.
        name: A name for messages and views, such as `"tuned lens"`.
    """

    maps: Any
    at: Literal["pre", "post"] = "pre"
    adds: bool | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.maps, Iterator):  # it could be read only once
            object.__setattr__(self, "maps", tuple(self.maps))  # pyright: ignore[reportUnknownArgumentType]

    @classmethod
    def of(cls, given: Any) -> LensMaps | None:
        """Return the maps for a value given as `lens=`. None stays None."""
        if given is None or isinstance(given, LensMaps):
            return given
        return cls(given)

    @property
    def key_parts(self) -> tuple[Any, ...]:
        """What the result depends on, for keys of memoised results."""
        if getattr(self.maps, "ndim", None) == 3:  # its slices would be new objects each time
            return self.at, self.adds, self.name, self.maps
        places, items = self._items()
        parts = tuple((None, None) if item is None else _parts(item)[:2] for item in items)
        kinds = tuple(unique_id(type(item)) for item in items)  # a module of another class may be refused
        return self.at, self.adds, self.name, kinds, places, parts

    def on(self, view: CacheView) -> StreamMaps:
        """Return the maps for the points of a cache's stream.

        Raises:
            ResidscopeError: If the maps do not fit this cache.
        """
        if self.at not in ("pre", "post"):
            raise ResidscopeError("lens", f'`at="{self.at}"` is not known: use "pre" or "post".')
        places, items = self._items()
        layers = view.n_layers
        if places is None:
            wanted = (layers, layers + 1) if self.at == "pre" else (layers, layers - 1)
            if len(items) not in wanted:
                raise ResidscopeError("lens", _wrong_count(len(items), layers, self.at))
            places = tuple(range(len(items)))
        outside = [place for place in places if not 0 <= place < layers + (self.at == "pre")]
        if outside:
            newest = layers - (self.at == "post")
            raise ResidscopeError(
                "lens",
                f'`lens=` has a map for layer {outside[0]}, but with `at="{self.at}"` this model takes layers 0 to '
                f"{newest}.",
            )
        kinds = {_adds(item) for item in items if item is not None}
        if self.adds is None and len(kinds) > 1:
            raise ResidscopeError(
                "lens",
                "`lens=` has both matrices and objects with `.weight`. Matrices replace the stream (A h + b), and "
                "objects are added to it (h + A h + b), unless you say which is meant for all: "
                "`residscope.LensMaps(maps, adds=True)`.",
            )
        adds = self.adds if self.adds is not None else True in kinds
        found: dict[Component, StreamMap | None] = {}
        for place, item in zip(places, items, strict=True):
            index = place + (self.at == "post")
            point = Component("pre", index) if index < layers else _END
            found[point] = None if item is None else _checked(view, f"lens[{place}]", item)
        found.setdefault(_END, None)
        ordered = {point: found[point] for point in sorted(found, key=lambda point: _order(point, layers))}
        try:
            key = key_of(self)
        except NoKeyError:
            key = uuid4().hex
        return StreamMaps(view, ordered, adds, self.name, key)

    def _items(self) -> tuple[tuple[int, ...] | None, list[Any]]:
        """The layers that the maps are for (None: in order), and the maps."""
        maps = self.maps
        translators = getattr(maps, "layer_translators", None)
        maps = maps if translators is None else translators
        if isinstance(maps, Mapping):
            for place in maps:  # pyright: ignore[reportUnknownVariableType]
                if isinstance(place, bool) or not isinstance(place, int):
                    raise ResidscopeError("lens", f"`lens=` has the key {place!r}, which is not the index of a layer.")
            return tuple(maps), list(maps.values())  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        single = isinstance(maps, str) or (hasattr(maps, "ndim") and maps.ndim != 3) or _has_weight(maps)
        if single or not isinstance(maps, Iterable):
            raise ResidscopeError(
                "lens",
                f"`lens=` takes one map for each layer, such as a list of matrices [d_model, d_model], but was given "
                f"{_kind(maps)}.",
            )
        return None, list(maps)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


@dataclass(frozen=True)
class StreamMap:
    """One map: its matrix, and its bias if it has one. `label` names it in messages."""

    label: str
    weight: Float[Tensor, "d_model d_model"]
    bias: Float[Tensor, " d_model"] | None

    def __call__(self, rows: Float[Tensor, "*row d_model"], *, adds: bool) -> Float[Tensor, "*row d_model"]:
        """Return A h + b for each row h, or h + A h + b."""
        mapped = rows @ self.weight.to(rows).T
        mapped = mapped if self.bias is None else mapped + self.bias.to(rows)
        return rows + mapped if adds else mapped


@dataclass(frozen=True, eq=False)
class StreamMaps:
    """The maps for the points of one cache's stream.

    Attributes:
        view: The cache.
        maps: The map of each point, in the order of the stream. None: the stream is read unchanged. A point that is
            not in `maps` cannot be read.
        adds: Whether maps are added to the stream.
        name: The name of these maps. May be empty.
        key: Stands for these maps in keys of memoised results.
    """

    view: CacheView
    maps: dict[Component, StreamMap | None]
    adds: bool
    name: str
    key: Hashable

    def is_mapped(self, point: Component) -> bool:
        """Return whether a map is applied at this point."""
        return self.maps.get(point) is not None

    def __call__(self, point: Component, rows: Float[Tensor, "*row d_model"]) -> Float[Tensor, "*row d_model"]:
        """Return the stream at a point, mapped to the end of the stream.

        Raises:
            ResidscopeError: If the point is not in `maps`, or the result is not finite.
        """
        if point not in self.maps:
            raise ResidscopeError(
                "lens",
                f"`lens=` has no map for the point `{point.label}`. With this lens only {self._points()} can be read. "
                "Ask for other points, or leave `lens=` out.",
            )
        found = self.maps[point]
        if found is None:
            return rows
        mapped = found(rows, adds=self.adds)
        if not bool(mapped.isfinite().all()):
            check_finite(self.view, rows)
            raise ResidscopeError(
                "lens", f"`{found.label}` holds NaN or infinity (or its product with the stream overflows)."
            )
        return mapped

    def _points(self) -> str:
        """The first points that can be read, in words."""
        known = [f"`{point.label}`" for point in self.maps]
        return ", ".join(known[:3]) + (f" and {len(known) - 3} others" if len(known) > 3 else "")

    @property
    def formula(self) -> str:
        """What is read in place of the stream h: `A h`, or `h + A h + b`."""
        bias = any(one is not None and one.bias is not None for one in self.maps.values())
        return f"{'h + ' if self.adds else ''}A h{' + b' if bias else ''}"

    def notes(self) -> list[str]:
        """Return a note on what is shown, and notes on what may be wrong with the maps or the model."""
        name = f" ({self.name})" if self.name else ""
        shown = (
            f"Transported: `lens=`{name} gives {self.formula}, which is read in place of the stream h at each point "
            "that has a map."
        )
        mapped = [] if self.maps.get(_END) is None else [_END_MAPPED]
        return [shown, *mapped, *self._centred(), *self._odd_convention()]

    def _centred(self) -> list[str]:
        """A note if the model's weights were processed so that the mean of the stream is 0."""
        import torch

        name = self.view.root.before(self.view.n_layers - 1)
        if not any(self.maps.values()) or not self.view.root.has(name):
            return []
        where = torch.tensor(last(self.view.root), device="cpu")
        rows = working(self.view.root.rows(name, where)[:_PROMPTS, 0])
        is_centred = float(rows.mean(-1).abs().max()) < 1e-4 * float(rows.pow(2).mean().sqrt())
        return [_CENTRED] if is_centred else []

    def _odd_convention(self) -> list[str]:
        """A note if the result is much nearer to the end of the stream with the opposite value of `adds`.

        Near the end, every lens must nearly give the end of the stream. So only the last few maps are compared, at the
        last tokens of some prompts.
        """
        import torch

        view = self.view.root
        end = f"blocks.{view.n_layers - 1}.hook_resid_post"
        points = [point for point, one in self.maps.items() if one is not None and point != _END][-_COMPARED:]
        points = [point for point in points if point.layer is not None and view.has(view.before(point.layer))]
        if not points or not view.has(end):
            return []
        where = torch.tensor(last(view), device="cpu")
        final = view.rows(end, where)[:_PROMPTS, 0]
        gaps: list[tuple[float, float]] = []
        for point in points:
            assert point.layer is not None
            rows, one = view.rows(view.before(point.layer), where)[:_PROMPTS, 0], self.maps[point]
            assert one is not None
            used, other = (float((one(rows, adds=adds) - final).norm()) for adds in (self.adds, not self.adds))
            gaps.append((used, other))
        length = float(final.norm())
        if length == 0 or not all(other < used / 3 for used, other in gaps):
            return []
        used, other = (sum(part) / len(gaps) / length for part in zip(*gaps, strict=True))
        return [
            f"Is this the right convention? With {self.formula}, the last maps differ from the end of the stream by "
            f"{used:.2g} of its length. With {'A h' if self.adds else 'h + A h'}"
            f"{' + b' if '+ b' in self.formula else ''} they differ by only {other:.2g}. If you mean this: "
            f"`residscope.LensMaps(maps, adds={not self.adds})`."
        ]


_COMPARED = 3
"""At most this many maps are compared with the end of the stream."""

_PROMPTS = 16
"""Notes are based on the last tokens of at most this many prompts."""

_CENTRED = (
    "The stream of this model has the mean 0, because its weights were processed (`center_writing_weights`). Maps that "
    "were fitted on the unprocessed model read another stream: use the model without processing."
)

_END_MAPPED = "The end of the stream has a map, too, so the last point is not the model's own value."


def _order(point: Component, layers: int) -> int:
    return layers if point.layer is None else point.layer


def _has_weight(item: Any) -> bool:
    return not hasattr(item, "ndim") and hasattr(item, "weight")


def _adds(item: Any) -> bool | None:
    """Whether a map of this form is added by default. None for no map."""
    return None if item is None else _has_weight(item)


def _parts(item: Any) -> tuple[Any, Any]:
    """The matrix and the bias of a map."""
    if _has_weight(item):
        return item.weight, getattr(item, "bias", None)
    if isinstance(item, tuple | list):
        pair: list[Any] = list(item)  # pyright: ignore[reportUnknownArgumentType]
        return (pair[0], pair[1]) if len(pair) == 2 else (item, None)
    return item, None


def _checked(view: CacheView, label: str, item: Any) -> StreamMap:
    """The map for an item of the list."""
    import torch

    if isinstance(item, torch.nn.Module) and type(item).forward is not torch.nn.Linear.forward:
        raise ResidscopeError(
            "lens",
            f"`{label}` is {_kind(item)}, which may compute more than A h + b: give a `torch.nn.Linear`, a matrix, or "
            "a pair `(A, b)`.",
        )
    width = int(view.cfg.d_model)
    weight, bias = _parts(item)
    weight = _part(view, f"matrix of `{label}`", weight, (width, width))
    return StreamMap(label, weight, None if bias is None else _part(view, f"bias of `{label}`", bias, (width,)))


def _part(view: CacheView, what: str, value: Any, shape: tuple[int, ...]) -> Tensor:
    """The matrix or the bias of a map."""
    import torch

    if type(value).__module__ == "numpy" and hasattr(value, "ctypes"):
        value = torch.from_numpy(value)
    if (why := unusable(value)) is not None:
        raise ResidscopeError("lens", f"The {what} cannot be used: it {why}.")
    if tuple(value.shape) != shape:
        raise ResidscopeError(
            "lens", f"The {what} has the shape {list(value.shape)}, but this model needs {list(shape)}."
        )
    if value.device != view.like.device:
        raise ResidscopeError(
            "lens", f"The {what} is on {value.device}, but the cache is on {view.like.device}: move one of them."
        )
    return value.detach()


def _wrong_count(count: int, layers: int, at: str) -> str:
    meant = (
        f"{layers} (one for the stream before each layer) or {layers + 1} (also for the end of the stream)"
        if at == "pre"
        else f"{layers} (one for the stream after each layer) or {layers - 1} (without the last layer)"
    )
    return (
        f'`lens=` has {count} map{"" if count == 1 else "s"}, but with `at="{at}"` this model needs {meant}. For some '
        "layers only, give a dictionary from layers to maps."
    )


def _kind(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return f"`{type(value).__name__}`" + ("" if shape is None else f" of shape {list(shape)}")
