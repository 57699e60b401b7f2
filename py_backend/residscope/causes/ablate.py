"""`ablate`: what happens to the target if components are taken out of the run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, get_args

from residscope.cache.component_names import parse
from residscope.cache.positions import Positions
from residscope.cache.view import CacheView
from residscope.causes.ablation import Ablation
from residscope.causes.direct import DirectPaths
from residscope.causes.measurement import Measurement, chosen_positions
from residscope.causes.replacement import replacement
from residscope.causes.sweep import Patch, Sweep
from residscope.causes.user_state import keeping_user_state
from residscope.errors import ResidscopeError
from residscope.session.change_notes import seen, steadily
from residscope.terms import Component, NormConvention

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor

    from residscope.causes.sites import Site

Ablated = Literal["z", "attn_out", "mlp_out"]
"""What is taken out: the output of heads, or of whole sublayers."""


def ablate(
    cache: Any,
    answers: Any,
    heads: Any = None,
    *,
    replace: Any = "zero",
    positions: Any = "all",
    of: Ablated = "z",
    layers: int | Sequence[int] | None = None,
    position: Positions = "last",
    together: bool = False,
    norm: NormConvention = "frozen",
    tokens: Int[Tensor, "batch pos"] | None = None,
    attention_mask: Any = None,
    model: Any = None,
    progress: bool = True,
) -> Ablation:
    """Run the model with components replaced, and measure by how much the target changes.

    The model is run on the cache's own tokens. First it is run unchanged: this must give the cached activations and the
    cached target, or nothing is measured. Then each component is replaced by itself, in a run of its own. Blocks before
    the replaced one are not run again. The model, its hooks, the cache, the grad mode and random generators are left as
    they were; the user's own hooks on the model run in each run, as in any other.

    Args:
        cache: An `ActivationCache`.
        answers: A token, a pair `(answer, distractor)`, or a direction, as in `attribute`. Not a target inside the
            model.
        heads: Heads such as `["9.9", "L9H6", (10, 7)]`; None: all heads.
        replace: What takes the place of the activations. `"zero"`. `"mean"`: at each position the mean over the prompts
            of the cache, padding left out. Another cache: its activations in the same prompt and at the same position;
            `(cache, 2)`: those of its prompt 2, in all prompts.
            Token ids `[batch, pos]` (or `[pos]`, for all prompts): those of a run on these tokens.
        positions: Where activations are replaced: `"all"`, `"last"` (each prompt's last real token), or positions that
            all prompts share. Padding is never replaced.
        of: `"z"`: the outputs of heads. `"attn_out"`, `"mlp_out"`: the outputs of whole sublayers, of `layers`.
        layers: The layers for `"attn_out"` and `"mlp_out"`; None: all.
        position: Where the target is read, as in `attribute`, but not `"all"`.
        together: Whether all components are replaced at once, in one run.
        norm: For the direct effect: the scale of the final norm `"frozen"` at its cached value (minus today's row of
            `attribute`), or `"recomputed"`. In runs the norm is always recomputed.
        tokens: Token ids, if the cache does not hold them.
        attention_mask: 1 for each real token, 0 for padding, `[batch, pos]`. By default the padding is found from the
            tokens. The model is run with and without such a mask; what gives the cached run is used.
        model: The model, if `cache.model` no longer exists.
        progress: Whether to show a progress bar (tqdm) if it takes more than a second.

    Returns:
        The effects, in the target's units: `.total`, `.direct` and `.indirect` are `[layer, head, batch]`, with
        `heads=` `[head, batch]`, for sublayers `[layer, batch]`, with `together=True` `[batch]`.

    Raises:
        ResidscopeError: If the run cannot be repeated: the message names the reasons that can be shown (weights
            changed, hooks, dropout, padding, precision, no token ids). Or if an argument is wrong. An exception that
            ends the call early, also a KeyboardInterrupt, has what was measured as `.partial`; the rest of it is NaN.

    Source: Zero, mean and resample ablation, and total = direct + indirect effect: Wang et al., "Interpretability in
    the Wild" (2022); McGrath et al., "The Hydra Effect" (2023).
    """
    if of not in get_args(Ablated):
        raise ResidscopeError("of", f'`of="{of}"` is not known: use "z" (heads), "attn_out" or "mlp_out".')
    if norm not in get_args(NormConvention):
        raise ResidscopeError("norm", f'`norm="{norm}"` is not known: use "frozen" or "recomputed".')
    if heads is not None and of != "z":
        raise ResidscopeError("heads", f'`heads=` is only for heads (`of="z"`); for `of="{of}"` give `layers=`.')
    if layers is not None and of == "z":
        raise ResidscopeError("layers", '`layers=` is for `of="attn_out"` and `of="mlp_out"`; for heads give `heads=`.')
    tracked = seen(cache, model)

    def work() -> Ablation:
        view = CacheView(cache, model=model, tokens=tokens, seen=tracked, attention_mask=attention_mask)

        def measured() -> Ablation:
            measurement = Measurement.of(view, answers, position)
            patches = _patches(measurement, of, heads, layers)
            sites = {patch.layer: _site(measurement, of, patch.layer) for patch in patches}
            by = replacement(measurement.replay, replace, list(sites.values()))
            direct = DirectPaths(measurement, of, norm)
            sweep = Sweep(measurement, of, by, chosen_positions(view, positions), direct)
            return _measure(sweep, patches, whole=heads is None and of == "z", together=together, shown=progress)

        return keeping_user_state(view.model, view.stream.device, measured)

    return steadily(cache, model, tracked, work)


def _patches(measurement: Measurement, of: Ablated, heads: Any, layers: int | Sequence[int] | None) -> list[Patch]:
    """What is replaced in each run."""
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
    """Refuse what is named twice: there would be fewer rows than names."""
    twice = next((patch for at, patch in enumerate(patches) if patch in patches[:at]), None)
    if twice is not None:
        what = f"layer {twice.layer}" if twice.head is None else f"L{twice.layer}H{twice.head}"
        raise ResidscopeError(name, f"`{name}=` names {what} twice.")
    return patches


def _is_pair(heads: Any) -> bool:
    return isinstance(heads, tuple) and len(heads) == 2 and all(isinstance(part, int) for part in heads)


def _site(measurement: Measurement, of: Ablated, layer: int) -> Site:
    site = measurement.site(of, layer)
    if site is None:
        raise ResidscopeError(
            "layer", f"Layer {layer} has no `{'attn.hook_z' if of == 'z' else f'hook_{of}'}` that could be replaced."
        )
    return site


def _measure(sweep: Sweep, patches: list[Patch], *, whole: bool, together: bool, shown: bool) -> Ablation:
    of, view = sweep.measurement, sweep.measurement.view

    def result(total: Tensor, direct: Tensor) -> Ablation:
        kind = "head" if sweep.kind == "z" else sweep.kind
        components = [Component(kind, patch.layer, patch.head) for patch in patches]  # pyright: ignore[reportArgumentType]
        axes: tuple[str, ...] = ("batch",) if together else ("head" if sweep.kind == "z" else "layer", "batch")
        if whole and not together:
            total, direct = (_grid(values, patches, view) for values in (total, direct))
            components = [
                Component("head", layer, head) for layer in range(view.n_layers) for head in range(view.n_heads)
            ]
            axes = ("layer", "head", "batch")
        notes = of.notes + sweep.replacement.notes + (sweep.direct.notes if sweep.direct is not None else [])
        if sweep.runner.why_whole:
            notes.append(f"Each run was one of the whole model, because {sweep.runner.why_whole}.")
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
    """Values by head as `[layer, head, batch]`; NaN where a layer has no such head."""
    grid = values.new_full((view.n_layers, view.n_heads, view.batch), float("nan"))
    for row, patch in enumerate(patches):
        assert patch.head is not None
        grid[patch.layer, patch.head] = values[row]
    return grid
