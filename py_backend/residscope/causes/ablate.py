"""`ablate`: the change of the target if components are replaced in the run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, get_args

from residscope.cache.component_names import parse
from residscope.cache.positions import Positions
from residscope.cache.view import CacheView
from residscope.causes.ablation import Ablation
from residscope.causes.direct import DirectPaths
from residscope.causes.edges import EdgePatch, EdgeSweep, destinations, edges_of, missing_notes
from residscope.causes.measurement import Measurement, chosen_positions
from residscope.causes.path import ends, words
from residscope.causes.path_sweep import PathSweep
from residscope.causes.replacement import Replacement, replacement
from residscope.causes.sweep import Patch, Sweep
from residscope.causes.unchanged import changed_in, only_where, unchanged_notes
from residscope.causes.user_state import keeping_user_state
from residscope.errors import ResidscopeError
from residscope.session.change_notes import seen, steadily
from residscope.terms import (
    Answers,
    CacheLike,
    Component,
    Heads,
    MaskLike,
    ModelLike,
    NormConvention,
    PositionsLike,
    ReplacementLike,
)

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor

    from residscope.causes.sites import Site

Ablated = Literal["z", "attn_out", "mlp_out"]
"""What is replaced: the output of heads, or of whole sublayers."""


def ablate(
    cache: CacheLike,
    answers: Answers,
    heads: Heads = None,
    *,
    path: object = None,
    edges: object = None,
    replace: ReplacementLike = "zero",
    positions: PositionsLike = "all",
    of: Ablated = "z",
    layers: int | Sequence[int] | None = None,
    position: Positions = "last",
    together: bool = False,
    norm: NormConvention | None = None,
    tokens: Int[Tensor, "batch pos"] | None = None,
    attention_mask: MaskLike = None,
    model: ModelLike = None,
    progress: bool = True,
) -> Ablation:
    """Run the model with components replaced, and measure by how much the target changes.

    The model is run on the cache's own tokens. First it is run unchanged. If this run's activations or target differ
    from the cached ones, nothing is measured. Then each component is replaced in a run of its own. Where possible, the
    blocks before the replaced component are not run again. The model, its hooks, the cache, the grad mode and random
    generators are not changed. The user's own hooks on the model act in each run, as usual.

    Args:
        cache: An `ActivationCache`.
        answers: A token, a pair `(answer, distractor)`, or a direction, as in `attribute`. A target inside the model is
            refused.
        heads: Heads such as `["9.9", "L9H6", (10, 7)]`. None: all heads.
        path: The end of a path, for path patching. The component's change then reaches this end only along the direct
            path. `"L23H3.q"`: the query of head L23H3 (`.k`: its key, `.v`: its value). A list names several ends:
            `["L23H3.q", "L25H1.v"]`. All other heads and all MLPs between component and end are held at their cached
            values. Everything after the receiving head runs as usual. `"logits"`: nothing between component and logits
            changes. Heads that do not come before the end have the effect NaN. Sublayers that do not come before the
            end are left out. If `heads=` or `layers=` names such a component, an error is raised. Only `.total` is
            measured.
        edges: Attention edges of `heads` that are taken out, each in a run of its own. An edge is a pair (destination,
            source): `[(14, 10), ("last", 0)]`. `("last", "each")` means every source of each prompt's last real token.
            The edge's entry of the head's pattern becomes 0. The other entries are not renormalised. A prompt in which
            the destination or the source is padding does not have the edge, and has no effect (NaN).
        replace: What takes the place of the activations. `"zero"`: zeros. `"mean"`: at each position, the mean over the
            cache's prompts, without padding. Another cache: its activations in the same prompt at the same position.
            `(cache, 2)`: the activations of that cache's prompt 2, for all prompts. Token ids `[batch, pos]` (or
            `[pos]`, for all prompts): the activations of a run on these tokens.
        positions: Where activations are replaced: `"all"`, `"last"` (each prompt's last real token), or positions, the
            same for all prompts. Padding is never replaced. A prompt in which all of them are padding has no effect
            (NaN).
        of: `"z"`: the outputs of heads. `"attn_out"`, `"mlp_out"`: the outputs of whole sublayers.
        layers: The layers for `"attn_out"` and `"mlp_out"`. None: all.
        position: Where the target is read, as in `attribute`, but not `"all"`. A prompt in which it is padding has no
            effect (NaN).
        together: Whether all components are replaced at once, in one run.
        norm: The scale of the final norm, for the direct effect. `"frozen"` (the default): the cached scale. With
            `replace="zero"` the direct effect is then minus the component's row in `attribute`. `"recomputed"`: the
            scale of the changed stream. Runs always recompute the scale, and so does `path="logits"` unless
            `norm="frozen"` is given.
        tokens: Token ids, if the cache does not hold them.
        attention_mask: 1 for each real token, 0 for padding, `[batch, pos]`. By default padding is detected. The model
            is run with and without the mask, and the run that equals the cached run is used.
        model: The model, if `cache.model` was deleted.
        progress: Whether to show a progress bar (tqdm) if the runs take more than a second.

    Returns:
        The effects, in the target's unit. The axes of `.total`, `.direct` and `.indirect` are `[layer, head, batch]`.
        With `heads=` they are `[head, batch]`, with `edges=` `[head, edge, batch]`, with `together=True` `[batch]`. For
        sublayers they are `[layer, batch]`.

    Raises:
        ResidscopeError: If an argument is wrong, or the run cannot be repeated. The message then names reasons, such as
            changed weights, hooks, dropout, padding, precision or missing token ids. Any exception that ends the runs
            early, also a KeyboardInterrupt, has an attribute `.partial`: the effects measured so far, and NaN for all
            others.

    Source: Zero, mean and resample ablation, and total = direct + indirect effect: Wang et al., "Interpretability in
    the Wild" (2022); McGrath et al., "The Hydra Effect" (2023). Path patching: Wang et al., but here the MLPs between
    component and end are held, too.
    """
    if of not in get_args(Ablated):
        raise ResidscopeError("of", f'`of="{of}"` is not known: use "z" (heads), "attn_out" or "mlp_out".')
    if norm is not None and norm not in get_args(NormConvention):
        raise ResidscopeError("norm", f'`norm="{norm}"` is not known: use "frozen" or "recomputed".')
    if heads is not None and of != "z":
        raise ResidscopeError("heads", f'`heads=` is only for heads (`of="z"`); for `of="{of}"` give `layers=`.')
    if layers is not None and of == "z":
        raise ResidscopeError("layers", '`layers=` is for `of="attn_out"` and `of="mlp_out"`; for heads give `heads=`.')
    if path is not None and norm is not None and path not in ("logits", ["logits"]):
        raise ResidscopeError("norm", "`norm=` has no meaning for this `path=`: all norms are recomputed in the runs.")
    if edges is not None:
        _check_edges(heads, of, replace, positions, path)
    tracked = seen(cache, model)

    def work() -> Ablation:
        view = CacheView(cache, model=model, tokens=tokens, seen=tracked, attention_mask=attention_mask)

        def measured() -> Ablation:
            where, whole = chosen_positions(view, positions), heads is None and of == "z"
            is_plain = path is None and edges is None
            measurement = Measurement.of(view, answers, position, changed_at=where if is_plain else None)
            patches = _patches(measurement, of, heads, layers)
            if edges is not None:
                return _measure(*_edge_sweep(measurement, patches, edges, norm), together=together, shown=progress)
            sites = {patch.layer: _site(measurement, of, patch.layer) for patch in patches}
            by = replacement(measurement.replay, replace, list(sites.values())).until(measurement.where)
            if path is None:
                sweep = Sweep(measurement, of, by, where, DirectPaths(measurement, of, norm or "frozen"))
            else:
                frozen = DirectPaths(measurement, of, "frozen") if norm == "frozen" else None
                sweep = PathSweep(measurement, of, by, where, frozen, ends(view, path))
                patches = _before(sweep, patches, named=heads is not None or layers is not None)
            return _measure(sweep, patches, whole=whole, together=together, shown=progress)

        return keeping_user_state(view.model, view.stream.device, measured)

    return steadily(cache, model, tracked, work)


def _check_edges(heads: object, of: Ablated, replace: object, positions: object, path: object) -> None:
    if heads is None or of != "z":
        raise ResidscopeError("edges", '`edges=` are edges of heads: name the heads, such as `heads=["L23H3"]`.')
    if path is not None:
        raise ResidscopeError("edges", "`edges=` and `path=` cannot be combined: measure one after the other.")
    if not (isinstance(replace, str) and replace == "zero" and isinstance(positions, str) and positions == "all"):
        raise ResidscopeError(
            "edges", "An edge is taken out (its attention becomes 0) at its destination: leave out `replace=` and "
            "`positions=`."
        )  # fmt: skip


def _edge_sweep(
    measurement: Measurement, heads: list[Patch], given: object, norm: NormConvention | None
) -> tuple[EdgeSweep, list[Patch]]:
    """The sweep of all edges of all heads, head by head."""
    edges = edges_of(measurement.view, given)
    none = Replacement("zero attention", lambda site: measurement.view.like.new_zeros(1, 1, *site.inner))
    direct = DirectPaths(measurement, "z", norm or "frozen")
    sweep = EdgeSweep(measurement, "z", none, destinations(measurement.view, edges), direct)
    return sweep, [EdgePatch(patch.layer, patch.head, edge=edge) for patch in heads for edge in edges]


def _before(sweep: PathSweep, patches: list[Patch], *, named: bool) -> list[Patch]:
    """The patches of components that come before a receiver.

    Raises:
        ResidscopeError: If there is none, or a component that the user named does not come before a receiver.
    """
    kept = [patch for patch in patches if sweep.sends(patch.layer)]
    if not kept or (named and len(kept) < len(patches)):
        late = next(patch for patch in patches if not sweep.sends(patch.layer))
        raise ResidscopeError(
            "path",
            f"There is no path from {_named(late)} to {words(sweep.ends)}: a head reads only what components of "
            "earlier layers write.",
        )
    return kept


def _named(patch: Patch) -> str:
    return f"layer {patch.layer}" if patch.head is None else f"L{patch.layer}H{patch.head}"


def _patches(measurement: Measurement, of: Ablated, heads: Any, layers: int | Sequence[int] | None) -> list[Patch]:
    view, known = measurement.view, measurement.layers(of)
    if of != "z":
        if layers is None:
            return [Patch(layer) for layer in known]
        wanted = [layers] if isinstance(layers, int) or not hasattr(layers, "__iter__") else list(layers)
        if not wanted:
            raise ResidscopeError("layers", "`layers=` names no layer.")
        return _once([Patch(_site(measurement, of, view.check_layer(layer)).layer) for layer in wanted], "layers")
    if heads is None:
        return [Patch(layer, head) for layer in known for head in range(_site(measurement, of, layer).inner[0])]
    listed = [heads] if isinstance(heads, str) or _is_pair(heads) or not hasattr(heads, "__iter__") else list(heads)
    patches = [Patch(*parse(head)) for head in listed]
    if not patches:
        raise ResidscopeError("heads", "`heads=` names no head.")
    for patch in patches:
        assert patch.head is not None
        view.check_head(patch.layer, patch.head)
        if patch.head >= _site(measurement, of, patch.layer).inner[0]:
            raise ResidscopeError("head", f"Layer {patch.layer} has no head {patch.head}.")
    return _once(patches, "heads")


def _once(patches: list[Patch], name: str) -> list[Patch]:
    """Refuse a component that is named twice: two rows would have the same label."""
    twice = next((patch for at, patch in enumerate(patches) if patch in patches[:at]), None)
    if twice is not None:
        raise ResidscopeError(name, f"`{name}=` names {_named(twice)} twice.")
    return patches


def _is_pair(heads: object) -> bool:
    return isinstance(heads, tuple) and len(heads) == 2 and all(isinstance(part, int) for part in heads)


def _site(measurement: Measurement, of: Ablated, layer: int) -> Site:
    site = measurement.site(of, layer)
    if site is None:
        raise ResidscopeError(
            "layer", f"Layer {layer} has no `{'attn.hook_z' if of == 'z' else f'hook_{of}'}` that could be replaced."
        )
    return site


def _measure(sweep: Sweep, patches: list[Patch], *, whole: bool = False, together: bool, shown: bool) -> Ablation:
    of, view = sweep.measurement, sweep.measurement.view
    taken = list(dict.fromkeys(patch.edge for patch in patches if isinstance(patch, EdgePatch) and patch.edge))
    edges = [edge.label for edge in taken]

    def result(total: Tensor, direct: Tensor) -> Ablation:
        kind = "head" if sweep.kind == "z" else sweep.kind
        named = patches[:: len(edges) or 1]
        components = [Component(kind, patch.layer, patch.head) for patch in named]  # pyright: ignore[reportArgumentType]
        axes: tuple[str, ...] = ("batch",) if together else ("head" if sweep.kind == "z" else "layer", "batch")
        if edges and not together:
            total, direct = (values.reshape(len(named), len(edges), -1) for values in (total, direct))
            axes = ("head", "edge", "batch")
        if whole and not together:
            total, direct = (_grid(values, patches, view) for values in (total, direct))
            components = [
                Component("head", layer, head) for layer in range(view.n_layers) for head in range(view.n_heads)
            ]
            axes = ("layer", "head", "batch")
        changed = changed_in([Patch(0)], sweep.where, sweep.replacement)[0]
        total, direct = (only_where(changed, values) for values in (total, direct))
        notes = of.notes + sweep.replacement.notes + (sweep.direct.notes if sweep.direct is not None else [])
        if edges:
            notes += missing_notes(taken, together=together)
        else:
            notes += unchanged_notes(sweep.where, sweep.replacement)
        path = ""
        if isinstance(sweep, PathSweep):
            notes, path = notes + sweep.notes, words(sweep.ends)
        if sweep.runner.why_whole:
            notes.append(f"Each run was a run of the whole model, because {sweep.runner.why_whole}.")
        return Ablation(
            total,
            direct,
            total - direct,
            of.before,
            components,
            axes,
            sweep.replacement.words,
            of.replayed,
            list(dict.fromkeys(notes)),
            of.target,
            view.model_name,
            path,
            edges,
        )

    if together:
        return result(*sweep.together(patches))
    try:
        return result(*sweep.each(patches, shown=shown, name="ablate"))
    except BaseException as error:
        with suppress(Exception):
            error.partial = result(*error.effects)  # pyright: ignore[reportAttributeAccessIssue]
        raise


def _grid(values: Tensor, patches: list[Patch], view: CacheView) -> Tensor:
    """The values of heads as `[layer, head, batch]`. NaN for heads that have no patch."""
    grid = values.new_full((view.n_layers, view.n_heads, view.batch), float("nan"))
    for row, patch in enumerate(patches):
        assert patch.head is not None
        grid[patch.layer, patch.head] = values[row]
    return grid
