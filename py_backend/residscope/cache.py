"""A read-only view of one `ActivationCache`: names, shapes, positions, what is missing.

Duck-typed on purpose: TransformerLens 4 removed `HookedTransformer`, but the names of activations and weights stayed.
Nothing here adds to, moves or changes the user's cache.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import suppress
from copy import copy
from functools import lru_cache
from operator import index
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

from .arrays import kind_of, tensor_of, unreadable
from .errors import ResidscopeError
from .legible import whole
from .memo import Memo

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from .identity import Sight


class CacheView:
    """What Residscope knows of one cache.

    Args:
        cache: A TransformerLens `ActivationCache` (or anything with its `cache_dict`, `model` and `has_batch_dim`).
        model: The model that made it; by default `cache.model`.
        tokens: Token ids `[batch, pos]`, where the cache does not hold them.
        attention_mask: 1 for each real token, 0 for padding, `[batch, pos]`.
        seen: What is known of the cache, when it was just looked at: what was computed of it before need not be again.

    Attributes:
        seen: What is known of the cache, where it was just looked at.
        memo: What was computed of this cache as it is.
        facts: What was read off the model's modules as they are.
        padding_is_real: Whether what looks like padding is to be counted as real.
        part_of: The view that this one is a part of, and its prompts there.

    Raises:
        ResidscopeError: If `cache` is no activation cache, is empty, or its model is gone.
    """

    def __init__(
        self,
        cache: Any,
        model: Any = None,
        tokens: Int[Tensor, "batch pos"] | None = None,
        seen: Sight | None = None,
        attention_mask: Any = None,
    ) -> None:
        activations = cache if isinstance(cache, Mapping) else getattr(cache, "cache_dict", None)
        if not isinstance(activations, Mapping):
            kind = type(cache).__name__
            hint = "`run_with_cache` returns a pair" if isinstance(cache, tuple) else "Make one"
            raise ResidscopeError(
                "no-cache",
                f"Residscope needs an ActivationCache, but was given a {kind}. {hint}: "
                "`logits, cache = model.run_with_cache(tokens)`; then pass `cache`.",
            )
        # A snapshot of the names: the user's cell may change the dictionary while we read.
        held: dict[Any, Any] = dict(activations)
        if not held:
            raise ResidscopeError("empty-cache", "This ActivationCache is empty: nothing was cached.")
        # Names and shapes are looked at once for each state of the cache: there may be thousands.
        known: _Read | None = None if seen is None else seen.memo[0].get("names and shapes")
        if known is not None and known.names != tuple(held):
            known = None
        if known is None:
            self.activations, self._others = _tensors(held)
        else:
            self.activations, self._others = _again(held, known), known.others
        for name in () if known is not None else self._others:
            if name in held and _kind(name) is not None and (kind := _unreadable(held[name])) is not None:
                raise ResidscopeError(
                    "unreadable",
                    f"`{name}` is a {kind}: Residscope reads plain tensors. Put one in its place, or run the model "
                    "again.",
                )
        if not self.activations:
            name, kind = next(iter(self._others.items()), ("", "nothing"))
            raise ResidscopeError(
                "no-cache",
                f"This dictionary holds no activations by name: `{name}` is a {kind}. Residscope needs an "
                "ActivationCache, or a dictionary of tensors under TransformerLens' names.",
            )
        if known is None or known.behind_saes:
            self.activations |= _behind_saes(self.activations)
        found = model if model is not None else getattr(cache, "model", None)
        if found is None:
            raise ResidscopeError(
                "no-model",
                "This cache has no model any more (`cache.model` is None), and attribution needs its weights. "
                "Pass it: `model=…`.",
            )
        if not hasattr(found, "cfg"):
            raise ResidscopeError(
                "no-model",
                f"`model=` takes the TransformerLens model itself, but was given {type(found).__name__}"
                f"{_inside(found)}.",
            )
        self.model: Any = found
        self.cfg: Any = found.cfg
        said = getattr(cache, "has_batch_dim", None) if known is None else known.has_batch_dim
        self.has_batch_dim = bool(_has_batch_dim(self.activations, self.cfg) if said is None else said)
        if not hasattr(found, "blocks"):
            raise ResidscopeError("no-blocks", _no_blocks(found))
        self.seen = seen
        self.memo, self.facts = (Memo(), Memo()) if seen is None else seen.memo
        self.n_layers = self.memo.once(("layers",), self._layers)
        self.n_heads = self.memo.once(("heads",), self._widest)
        self._tokens = tokens
        self._mask = attention_mask
        self.padding_is_real = False
        self.part_of: tuple[CacheView, range] | None = None
        self._prompts: range | None = None
        if known is not None:
            self.batch, self.n_pos = known.extent
            return
        self.batch, self.n_pos = self._extent()
        self._check_shapes()
        if seen is not None:
            self.memo.put("names and shapes", value=self._read(held))

    def _read(self, held: Mapping[Any, Any]) -> _Read:
        arrays = tuple(name for name in self.activations if type(held.get(name)).__module__ == "numpy")
        spliced = len(self.activations) + len(self._others) > len(held)
        left_out = frozenset(name for name in held if not isinstance(name, str) or name not in self.activations)
        return _Read(tuple(held), left_out, self._others, arrays, spliced, self.has_batch_dim, (self.batch, self.n_pos))

    # --- activations -------------------------------------------------------------------------------------------------
    def has(self, name: str) -> bool:
        """Whether the cache holds the activation `name`."""
        return name in self.activations

    def get(self, name: str) -> Float[Tensor, "batch ..."]:
        """One activation, detached, with a batch dimension.

        Args:
            name: Its full name, such as `"blocks.3.attn.hook_z"`.

        Raises:
            ResidscopeError: If it was not cached; the sentence names it and the `names_filter` that would have it.
        """
        if name in self._others:
            raise ResidscopeError(
                "missing-activation",
                f"`{name}` is a {self._others[name]} in this cache, not a tensor: put the tensor alone in its place.",
            )
        if name not in self.activations:
            raise not_cached(name)
        tensor = self.activations[name].detach()
        tensor = tensor if self.has_batch_dim else tensor.unsqueeze(0)
        whole, kind = self.root.batch, _kind(name)
        if kind is not None and kind.order != _OTHER and tensor.shape[0] != whole:
            raise ResidscopeError(
                "prompts",
                f"`{name}` holds {tensor.shape[0]} prompts, and this cache {whole}: keep the same prompts of every "
                "activation.",
            )
        if self._prompts is None or tensor.shape[0] == 1:
            return tensor
        return tensor[self._prompts.start : self._prompts.stop]

    def only(self, prompts: range) -> CacheView:
        """The same cache, of a run of its prompts alone: what is computed from it costs as much as they do."""
        tokens, before = self.tokens, 0 if self._prompts is None else self._prompts.start
        part = copy(self)
        part.part_of = self, prompts
        part._prompts, part.batch = range(before + prompts.start, before + prompts.stop), len(prompts)
        part._tokens = None if tokens is None else tokens[prompts.start : prompts.stop]
        part.memo = self.memo.part(prompts.start, prompts.stop)
        return part

    @property
    def root(self) -> CacheView:
        """The view of all prompts."""
        return self if self.part_of is None else self.part_of[0].root

    def first(self, *names: str) -> str | None:
        """The first of `names` that the cache holds."""
        return next((name for name in names if name in self.activations), None)

    def rows(self, name: str, positions: Int[Tensor, " batch"] | None) -> Float[Tensor, "batch pos ..."]:
        """One activation at one position of each prompt (`pos` = 1), or at every position (`positions=None`).

        The result is in the working precision: float32, or float64 where the cache is float64.
        """
        return self.take(self.get(name), positions)

    def raw(self, name: str, positions: Int[Tensor, " batch"] | None) -> Float[Tensor, "batch pos ..."]:
        """The same as it is, for what takes it in its own precision (`products.dots`)."""
        return self.pick(self.get(name), positions)

    def take(
        self, tensor: Float[Tensor, "batch pos ..."], positions: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch pos ..."]:
        """The rows of `tensor` at `positions` (see `rows`), in the working precision."""
        return working(self.pick(tensor, positions))

    def pick(self, tensor: Tensor, positions: Int[Tensor, " batch"] | None) -> Tensor:
        """The rows of `tensor` at `positions`, as they are."""
        import torch

        if positions is not None:
            places: list[int] = positions.tolist()
            if min(places) == max(places):
                return tensor[:, places[0] : places[0] + 1]
            prompts = torch.arange(tensor.shape[0], device=tensor.device)
            tensor = tensor[prompts, positions.to(tensor.device)].unsqueeze(1)
        return tensor

    def whole_logits(self, logits: Tensor) -> Float[Tensor, "batch pos d_vocab"]:
        """The model's output as the user gave it, detached.

        Raises:
            ResidscopeError: If it does not have this cache's prompts and positions.
        """
        try:
            logits = tensor_of(logits).detach()
        except (TypeError, ValueError, RuntimeError):
            kind = kind_of(logits)
            raise ResidscopeError(
                "logits-shape", f"`logits=` takes the model's output [batch, pos, d_vocab], but was given a {kind}."
            ) from None
        if not logits.is_floating_point():
            kind = str(logits.dtype).removeprefix("torch.")
            raise ResidscopeError("logits-shape", f"`logits=` takes the model's output, but was given {kind} figures.")
        logits = logits if logits.ndim == 3 else logits.unsqueeze(0)
        if tuple(logits.shape[:2]) != (self.batch, self.n_pos):
            raise ResidscopeError(
                "logits-shape",
                f"`logits` has the shape {list(logits.shape)}, but the cache holds {self.batch} prompts of "
                f"{self.n_pos} positions: pass the model's whole output.",
            )
        return logits

    def _layers(self) -> int:
        """How many layers there are: those of the model, of which some may have been taken out after its configuration.

        Raises:
            ResidscopeError: If the cache holds one that the model has not.
        """
        blocks = self.model.blocks
        count = len(blocks) if hasattr(blocks, "__len__") else int(self.cfg.n_layers)
        numbers = (name.split(".", 2)[1] for name in self.activations if name.startswith("blocks."))
        beyond = sorted({int(number) for number in numbers if number.isdecimal() and int(number) >= count})
        if beyond:
            raise ResidscopeError(
                "layers",
                f"This cache holds activations of layer {beyond[-1]}, but the model has only {count} layers now: some "
                "were taken out after it was cached, or it is another model's cache. Run the model again, or pass the "
                "model that made the cache: `model=…`.",
            )
        return count

    # --- shape and tokens --------------------------------------------------------------------------------------------
    def _widest(self) -> int:
        """The number of heads; where layers differ in it, the largest."""
        patterns = (t for name, t in self.activations.items() if name.endswith("attn.hook_pattern") and t.ndim > 2)
        return max([int(self.cfg.n_heads), *(int(t.shape[-3]) for t in patterns)])

    def _extent(self) -> tuple[int, int]:
        """The number of prompts and of positions, read off whatever is there."""
        known = {name: kind for name, kind in ((name, _kind(name)) for name in self.activations) if kind is not None}
        for name, kind in sorted(known.items(), key=lambda known: known[1].order):
            tensor = self.activations[name]
            shape = tuple(tensor.shape) if self.has_batch_dim else (1, *tensor.shape)
            if len(shape) > max(kind.position, 1):
                return int(shape[0]), int(shape[kind.position])
        names = ", ".join(f"`{name}`" for name in list(self.activations)[:3])
        raise ResidscopeError(
            "no-positions",
            f"This cache holds only {names}{', …' if len(self.activations) > 3 else ''}: nothing in it tells how many "
            "prompts and positions were run. Cache at least one activation of a layer, such as "
            '`names_filter=lambda name: name.endswith("hook_resid_post")`.',
        )

    def _check_shapes(self) -> None:
        """Refuse a cache of no prompts or positions, and one that was put together from runs of different lengths.

        Only activations whose axes are always the same are looked at.
        """
        if not self.batch or not self.n_pos:
            raise ResidscopeError(
                "empty-cache",
                f"This cache holds {self.batch} prompts of {self.n_pos} positions: nothing to read.",
            )
        widths: dict[int, str] = {}
        for name, tensor in self.activations.items():
            kind, stream = _kind(name), name.rpartition(".")[2].startswith("hook_resid_")
            if kind is None or not (stream or name.endswith("hook_pattern")):
                continue
            shape = tuple(tensor.shape) if self.has_batch_dim else (1, *tensor.shape)
            if len(shape) != kind.axes:
                raise ResidscopeError(
                    "shape", f"`{name}` has the shape {list(tensor.shape)} in this cache: an axis too few, or too many."
                )
            if shape[kind.position] != self.n_pos:
                raise ResidscopeError(
                    "shape",
                    f"`{name}` has {shape[kind.position]} positions, and other activations in this cache have "
                    f"{self.n_pos}: they are of different runs.",
                )
            if stream:
                widths.setdefault(shape[-1], name)
            if len(widths) > 1:
                wide, other = list(widths)[:2]
                raise ResidscopeError(
                    "shape",
                    f"`{widths[wide]}` is {wide} wide, and `{widths[other]}` {other}: they are of different models.",
                )

    @property
    def given_tokens(self) -> bool:
        """Whether the token ids were given, and are no part of the cache."""
        return self._tokens is not None

    @property
    def tokens(self) -> Int[Tensor, "batch pos"] | None:
        """The token ids: given, held by a bridge's cache, or told by the rows of `hook_embed`; else None."""
        if self._tokens is not None:
            try:
                self._tokens = tensor_of(self._tokens)
            except (TypeError, ValueError, RuntimeError):
                kind = kind_of(self._tokens)
                raise ResidscopeError(
                    "tokens-shape", f"`tokens=` takes token ids [batch, pos], but was given a {kind}."
                ) from None
            tokens = self._tokens if self._tokens.ndim == 2 else self._tokens.unsqueeze(0)
            if tuple(tokens.shape) != (self.batch, self.n_pos):
                raise ResidscopeError(
                    "tokens-shape",
                    f"`tokens` has the shape {list(tokens.shape)}, but the cache holds {self.batch} prompts of "
                    f"{self.n_pos} positions.",
                )
            return tokens
        from .tokens import matched

        held, embed = self.activations.get("embed.hook_in"), self.activations.get("hook_embed")
        extent = (self.batch, self.n_pos) if self.has_batch_dim else (self.n_pos,)
        # With `pos_slice` the ids may be those of the whole prompt: which of them were kept is not in the cache.
        if held is None or held.is_floating_point() or tuple(held.shape) != extent:
            held = None if embed is None else matched(embed, self.model)
        return held if held is None or self.has_batch_dim else held.unsqueeze(0)

    @property
    def other_tokens(self) -> bool:
        """Whether the token ids that were given are not those that the cache holds."""
        held = self.activations.get("embed.hook_in")
        if self._tokens is None or held is None or held.is_floating_point():
            return False
        held, given = held if self.has_batch_dim else held.unsqueeze(0), self.tokens
        run = slice(None) if self._prompts is None else slice(self._prompts.start, self._prompts.stop)
        return given is not None and held[run].shape == given.shape and bool((held[run].cpu() != given.cpu()).any())

    @property
    def attention_mask(self) -> Int[Tensor, "batch pos"] | None:
        """The attention mask that was given, as zeros and ones on the CPU.

        Raises:
            ResidscopeError: If it is no mask for this cache.
        """
        if self._mask is not None and not isinstance(self._mask, _Checked):
            self._mask = _Checked(_mask(self._mask, self.batch, self.n_pos))
        return None if self._mask is None else self._mask.mask

    def check_prompt(self, prompt: int | None) -> int | None:
        """The prompt's index, from the start; None (the mean) stays None."""
        if prompt is None:
            return None
        try:
            prompt = index(prompt)
        except TypeError:
            raise ResidscopeError("prompt", f"`prompt={prompt!r}` is no prompt: give a number, or None.") from None
        if not -self.batch <= prompt < self.batch:
            raise ResidscopeError(
                "prompt", f"There is no prompt {prompt}: the cache holds {self.batch}, 0 to {self.batch - 1}."
            )
        return prompt % self.batch

    def check_head(self, layer: int, head: int) -> None:
        """Refuse a head that the model does not have."""
        if not (0 <= layer < self.n_layers and 0 <= head < self.n_heads):
            raise ResidscopeError(
                "head",
                f"This model has no head L{layer}H{head}: it has the layers 0 to {self.n_layers - 1} "
                f"with the heads 0 to {self.n_heads - 1} each.",
            )

    def check_layer(self, layer: Any) -> int:
        """The layer's index, from the start; refuses one that the model does not have."""
        try:
            number = index(layer)
        except TypeError:
            raise ResidscopeError("layer", f"{layer!r} is no layer: give a number.") from None
        if not -self.n_layers <= number < self.n_layers:
            raise ResidscopeError("layer", f"There is no layer {number}: the model has 0 to {self.n_layers - 1}.")
        return number % self.n_layers

    # --- facts -------------------------------------------------------------------------------------------------------
    @property
    def model_name(self) -> str:
        """The model's name, without the folders before it."""
        return whole(PurePath(str(getattr(self.cfg, "model_name", "") or type(self.model).__name__)).name)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the cache holds; tensors that share memory count once."""
        storages = (tensor.untyped_storage() for tensor in self.activations.values())
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())

    @property
    def stream(self) -> Tensor:
        """One floating-point activation that stands for the cache's dtype and device."""
        name = self.first(f"blocks.{self.n_layers - 1}.hook_resid_post")
        floats = (t for t in self.activations.values() if t.is_floating_point() and t.ndim > 1)
        return self.activations[name] if name else next(floats)

    @property
    def like(self) -> Tensor:
        """An empty tensor with the device and the precision in which this cache is summed, for `tensor.to(…)`."""
        import torch

        stream = self.stream
        exact = stream.dtype == torch.float64
        return torch.empty(0, dtype=torch.float64 if exact else torch.float32, device=stream.device)

    def rounding_step(self, *names: str) -> float:
        """The relative rounding step of what a sum is made of (under autocast there are several).

        A cache that was widened afterwards is as coarse as the model that made it, so the model's weights count, too.

        Args:
            names: The activations in the sum; those that the cache does not hold count for nothing.
        """
        found = (self.activations.get(name) for name in names)
        kinds = {tensor.dtype for tensor in found if tensor is not None}
        return max([self.memo.once(("rounding step",), self._model_step), *map(step_of, kinds)])

    def _model_step(self) -> float:
        kinds: list[Any] = []
        for name in ("W_E", "W_U"):
            with suppress(Exception):  # a model may refuse to show a weight
                kinds.append(getattr(getattr(self.model, name, None), "dtype", None))
        # Integers and float8 are how a weight is stored: with its scale it is finer than that.
        fit = [step_of(kind) for kind in kinds if kind is not None and kind.itemsize > 1]
        return max([step_of(self.like.dtype), self._kept_step(), *fit])

    def _kept_step(self) -> float:
        """The step of the precision in which the stream was kept, where it was widened afterwards: its figures tell."""
        import torch

        points = [t for name, t in self.activations.items() if name.endswith(("hook_resid_post", "hook_z"))]
        steps: list[float] = []
        for tensor in [points[0], points[-1]] if points else []:
            flat = tensor.detach().flatten()
            some = flat[:: max(1, len(flat) // 1024)]
            if some.dtype not in (torch.float32, torch.float64) or len(some.unique()) < 32:  # too few say nothing
                return 0.0
            kinds = (torch.float8_e5m2, torch.float8_e4m3fn, torch.bfloat16, torch.float16)
            fit = (step_of(kind) for kind in kinds if bool((some.to(kind).to(some.dtype) == some).all()))
            steps.append(next(fit, 0.0))
        return min(steps, default=0.0)

    def before(self, layer: int) -> str:
        """The activation that is the stream before a layer: its `hook_resid_pre`, else what the layer before left.

        Where neither was cached, it is the name that would have it.
        """
        own = f"blocks.{layer}.hook_resid_pre"
        return self.first(own, f"blocks.{layer - 1}.hook_resid_post") or own

    def after(self, layer: int) -> str:
        """The activation that is the stream after a layer: its `hook_resid_post`, else what the next one is given."""
        own = f"blocks.{layer}.hook_resid_post"
        return self.first(own, f"blocks.{layer + 1}.hook_resid_pre") or own

    def points(self) -> list[str]:
        """The points of the residual stream that the cache holds, in order: `0_pre`, `0_mid`, …, `final_post`."""
        found: list[str] = []
        for layer in range(self.n_layers):
            found += [f"{layer}_pre"] * self.has(self.before(layer))
            found += [f"{layer}_mid"] * self.has(f"blocks.{layer}.hook_resid_mid")
        return found + ["final_post"] * self.has(f"blocks.{self.n_layers - 1}.hook_resid_post")

    def cut(self) -> str | None:
        """A sentence, where the cache holds only some of the prompt's positions (`pos_slice`)."""
        name = next((name for name in self.activations if name.endswith("attn.hook_pattern")), None)
        sources = self.n_pos if name is None else int(self.activations[name].shape[-1])
        if sources == self.n_pos:
            return None
        return (
            f"The cache holds {self.n_pos} of the prompt's {sources} positions (`pos_slice`, or past "
            "keys): they are counted anew."
        )

    def missing(self) -> list[str]:
        """Kinds of activations that Residscope uses and the cache does not hold for every layer."""
        kinds = ["hook_resid_pre", "hook_attn_out", "hook_mlp_out", "attn.hook_z", "attn.hook_pattern", "attn.hook_v"]
        if getattr(self.cfg, "attn_only", False):
            kinds.remove("hook_mlp_out")
        every = range(self.n_layers)
        gaps = [kind for kind in kinds if not all(self.has(f"blocks.{layer}.{kind}") for layer in every)]
        return gaps + [name for name in ("hook_embed", "ln_final.hook_scale") if not self.has(name)]

    def first_not_finite(self) -> str | None:
        """Where the cache first holds NaN or infinity, in words; None where it is finite."""
        for name, tensor in self.activations.items():
            # Attention scores are −inf above the diagonal by design; every other infinity is a fault.
            if not tensor.is_floating_point() or name.endswith("hook_attn_scores"):
                continue
            bad = ~tensor.isfinite()
            if bad.any():
                where = bad.nonzero()[0].tolist()
                place = f"prompt {where[0]}, position {where[1]}" if self.has_batch_dim and len(where) > 2 else where
                return f"`{name}` ({place})"
        return None


def _inside(model: Any) -> str:
    """Which part of a module is the TransformerLens model, where one is, for the end of a sentence."""
    parts: dict[str, Any] = dict(getattr(model, "__dict__", {}).get("_modules") or {})
    name = next((name for name, part in parts.items() if hasattr(part, "cfg") and hasattr(part, "blocks")), None)
    return "" if name is None else f", which holds it: pass `model.{name}`"


def _no_blocks(model: Any) -> str:
    """What to say of a model whose layers are not in `blocks`."""
    kind = type(model).__name__
    inside = _inside(model)
    if inside:
        return f"Residscope needs the TransformerLens model itself, but this is a {kind}{inside}."
    stacks = [f"`{name}`" for name in ("encoder_blocks", "decoder_blocks") if hasattr(model, name)]
    name = whole(PurePath(str(getattr(model.cfg, "model_name", "") or kind)).name)
    if len(stacks) == 2:
        return (
            f"“{name}” is an encoder-decoder model: its layers are in {stacks[0]} and {stacks[1]}, and the decoder "
            "reads the encoder in between. Residscope reads models with one row of layers (`blocks`), such as "
            "decoder-only ones."
        )
    return f"This {kind} has no `blocks`: Residscope reads models whose layers stand in one row."


class _Checked(NamedTuple):
    """A mask that was found to fit."""

    mask: Any


def _mask(given: Any, batch: int, n_pos: int) -> Tensor:
    """A mask as a person gives it, as zeros and ones."""
    if isinstance(given, Mapping) and "attention_mask" in given:  # what a tokenizer returns
        given = given["attention_mask"]
    try:
        mask = tensor_of(given).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        kind = kind_of(given)
        raise ResidscopeError(
            "attention-mask", f"`attention_mask=` takes zeros and ones [batch, pos], but was given a {kind}."
        ) from None
    mask = mask if mask.ndim == 2 else mask.unsqueeze(0)
    if tuple(mask.shape) != (batch, n_pos):
        raise ResidscopeError(
            "attention-mask",
            f"`attention_mask` has the shape {list(mask.shape)}, but the cache holds {batch} prompts of {n_pos} "
            "positions: pass the mask of the tokens that were run.",
        )
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise ResidscopeError(
            "attention-mask", "`attention_mask` takes 1 for each real token and 0 for padding, and nothing else."
        )
    empty: list[int] = (~(mask == 1).any(-1)).nonzero().flatten().tolist()
    if empty:
        raise ResidscopeError(
            "attention-mask", f"`attention_mask` leaves nothing of prompt {empty[0]}: it needs a 1 in each row."
        )
    return (mask == 1).long()


def _tensors(held: dict[Any, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a dictionary by their names (arrays as tensors), and what else it holds, by the kinds of it."""
    found: dict[str, Tensor] = {}
    others: dict[str, str] = {}
    for name, value in held.items():
        tensor = _tensor(value) if isinstance(name, str) else None
        if tensor is None:
            others[str(name)] = kind_of(value)
        else:
            found[name] = tensor
    return found, others


class _Read(NamedTuple):
    """What was read off a cache's names and shapes. It holds no activation.

    Attributes:
        names: All that it holds.
        left_out: What of it is no tensor, or has no name.
        others: The same as it is called, with its kind.
        arrays: What of it is an array.
        behind_saes: Whether SAEs stand in it.
        has_batch_dim: Whether activations have an axis of prompts.
        extent: How many prompts and positions there are.
    """

    names: tuple[Any, ...]
    left_out: frozenset[Any]
    others: dict[str, str]
    arrays: tuple[str, ...]
    behind_saes: bool
    has_batch_dim: bool
    extent: tuple[int, int]


def _again(held: dict[Any, Any], known: _Read) -> dict[str, Tensor]:
    """The tensors of a dictionary that was read before, and holds the same."""
    found = {name: value for name, value in held.items() if name not in known.left_out} if known.left_out else held
    return {**found, **{name: tensor_of(found[name]) for name in known.arrays}}


def _unreadable(value: Any) -> str | None:
    """What kind of tensor it is, where it cannot be an activation that is summed; else None."""
    complex_ = getattr(value, "is_complex", None)
    return unreadable(value) or ("tensor of complex numbers" if complex_ is not None and complex_() else None)


def _tensor(value: Any) -> Tensor | None:
    """What a cache holds under a name, as a tensor; None where it is something else (a prompt, a loss, a note).

    Arrays are read where they are: nothing is copied.
    """
    import torch

    if isinstance(value, torch.Tensor):
        return None if _unreadable(value) else value
    if type(value).__module__ == "numpy" and getattr(getattr(value, "dtype", None), "kind", "") in "fiu":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of arrays that nobody may write to: nobody does
            with suppress(TypeError):
                return tensor_of(value)
    return None


def not_cached(*names: str) -> ResidscopeError:
    """The refusal of what needs these activations: it names them, and the `names_filter` that would have them."""
    endings: dict[str, list[str]] = {}
    for name in names:
        endings.setdefault(ending(name), []).append(name)
    are, them, many = ("is", "it", "") if len(endings) == 1 else ("are", "them", "s")
    listed = " and ".join(f"`{own[0] if len(own) == 1 else kind}`" for kind, own in endings.items())
    listed = listed.replace(" and ", ", ", max(len(endings) - 2, 0))
    quoted = ", ".join(f'"{one}"' for one in endings)
    wanted = quoted if len(endings) == 1 else f"({quoted})"
    return ResidscopeError(
        "missing-activation",
        f"{listed} {are} not in this cache. Cache {them}: leave out `names_filter`, or let it accept "
        f"`name.endswith({wanted})`. Where nothing was filtered out, this model has no such activation{many}.",
    )


class _Kind(NamedTuple):
    """How activations with names of one ending are shaped.

    Attributes:
        order: The lower, the sooner it is believed where activations differ.
        axes: How many axes they have, with the prompts' axis; None where that is not always the same.
        position: The axis of positions.
    """

    order: int
    axes: int | None
    position: int


@lru_cache(16_384)
def _kind(name: str) -> _Kind | None:
    """What is known of an activation's shape by its name; None where nothing is."""
    ending = name.rpartition(".")[2]
    if ending in ("hook_pattern", "hook_attn_scores"):
        return _Kind(_PATTERN, 4, 2)  # [batch, head, destination, source]
    if name.startswith(("hook_pos_embed", "encoder")) or ending in ("hook_cos", "hook_sin"):
        return None  # may have one row for all prompts
    if ending.startswith("hook_resid_") or ending in ("hook_attn_out", "hook_mlp_out", "hook_embed"):
        return _Kind(_STREAM, 3, 1)
    if ending == "hook_scale":
        return _Kind(_SCALE, None if ".attn." in name else 3, 1)  # a norm on queries and keys has one for each head
    if ending == "hook_z":
        return _Kind(_Z, None, 1)
    if ending in ("hook_q", "hook_k", "hook_v", "hook_rot_q", "hook_rot_k"):
        return _Kind(_QKV, None, 1)
    if ending.startswith("hook_") and name.startswith(("blocks.", "ln_final.", "embed.", "unembed.", "hook_unembed")):
        return _Kind(_OTHER, None, 1)
    return None


_STREAM, _SCALE, _Z, _PATTERN, _QKV, _OTHER = range(6)
"""Kinds of activations, the most regular ones first."""


def _behind_saes(activations: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Activations where an SAE stands: it keeps what goes on through the model as `NAME.hook_sae_output`."""
    spliced = ((name.removesuffix(_SAE), tensor) for name, tensor in activations.items() if name.endswith(_SAE))
    return {name: tensor for name, tensor in spliced if name not in activations}


_SAE = ".hook_sae_output"


def _has_batch_dim(activations: Mapping[str, Tensor], cfg: Any) -> bool:
    """Whether a plain dictionary of activations has one, as the number of their axes tells."""
    known = [(kind, tensor) for name, tensor in activations.items() if (kind := _kind(name)) is not None]
    for kind, tensor in known:
        if kind.axes is not None:
            return tensor.ndim >= kind.axes
    for kind, tensor in known:
        if kind.order in (_Z, _QKV):  # heads stand apart, or side by side in the last axis
            apart = tensor.shape[-1] == getattr(cfg, "d_head", None)
            return tensor.ndim > (3 if apart else 2)
    return True


def step_of(kind: Any) -> float:
    """The relative rounding step of a precision; whole numbers are exact."""
    import torch

    return float(torch.finfo(kind).eps) if kind.is_floating_point else 0.0


def working(tensor: Tensor) -> Tensor:
    """`tensor` in the precision of all sums: float32, or float64 where it is float64 already."""
    import torch

    return tensor if tensor.dtype == torch.float64 else tensor.float()


def ending(name: str) -> str:
    """The part of an activation's name that is the same in every layer: `blocks.3.attn.hook_z` → `attn.hook_z`."""
    return name.split(".", 2)[2] if name.startswith("blocks.") else name
