"""Finds the rule by which a head computes attention scores from queries and keys, by comparing rules with the cache.

The score of destination d and source s is τ · q̂_d · k̂_s + bias(s), with or without a soft-cap. q̂ and k̂ are queries
and keys after norms and a rotation. Each rule is tried on some destinations and sources. A rule is used only if it
gives the cached scores. If only the pattern was cached, the rule must give the differences of the pattern's logarithm.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from residscope.cache.finite import check_finite
from residscope.cache.head_reader import HeadReader, prompts_of, sampled
from residscope.cache.padding import padding
from residscope.cache.rotary import IN_CACHE, kinds, tables
from residscope.cache.score_kinds import Kind, NormKind, Rule
from residscope.cache.score_vectors import head_vectors, norm_module, tables_of
from residscope.compute.precision import in_float64, step_of
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor


def find_rule(reader: HeadReader) -> Rule:
    """Find the rule of a head. The kinds of rules that other heads of this model follow are tried first."""
    memo = reader.view.memo
    known: tuple[Kind, ...] = memo.get("score rules") or ()
    trial = _Trial.of(reader)
    trial.check_finite()
    best: Rule | None = None
    tried: set[Kind] = set()
    for kind in (*known, *_all(reader)):
        if kind in tried or (kind.rotation is not None and kind.rotation.table not in tables_of(reader, kind.rotation)):
            continue  # this layer does not have the rotary table of this rotation
        tried.add(kind)
        rule = trial.best_rule(kind)
        if best is None or rule.error / rule.tolerance < best.error / best.tolerance:
            best = rule
        # In fine precision a wrong rule has a large error, so the first fitting rule is used. In coarse precision all
        # rules are tried, and the smallest error decides.
        if rule.error <= rule.tolerance and trial.step < 1e-4:
            break
    if best is None or not best.error <= best.tolerance:
        hidden = [] if reader.from_pattern else [cap for cap in _caps(reader) if not trial.shows_what_is_before(cap)]
        if hidden:
            raise ResidscopeError(
                "attention",
                f"Nearly all scores of L{reader.layer}H{reader.head} are at the model's soft-cap ({hidden[0]:g}). The "
                "scores before the cap cannot be found, so they cannot be attributed. Choose another head, or a "
                "longer prompt.",
            )
        raise ResidscopeError(
            "attention",
            f"The scores of L{reader.layer}H{reader.head} follow none of the rules that Residscope knows (smallest "
            f"error {0.0 if best is None else best.error:.2g}), so they cannot be attributed. It knows norms, "
            "rotations, ALiBi and soft-caps, but no table of biases by distance, as in T5. Patterns, and contributions "
            "to logits, can be shown.",
        )
    memo.put("score rules", value=(best.kind, *(kind for kind in known if kind != best.kind))[:_KNOWN])
    return best


_KNOWN = 6
"""At most this many kinds are remembered for other heads. A model may have several (local and global attention)."""


_BELOW_CAP, _ENOUGH = 1e-2, 4
"""Scores with 1 − (score / cap)² above `_BELOW_CAP` are far enough below the soft-cap. At least `_ENOUGH` of them are
needed."""


_SOURCES, _DESTINATIONS = 48, 8
"""Rules are tried on at most `_DESTINATIONS` destinations of each prompt. The sources are at most `_SOURCES` evenly
spread positions, and the destinations themselves."""


def _all(reader: HeadReader) -> Iterator[Kind]:
    """Yield all kinds of rules that the cache and the modules allow, the usual ones first."""
    attention = reader.view.model.blocks[reader.layer].attn
    bridged = all(norm_module(attention, side) is not None for side in ("q", "k"))
    plain = [NormKind("before"), NormKind("after")] * bridged + [NormKind()]
    unusual = [
        NormKind(when, unit, other, offset)
        for when in ("after", "before")
        for unit, other, offset in (
            [(False, False, 1), (False, False, -1), (False, True, 0)] * bridged + [(True, False, 0), (True, True, 0)]
        )
    ]
    # The cached tables come first, because finding other tables takes longer than trying the cached ones.
    for only in (IN_CACHE, None):
        found = tables(reader.view, reader.layer, reader.width, only)
        rotations = [None, *kinds(list(found), found, reader.width)]
        for norms in (plain, unusual)[: 1 if only else 2]:
            for turned in rotations:
                for norm in norms:
                    yield Kind(norm, turned)


@dataclass(frozen=True)
class _Trial:
    """Some destinations and sources of a head, on which rules are tried."""

    reader: HeadReader
    destinations: Int[Tensor, "batch read"]
    sources: Int[Tensor, "batch source"]
    truth: Float[Tensor, "batch read source"]
    known: Bool[Tensor, "batch read source"]
    is_real: Bool[Tensor, "batch source"]
    step: float

    @classmethod
    def of(cls, reader: HeadReader) -> _Trial:
        import torch

        some = reader.only(prompts_of(reader.view))
        destinations = sampled(some.view, _DESTINATIONS)
        ends = padding(some.view)
        width = min(max(e - b + 1 for b, e in zip(ends.first, ends.last, strict=True)), _SOURCES)
        sources = torch.cat([sampled(some.view, width), destinations], 1)
        sources = torch.stack([_without_repeats(row) for row in sources])
        truth, known = some.scores(destinations, without_nan=True)  # the other scores show the rule, too
        prompts = torch.arange(len(sources), device=truth.device)[:, None, None]
        rows = torch.arange(destinations.shape[1], device=truth.device)[None, :, None]
        at = (prompts, rows, sources[:, None].to(truth.device))
        kept = known[at] & (sources[:, None] >= 0).to(known.device)
        names = (reader.name("hook_q"), reader.name("hook_k"), reader.truth, reader.point.stream(reader.view))
        return cls(
            some, destinations, sources.clamp(min=0), truth[at], kept, sources >= 0, some.view.rounding_step(*names)
        )

    def check_finite(self) -> None:
        """Raise a `ResidscopeError` if queries or keys that are compared hold NaN or infinity."""
        queries, keys = self.reader.raw("q", self.destinations), self.reader.raw("k", self.sources)
        check_finite(self.reader.view, queries, keys.masked_fill(~self.is_real[..., None].to(keys.device), 0))

    def shows_what_is_before(self, cap: float) -> bool:
        """Whether enough scores are so far below a soft-cap that the scores before the cap can be found."""
        below = (1 - (self.truth / cap).pow(2)).masked_fill(~self.known, 0)
        return int((below > _BELOW_CAP).sum()) >= _ENOUGH

    def best_rule(self, kind: Kind) -> Rule:
        """A rule of this kind whose error is within its tolerance. If there is none, a rule with a small error."""
        q = head_vectors(self.reader, kind, "q", self.destinations).used
        k = head_vectors(self.reader, kind, "k", self.sources).used
        products, known = q @ k.transpose(-1, -2), self.known
        size = float((q.norm(dim=-1)[..., None] * k.norm(dim=-1)[:, None]).masked_fill(~known, 0).max())
        whole = not self.reader.from_pattern
        place = self.sources[:, None].to(products).expand_as(products)
        best: Rule | None = None
        for cap in (0.0, *_caps(self.reader)):
            if cap and whole:
                if float(self.truth.abs().masked_fill(~known, 0).max()) > cap * (1 + self.step):
                    continue
                if not self.shows_what_is_before(cap):
                    continue
                found = _scale_before_cap(products, self.truth, known, cap)
            else:
                found = _scale(products, self.truth, known, cap)
            for scale in (*_exact(self.reader, found, self.step), found):
                rule = self._rule(kind, products, self.truth, known, place, scale, cap, abs(scale) * size)
                if best is None or rule.error < 0.5 * best.error:
                    best = rule
                if best.error <= best.tolerance:
                    break
            assert best is not None
            if best.error <= best.tolerance and not (cap == 0 and best.error > 0.1 * best.tolerance):
                return best
        assert best is not None
        if best.error <= best.tolerance:
            return best
        for rule in (self._sloped(kind, products, place, size), self._by_destination(kind, products, size)):
            if rule is not None and rule.error <= rule.tolerance:
                return rule
        return best

    def _rule(
        self,
        kind: Kind,
        products: Tensor,
        truth: Tensor,
        known: Tensor,
        place: Tensor,
        scale: float,
        cap: float,
        size: float,
        slope: float = 0.0,
    ) -> Rule:
        made = scale * products
        if cap:
            made = cap * (made / cap).tanh()
        left = truth - made - slope * place
        if self.reader.from_pattern or slope:
            left = centred(left, known)
        error = float(left.masked_fill(~known, 0).abs().max())
        return Rule(kind, scale, slope, cap, error, self._tolerance(size))

    def _tolerance(self, size: float) -> float:
        """The error that counts as rounding. It is larger for long vectors, and for a pattern in a coarse dtype."""
        rounding = max(2e-6, 4 * self.step) * size
        pattern = self.reader.view.get(self.reader.truth).dtype
        return rounding + (4 * step_of(pattern) + 1e-6 if self.reader.from_pattern else 0.0)

    def _sloped(self, kind: Kind, products: Tensor, place: Tensor, size: float) -> Rule | None:
        """A rule with a bias that is proportional to the position of the source (ALiBi)."""
        import torch

        known = self.known
        a, p, t = (centred(x, known)[known] for x in (products, place, self.truth))
        if len(t) < 4:
            return None
        system = in_float64(torch.stack([a, p], 1))
        solution = torch.linalg.lstsq(system, in_float64(t)[:, None]).solution[:, 0].tolist()
        scale, slope = float(solution[0]), float(solution[1])
        best: Rule | None = None
        for exact in (*_exact(self.reader, scale, self.step), scale):
            rule = self._rule(kind, products, self.truth, known, place, exact, 0.0, abs(exact) * size, slope)
            if best is None or rule.error < best.error:
                best = rule
        return best

    def _by_destination(self, kind: Kind, products: Tensor, size: float) -> Rule | None:
        """A rule with a scale for each destination (a temperature)."""
        known = self.known & (self.known.sum(-1, keepdim=True) >= 3)
        if not bool(known.any()):
            return None
        a, t = centred(products, known), centred(self.truth, known)
        scale = (a * t).sum(-1, keepdim=True) / a.pow(2).sum(-1, keepdim=True).clamp(min=1e-30)
        left = self.truth - scale * products
        left = centred(left, known) if self.reader.from_pattern else left
        error = float(left.masked_fill(~known, 0).abs().max())
        return Rule(kind, None, 0.0, 0.0, error, self._tolerance(float(scale.abs().max()) * size))


def _without_repeats(row: Tensor) -> Tensor:
    """The sorted positions. Repeated positions become −1."""
    import torch

    row = row.sort().values
    again = torch.cat([row.new_zeros(1, dtype=torch.bool), row[1:] == row[:-1]])
    return row.masked_fill(again, -1)


def centred(x: Float[Tensor, "... source"], known: Bool[Tensor, "... source"]) -> Float[Tensor, "... source"]:
    """Values minus their mean over the sources that are not masked. 0 at masked sources."""
    x = x.masked_fill(~known, 0)
    mean = x.sum(-1, keepdim=True) / known.sum(-1, keepdim=True).clamp(min=1)
    return (x - mean).masked_fill(~known, 0)


def _scale(products: Tensor, truth: Tensor, known: Tensor, cap: float) -> float:
    """τ, by least squares over differences between sources, or over scores if each destination has one source."""
    several = bool((known.sum(-1) > 1).any())
    a, b = (centred(x, known) if several else x.masked_fill(~known, 0) for x in (products, truth))
    scale = float(in_float64(a * b).sum() / in_float64(a).pow(2).sum().clamp(min=1e-30))
    for _ in range(12 if cap else 0):  # Gauss-Newton through the soft-cap
        capped = (scale * products / cap).tanh()
        slope = centred(products * (1 - capped.pow(2)), known)
        scale += float((slope * (b - centred(cap * capped, known))).sum() / slope.pow(2).sum().clamp(min=1e-30))
    return scale


def _scale_before_cap(products: Tensor, truth: Tensor, known: Tensor, cap: float) -> float:
    """τ, from soft-capped scores, by least squares over the scores before the cap.

    Near the cap, rounding of a score is amplified by 1 / (1 − (score / cap)²). Such scores have less or no weight.
    """
    made, truth = in_float64(products), in_float64(truth)
    known = known.to(truth.device)
    capped = (truth.masked_fill(~known, 0) / cap).clamp(-1 + 1e-7, 1 - 1e-7)
    weight = (1 - capped.pow(2)).pow(2).masked_fill(~known, 0)
    before = cap * capped.atanh()
    return float((weight * made * before).sum() / (weight * made.pow(2)).sum().clamp(min=1e-30))


def _exact(reader: HeadReader, scale: float, step: float) -> Iterator[float]:
    """Numbers near the found scale that the model may use: 1, 1/√d_head, or a number from the settings."""
    attention = reader.view.model.blocks[reader.layer].attn
    owners = (getattr(attention, "original_component", None), attention, reader.view.cfg)
    numbers = [1.0, reader.width**-0.5]
    for owner in owners:
        held: dict[str, Any] = getattr(owner, "__dict__", {})
        for name in _SCALES:
            value = held.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
                numbers += [float(value), 1 / float(value), float(value) ** -0.5]
    near = max(1e-4, 8 * step)
    for number in dict.fromkeys(numbers):
        if abs(scale - number) <= near * number:
            yield number


_SCALES = ("scaling", "scale", "softmax_scale", "inv_norm_factor", "attn_scale", "attn_scaling")
"""Settings that may hold a scale."""


def _caps(reader: HeadReader) -> list[float]:
    """Settings that may be a soft-cap of the scores."""
    attention = reader.view.model.blocks[reader.layer].attn
    owners = (getattr(attention, "original_component", None), attention, reader.view.cfg)
    found: list[float] = []
    for owner in owners:
        for name, value in getattr(owner, "__dict__", {}).items():
            if "cap" in name and isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
                found.append(float(value))
    return list(dict.fromkeys(found))
