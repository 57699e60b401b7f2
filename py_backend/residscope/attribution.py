"""The decompositions: what each part of the model writes into the target, in logits.

Σ rows + constant + unexplained = measured, for each prompt (for `"accumulated"` the last row stands for the sum);
`unexplained` is rounding where the rows cover all that the model does. Weights are projected onto the target's
direction first, so no tensor has a `d_model` axis per head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .cache import CacheView, Position
from .errors import ResidscopeError
from .protocol import By, Norm, Target
from .readout import Readout, final_vectors
from .targets import Targets

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Attribution:
    """One decomposition of a logit, a logit difference or a direction. All figures are logits.

    With `position=None` every tensor has one more axis at its end, the position.

    Attributes:
        values: `[component, batch]`, the worth of each row in each prompt.
        labels: The rows' names, TransformerLens' own: `L0H0`, `0_attn_bias`, `0_attn_out`, `0_mlp_out`, `0_pre`, …
        measured: `[batch]`, the model's own figure; NaN where the cache has nothing to read it from.
        constant: `[batch]`, what the final norm's bias and the unembedding's bias add.
        unexplained: `[batch]`, what is left over: measured − Σ rows − constant.
        by: The decomposition.
        measured_from: Where `measured` was read, in words.
        tolerance: Up to here `unexplained` is rounding, for this cache's precision.
        notes: What a reader of the figures should know.
        grid: `[layer, head, batch]`, the head rows as a map (only for `by="head"`).
    """

    values: Float[Tensor, "component batch"]
    labels: list[str]
    measured: Float[Tensor, " batch"]
    constant: Float[Tensor, " batch"]
    unexplained: Float[Tensor, " batch"]
    by: By
    measured_from: str
    tolerance: float
    notes: list[str] = field(default_factory=list)
    _grid: tuple[int, int] | None = None

    @property
    def grid(self) -> Float[Tensor, "layer head batch"]:
        """The head rows as `[layer, head, batch]`."""
        if self._grid is None:
            raise ResidscopeError("grid", f'Only `by="head"` has a grid; this is `by="{self.by}"`.')
        layers, heads = self._grid
        return self.values[: layers * heads].unflatten(0, (layers, heads))

    def mean(self) -> Float[Tensor, " component"]:
        """The rows averaged over prompts, in logits."""
        return self.values.mean(1)

    def std(self) -> Float[Tensor, " component"]:
        """How far the rows spread over prompts: the standard deviation, in logits (0 for a single prompt)."""
        return self.values.std(1, correction=1 if self.values.shape[1] > 1 else 0)

    def to_frame(self) -> Any:
        """A pandas table: the rows by label, a column per prompt (and per position, with `position=None`), in logits.

        Raises:
            ResidscopeError: If pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ResidscopeError("pandas", "A table needs pandas: `pip install pandas`.") from error
        values = self.values.cpu()
        if values.ndim == 2:
            columns: Any = pd.RangeIndex(values.shape[1], name="prompt")
        else:
            columns = pd.MultiIndex.from_product([range(n) for n in values.shape[1:]], names=["prompt", "position"])
        index = pd.Index(self.labels, name="component")
        return pd.DataFrame(values.flatten(1).numpy(), index=index, columns=columns)

    def top(self, k: int = 3) -> list[tuple[str, float]]:
        """The k most positive and the k most negative rows (mean over prompts and positions), strongest first.

        With `by="head"` only heads are ranked.
        """
        rows = self.values if self._grid is None else self.values[: self._grid[0] * self._grid[1]]
        means = rows.flatten(1).mean(1)
        k = max(k, 0)
        order = means.argsort(descending=True).tolist()
        best = [i for i in order[:k] if means[i] > 0]
        worst = [i for i in order[::-1][:k] if means[i] < 0]
        return [(self.labels[i], float(means[i])) for i in best + worst]

    def __repr__(self) -> str:
        """A summary a person can read."""
        rows = ", ".join(f"{label} {value:+.2f}" for label, value in self.top(2))
        shape = " × ".join(str(n) for n in self.values.shape)
        return (
            f'Attribution(by="{self.by}", {shape}; measured {float(self.measured.mean()):+.3f}, '
            f"constant {float(self.constant.mean()):+.3f}, unexplained {float(self.unexplained.mean()):+.1e}; {rows})"
        )


def attribute(
    cache: Any,
    answers: Any,
    *,
    by: By = "head",
    position: Position = "last",
    logits: Float[Tensor, "batch pos d_vocab"] | None = None,
    norm: Norm = "frozen",
    tokens: Int[Tensor, "batch pos"] | None = None,
    model: Any = None,
) -> Attribution:
    """Which parts of the model write the answer (direct logit attribution).

    The cache is taken as it is: a raw bridge, compatibility mode, LayerNorm or RMSNorm, folded or not. Neither the
    cache, nor the model, nor the grad mode is changed.

    Args:
        cache: An `ActivationCache`.
        answers: A token, a pair `(answer, distractor)`, a list of either (one per prompt), ids `[batch]` or
            `[batch, 2]`, or a direction `[d_model]` (see `targets.Targets.resolve`).
        by: `"head"`: every head, attention biases, MLPs, embeddings. `"layer"`: attention and MLP of each layer,
            embeddings. `"accumulated"`: the residual stream up to each point (the logit lens).
        position: `"last"` (each prompt's last real token), one position, one per prompt, or None for every position.
        logits: The model's output, where the cache does not hold it, to measure against.
        norm: For `"accumulated"`: the final norm's scale held `"frozen"` (the steps are the layer rows), or
            `"recomputed"` at each point (what the model would say if it stopped there).
        tokens: Token ids, where the cache does not hold them; used to tell padding.
        model: The model, where `cache.model` is gone.

    Returns:
        The decomposition; rows + constant + unexplained = measured, in logits.

    Raises:
        ResidscopeError: With a sentence that says what is wrong and what to do.

    Source: TransformerLens' `logit_attrs`, `decompose_resid`, `stack_head_results`, `accumulated_resid`, made exact for
    unfolded norms; the mathematics of "A Mathematical Framework for Transformer Circuits".
    """
    import torch

    with torch.no_grad():
        view = CacheView(cache, model=model, tokens=tokens)
        targets = Targets.of(view)
        return decompose(view, targets, targets.resolve(answers), by, view.positions(position), logits, norm)


def decompose(
    view: CacheView,
    targets: Targets,
    target: Target,
    by: By,
    positions: Int[Tensor, " batch"] | None,
    logits: Tensor | None = None,
    norm: Norm = "frozen",
) -> Attribution:
    """`attribute` for callers who hold the parts already (the service)."""
    import torch

    readout = Readout(view, positions, *targets.functional(target))
    rows = {"accumulated": _accumulated, "layer": _layers, "head": _heads}.get(by)
    if rows is None:
        raise ResidscopeError("by", f'`by="{by}"` is not known: use "accumulated", "layer" or "head".')
    if norm not in ("frozen", "recomputed"):
        raise ResidscopeError("norm", f'`norm="{norm}"` is not known: use "frozen" or "recomputed".')
    if norm == "recomputed" and by != "accumulated":
        raise ResidscopeError(
            "norm", f'`norm="recomputed"` is a convention of the logit lens (`by="accumulated"`); `by="{by}"` has none.'
        )
    recompute = norm == "recomputed"
    labels, values = rows(readout, readout.recomputed if recompute else readout.functional)
    constant = readout.functional.constant
    measured, source = _measure(readout, targets, target, logits)
    explained = (values[-1] if by == "accumulated" else values.sum(0)) + constant
    measured = None if measured is None else measured.to(explained.device)
    finite = values.isfinite().all() & explained.isfinite().all()
    if not bool(finite if measured is None else finite & measured.isfinite().all()):
        place = view.first_not_finite() or "its values overflow when they are summed"
        raise ResidscopeError(
            "not-finite", f"The cache holds NaN or infinity: {place}. Attributions of it would mean nothing."
        )
    if measured is None:
        measured = torch.full_like(explained, torch.nan)
    # Rounding errors of the rows are independent: they add up like their squares. 1e-4 is below what anyone is shown.
    added = values[-1].abs() if by == "accumulated" else values.pow(2).sum(0).sqrt()
    tolerance = max(1e-4, 2 * rounding_step(view.stream) * float(added.max()))
    columns = (values, measured, constant, measured - explained)
    values, measured, constant, unexplained = columns if positions is None else (t.squeeze(-1) for t in columns)
    shape = (view.n_layers, view.n_heads) if by == "head" else None
    return Attribution(values, labels, measured, constant, unexplained, by, source, tolerance, notes(view), shape)


Rows = tuple[list[str], "Float[Tensor, 'component batch pos']"]
Worth = Callable[["Tensor"], "Tensor"]


def _accumulated(readout: Readout, worth: Worth) -> Rows:
    """The stream before each layer, between its sublayers (where the model has such a point), and at the end."""
    view = readout.view
    names = {}
    for layer in range(view.n_layers):
        names[f"{layer}_pre"] = f"blocks.{layer}.hook_resid_pre"
        if view.has(f"blocks.{layer}.hook_resid_mid"):  # blocks with attention and MLP side by side have none
            names[f"{layer}_mid"] = f"blocks.{layer}.hook_resid_mid"
    names["final_post"] = f"blocks.{view.n_layers - 1}.hook_resid_post"
    return _worth_of(readout, worth, names)


def _layers(readout: Readout, worth: Worth) -> Rows:
    """The embeddings, and each layer's attention and MLP output."""
    view = readout.view
    names = _embeddings(view)
    for layer in range(view.n_layers):
        names[f"{layer}_attn_out"] = f"blocks.{layer}.hook_attn_out"
        if not getattr(view.cfg, "attn_only", False):
            names[f"{layer}_mlp_out"] = f"blocks.{layer}.hook_mlp_out"
    return _worth_of(readout, worth, names)


def _heads(readout: Readout, worth: Worth) -> Rows:
    """Every head (layer-major), each layer's attention bias, then MLPs and embeddings."""
    import torch
    from einops import einsum

    view = readout.view
    heads, biases = [], {}
    for layer in range(view.n_layers):
        direction, divisor, bias = head_directions(readout, layer)
        z = view.rows(f"blocks.{layer}.attn.hook_z", readout.positions)  # [batch, pos, head, d_head]
        worths = einsum(z, direction, "batch pos head d_head, batch head d_head -> head batch pos")
        heads.append(worths / divisor)
        if bias is not None:
            biases[f"{layer}_attn_bias"] = bias
    labels = [f"L{layer}H{head}" for layer in range(view.n_layers) for head in range(view.n_heads)]
    names = {} if getattr(view.cfg, "attn_only", False) else _mlps(view)
    rest, rest_values = _worth_of(readout, worth, names | _embeddings(view))
    values = [*heads, *(bias.unsqueeze(0) for bias in biases.values()), rest_values]
    return [*labels, *biases, *rest], torch.cat(values)


def head_directions(
    readout: Readout, layer: int
) -> tuple[Float[Tensor, "batch head d_head"], Float[Tensor, "batch pos"], Float[Tensor, "batch pos"] | None]:
    """What each unit of `z` is worth, W_O[h] @ g; what to divide by; and the layer's bias row, if it has one."""
    from einops import einsum

    functional = readout.writer(layer, "ln1_post")
    block = readout.view.model.blocks[layer]
    attention = block.attn
    W_O = attention.W_O.detach().to(functional.vector)
    direction = einsum(W_O, functional.vector, "head d_head d_model, batch d_model -> batch head d_head")
    b_O: Tensor | None = getattr(attention, "b_O", None)
    # The bias of an output norm belongs to the layer's bias row, too.
    if b_O is None and getattr(getattr(block, "ln1_post", None), "bias", None) is None:
        return direction, functional.divisor, None
    bias = functional.constant
    if b_O is not None:
        worth = functional.vector @ b_O.detach().to(functional.vector)
        bias = bias + worth[:, None] / functional.divisor
    return direction, functional.divisor, bias


def _embeddings(view: CacheView) -> dict[str, str]:
    names = {"embed": "hook_embed"}
    return names | {"pos_embed": "hook_pos_embed"} if view.has("hook_pos_embed") else names


def _mlps(view: CacheView) -> dict[str, str]:
    return {f"{layer}_mlp_out": f"blocks.{layer}.hook_mlp_out" for layer in range(view.n_layers)}


def _worth_of(readout: Readout, worth: Worth, names: dict[str, str]) -> Rows:
    import torch

    values = [worth(readout.view.rows(name, readout.positions)) for name in names.values()]
    return list(names), torch.stack(values)


def _measure(
    readout: Readout, targets: Targets, target: Target, logits: Tensor | None
) -> tuple[Float[Tensor, "batch pos"] | None, str]:
    """The model's own figure, and where it was read; None where the cache has nothing to read it from."""
    view, positions = readout.view, readout.positions
    if logits is not None and target.direction is None:
        return targets.measured(target, view.pick(view.whole_logits(logits), positions)), "the given logits"
    name = view.first("unembed.hook_out", "hook_unembed")
    if name and target.direction is None:
        return targets.measured(target, view.pick(view.get(name), positions)), f"the logits in the cache ({name})"
    vectors = final_vectors(view, positions)
    if vectors is None:
        return None, "nothing: the cache holds neither logits nor the final residual stream; pass `logits=`"
    worth = (vectors @ readout.directions.unsqueeze(-1)).squeeze(-1)
    return worth + readout.offset[:, None], "the final norm's output and the unembedding"


def notes(view: CacheView) -> list[str]:
    """What a reader of the figures should know about this model's readout."""
    said: list[str] = []
    cap = float(getattr(view.cfg, "output_logits_soft_cap", 0) or 0)
    if cap > 0:
        said.append(f"The model soft-caps its logits at {cap:g}; the rows explain the logits before the cap.")
    if any(getattr(view.cfg, name, None) for name in ("logit_scale", "logits_scaling")):
        said.append("The rows explain what the unembedding writes, before any scale that the model puts on it.")
    return said


def rounding_step(tensor: Tensor) -> float:
    """The relative rounding step of a tensor's dtype."""
    import torch

    return float(torch.finfo(tensor.dtype).eps)
