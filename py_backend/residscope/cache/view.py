"""A read-only view of one `ActivationCache`: its activations, shapes, tokens and layers.

The classes of cache and model are not checked: they differ between versions of TransformerLens, but their attributes
and activations have the same names. The user's cache is never changed or moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from operator import index
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from residscope.base.legible import encodable
from residscope.base.prompts import check_prompt_number
from residscope.cache.given_arrays import checked_logits, checked_mask, checked_tokens
from residscope.cache.layout import Layout, holds_every_prompt, layout_of, split
from residscope.cache.model_types import has_config, is_model
from residscope.cache.stored_precision import stored_step, weights_step
from residscope.cache.view_refusals import model_inside, no_blocks, no_floats, not_cached
from residscope.cache.weights import embedding_size
from residscope.compute.memo import Memo, NoKeyError, key_of
from residscope.compute.precision import step_of, working
from residscope.errors import ResidscopeError
from residscope.terms import CacheLike, Component, MaskLike, ModelLike

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Shaped
    from torch import Tensor


class Seen(Protocol):
    """What change tracking knows about a cache (`session/change_tracking.py`).

    Attributes:
        changed: Whether an activation was changed since the cache was first seen.
        weights_changed: Whether the model's weights, or how its layers use them, were changed since then.
        other_model: Whether the cache had another model when it was first seen.
    """

    changed: bool
    weights_changed: bool
    other_model: bool

    @property
    def memo(self) -> tuple[Memo, Memo]:
        """Memos of results computed from the cache, and of values read from the model's modules."""
        ...


def is_cache(value: object) -> bool:
    """Return whether this is an `ActivationCache`, or a mapping from names to activations."""
    return isinstance(value, Mapping) or hasattr(value, "cache_dict")


class CacheView:
    """A read-only view of one cache and its model.

    Args:
        cache: A TransformerLens `ActivationCache`, an object with the same attributes, or a dictionary of tensors.
        model: The model that made the cache. By default `cache.model`.
        tokens: Token ids `[batch, pos]`, if the cache does not hold them.
        attention_mask: 1 for each real token, 0 for padding, `[batch, pos]`.
        seen: What change tracking knows about the cache. If given, earlier results are reused.

    Attributes:
        seen: What change tracking knows about the cache, if it was given.
        cache_memo: Results computed from this cache in its present state. A key names all that its result depends on,
            including the tokens, the mask and the padding choice.
        facts: Values read from the model's modules in their present state.
        part_of: If this view holds only some prompts of a larger view: the larger view, and the range of these prompts.
        cells: The number of positions of a prompt, if each of them counts as a prompt here (`cells_of`), else None.

    Raises:
        ResidscopeError: If `cache` is not an activation cache or is empty, or if its model was deleted.
    """

    def __init__(
        self,
        cache: CacheLike,
        model: ModelLike = None,
        tokens: Int[Tensor, "batch pos"] | None = None,
        seen: Seen | None = None,
        attention_mask: MaskLike = None,
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
        # This is a copy, because the user's cell may change the dictionary while we read.
        held: dict[Any, Any] = dict(activations)
        if not held:
            raise ResidscopeError("empty-cache", "This ActivationCache is empty: nothing was cached.")
        layout: Layout | None = None if seen is None else seen.memo[0].get("layout")
        if layout is not None and layout.names != tuple(held):
            layout = None
        self.activations, self._others = split(held) if layout is None else (layout.tensors(held), layout.others)
        model = model if model is not None else getattr(cache, "model", None)
        if model is None:
            raise ResidscopeError(
                "no-model",
                "The model of this cache was deleted (`cache.model` is None), and attribution needs its weights. "
                "Pass the model: `model=…`.",
            )
        if not has_config(model):
            raise ResidscopeError(
                "no-model",
                f"`model=` takes the TransformerLens model itself, but was given {type(model).__name__}"
                f"{model_inside(model)}.",
            )
        if not is_model(model):
            raise ResidscopeError("no-blocks", no_blocks(model))
        self.model, self.cfg = model, model.cfg
        self.seen = seen
        self.cache_memo, self.facts = (Memo(), Memo()) if seen is None else seen.memo
        self._memo: Memo | None = None
        self.n_layers = self.cache_memo.once(("layers",), self._layers)
        self.n_heads = self.cache_memo.once(("heads",), self._widest)
        self._tokens, self._tokens_are_checked = tokens, False
        self._mask = attention_mask
        self._padding_is_real = False
        self.part_of: tuple[CacheView, range] | None = None
        self._prompts: range | None = None
        self.cells: int | None = None
        if layout is None:
            layout = layout_of(held, self.activations, self._others, getattr(cache, "has_batch_dim", None), self.cfg)
            self.cache_memo.put("layout", value=layout)
        self.has_batch_dim, (self.batch, self.n_pos) = layout.has_batch_dim, layout.extent

    # --- activations -------------------------------------------------------------------------------------------------
    def has(self, name: str) -> bool:
        """Whether the cache holds the activation `name`."""
        return name in self.activations

    def get(self, name: str) -> Shaped[Tensor, "batch ..."]:
        """Return one activation, detached, with a batch dimension.

        Args:
            name: The activation's full name, such as `"blocks.3.attn.hook_z"`.

        Raises:
            ResidscopeError: If the activation was not cached. The message proposes a `names_filter` that includes it.
        """
        if name in self._others:
            raise ResidscopeError(
                "missing-activation",
                f"`{name}` is a {self._others[name]} in this cache, not a tensor: replace it with a tensor.",
            )
        if name not in self.activations:
            raise not_cached(name)
        tensor = self.activations[name].detach()
        tensor = tensor if self.has_batch_dim else tensor.unsqueeze(0)
        whole = self.root.batch
        if holds_every_prompt(name) and tensor.shape[0] != whole:
            raise ResidscopeError(
                "prompts",
                f"`{name}` holds {tensor.shape[0]} prompts, but this cache holds {whole}: keep the same prompts in "
                "every activation.",
            )
        if self._prompts is None or tensor.shape[0] == 1:
            return tensor
        return tensor[self._prompts.start : self._prompts.stop]

    def only(self, prompts: range) -> CacheView:
        """Return a view of these prompts only."""
        tokens, mask = self.tokens, self.attention_mask
        before = 0 if self._prompts is None else self._prompts.start
        part = copy(self)
        part.part_of = self, prompts
        part._prompts, part.batch = range(before + prompts.start, before + prompts.stop), len(prompts)
        part._tokens = None if tokens is None else tokens[prompts.start : prompts.stop]
        part._mask = None if mask is None else _Checked(mask[prompts.start : prompts.stop])
        part._memo = self.memo.part(prompts.start, prompts.stop)
        return part

    # --- what is remembered ------------------------------------------------------------------------------------------
    @property
    def memo(self) -> Memo:
        """Results computed from this cache in its present state, with these tokens, mask and padding choice."""
        if self._memo is None:
            if self._tokens is None and self._mask is None and not self._padding_is_real:
                self._memo = self.cache_memo
            else:
                try:
                    read_as = key_of(self._tokens), key_of(self.attention_mask), self._padding_is_real
                    self._memo = self.cache_memo.part("read as", *read_as)
                except NoKeyError:
                    self._memo = Memo()
        return self._memo

    @property
    def padding_is_real(self) -> bool:
        """Whether tokens that look like padding count as real."""
        return self._padding_is_real

    @padding_is_real.setter
    def padding_is_real(self, value: bool) -> None:
        self._padding_is_real, self._memo = value, None

    @property
    def root(self) -> CacheView:
        """The view of all prompts of the cache."""
        return self if self.part_of is None else self.part_of[0].root

    def first(self, *names: str) -> str | None:
        """Return the first of `names` that the cache holds. None if it holds none."""
        return next((name for name in names if name in self.activations), None)

    def rows(self, name: str, positions: Int[Tensor, " batch"] | None) -> Float[Tensor, "batch read ..."]:
        """Return one activation at one position of each prompt (`read` is 1), or at every position (`positions=None`).

        The result is in the working precision: float32, or float64 if the cache is float64.
        """
        return self.take(self.get(name), positions)

    def raw(self, name: str, positions: Int[Tensor, " batch"] | None) -> Float[Tensor, "batch read ..."]:
        """Return the same rows as `rows`, but in the precision of the cache, for `projection.dots`."""
        return self.pick(self.get(name), positions)

    def take(
        self, tensor: Float[Tensor, "batch pos ..."], positions: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch read ..."]:
        """Return the rows of `tensor` at `positions` (see `rows`), in the working precision."""
        return working(self.pick(tensor, positions))

    def pick(self, tensor: Tensor, positions: Int[Tensor, " batch"] | None) -> Tensor:
        """Return the rows of `tensor` at `positions`, in the precision of `tensor`."""
        import torch

        if positions is not None:
            places: list[int] = positions.tolist()
            if min(places) == max(places):
                return tensor[:, places[0] : places[0] + 1]
            prompts = torch.arange(tensor.shape[0], device=tensor.device)
            tensor = tensor[prompts, positions.to(tensor.device)].unsqueeze(1)
        return tensor

    def whole_logits(self, logits: Tensor) -> Float[Tensor, "batch pos d_vocab"]:
        """Check logits that the user passed, and return them detached, with a batch dimension.

        Raises:
            ResidscopeError: If the logits are not a tensor of floats, or do not fit the cache's prompts and positions.
        """
        return checked_logits(logits, self.batch, self.n_pos)

    def _layers(self) -> int:
        """The number of layers that the model has now. Layers may have been removed since `cfg` was made.

        Raises:
            ResidscopeError: If the cache holds activations of a layer that the model does not have.
        """
        blocks = self.model.blocks
        count = len(blocks) if hasattr(blocks, "__len__") else int(self.cfg.n_layers)
        numbers = (name.split(".", 2)[1] for name in self.activations if name.startswith("blocks."))
        beyond = sorted({int(number) for number in numbers if number.isdecimal() and int(number) >= count})
        if beyond:
            raise ResidscopeError(
                "layers",
                f"This cache holds activations of layer {beyond[-1]}, but the model has only {count} layers now. "
                "Either layers were removed after the cache was made, or another model made the cache. Run the model "
                "again, or pass the model that made the cache: `model=…`.",
            )
        return count

    # --- shape and tokens --------------------------------------------------------------------------------------------
    def _widest(self) -> int:
        """The number of heads of a layer. If layers differ, the largest number."""
        patterns = (t for name, t in self.activations.items() if name.endswith("attn.hook_pattern") and t.ndim > 2)
        return max([int(self.cfg.n_heads), *(int(t.shape[-3]) for t in patterns)])

    @property
    def given_tokens(self) -> bool:
        """Whether the token ids were passed by the user instead of read from the cache."""
        return self.root._tokens is not None

    @property
    def tokens(self) -> Int[Tensor, "batch pos"] | None:
        """The token ids: passed by the user, cached by a bridge, or recovered from `hook_embed`. Otherwise None."""
        if self._tokens is not None:
            if not self._tokens_are_checked:
                self._tokens = checked_tokens(self._tokens, self.batch, self.n_pos, embedding_size(self.model))
                self._tokens_are_checked = True
            return self._tokens
        from residscope.cache.token_ids import recover_token_ids

        held, embed = self.activations.get("embed.hook_in"), self.activations.get("hook_embed")
        extent = (self.batch, self.n_pos) if self.has_batch_dim else (self.n_pos,)
        # With `pos_slice` the cache may hold the ids of the whole prompt. They do not show which positions were kept.
        if held is None or held.is_floating_point() or tuple(held.shape) != extent:
            held = None if embed is None else recover_token_ids(embed, self.model)
        return held if held is None or self.has_batch_dim else held.unsqueeze(0)

    @property
    def other_tokens(self) -> bool:
        """Whether the token ids that the user passed differ from those that the cache holds."""
        held = self.activations.get("embed.hook_in")
        if self._tokens is None or held is None or held.is_floating_point():
            return False
        held, given = held if self.has_batch_dim else held.unsqueeze(0), self.tokens
        chosen = slice(None) if self._prompts is None else slice(self._prompts.start, self._prompts.stop)
        if given is None or held[chosen].shape != given.shape:
            return False
        return bool((held[chosen].cpu() != given.cpu()).any())

    @property
    def attention_mask(self) -> Int[Tensor, "batch pos"] | None:
        """The attention mask that the user passed, as zeros and ones on the CPU. None without one.

        Raises:
            ResidscopeError: If the mask does not consist of zeros and ones, or does not fit the shape of this cache.
        """
        if self._mask is not None and not isinstance(self._mask, _Checked):
            self._mask = _Checked(checked_mask(self._mask, self.batch, self.n_pos))
        return None if self._mask is None else self._mask.mask

    def check_prompt(self, prompt: int | None) -> int | None:
        """Return the prompt's index, counted from the start. None (the mean over prompts) stays None."""
        if prompt is None:
            return None
        try:
            prompt = index(prompt)
        except TypeError:
            raise ResidscopeError("prompt", f"`prompt={prompt!r}` is not a prompt: give a number, or None.") from None
        return check_prompt_number(prompt, self.batch)

    def check_head(self, layer: int, head: int) -> None:
        """Raise a `ResidscopeError` if the model does not have this head."""
        if not (0 <= layer < self.n_layers and 0 <= head < self.n_heads):
            raise ResidscopeError(
                "head",
                f"This model has no head L{layer}H{head}: it has layers 0 to {self.n_layers - 1} with heads 0 to "
                f"{self.n_heads - 1} each.",
            )

    def check_layer(self, layer: Any) -> int:
        """Return the layer's index, counted from the start. Raise a `ResidscopeError` if there is no such layer."""
        try:
            number = index(layer)
        except TypeError:
            raise ResidscopeError("layer", f"{layer!r} is not a layer: give a number.") from None
        if not -self.n_layers <= number < self.n_layers:
            raise ResidscopeError(
                "layer", f"There is no layer {number}: the model has layers 0 to {self.n_layers - 1}."
            )
        return number % self.n_layers

    # --- facts -------------------------------------------------------------------------------------------------------
    @property
    def model_name(self) -> str:
        """The model's name, without its organisation or folders."""
        return encodable(PurePath(str(getattr(self.cfg, "model_name", "") or type(self.model).__name__)).name)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the cache keeps. Tensors that share memory count once."""
        storages = (tensor.untyped_storage() for tensor in self.activations.values())
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())

    @property
    def stream(self) -> Tensor:
        """A floating-point activation. Its dtype and device count as those of the whole cache.

        Raises:
            ResidscopeError: If the cache holds none.
        """
        name = self.first(f"blocks.{self.n_layers - 1}.hook_resid_post")
        floats = (t for t in self.activations.values() if t.is_floating_point() and t.ndim > 1)
        found = self.activations[name] if name else next(floats, None)
        if found is None:
            raise no_floats(next(iter(self.activations)))
        return found

    @property
    def like(self) -> Tensor:
        """An empty tensor with the cache's device and the working precision, for `tensor.to(view.like)`."""
        import torch

        stream = self.stream
        exact = stream.dtype == torch.float64
        return torch.empty(0, dtype=torch.float64 if exact else torch.float32, device=stream.device)

    def rounding_step(self, *names: str) -> float:
        """Return the coarsest relative rounding step of activations in a sum. Their dtypes may differ (autocast).

        The dtypes of the model's weights count, too: a cache that was converted to a wider dtype later still holds the
        coarse values that the model computed.

        Args:
            names: The activations in the sum. Activations that the cache does not hold are ignored.
        """
        tensors = (self.activations.get(name) for name in names)
        kinds = {tensor.dtype for tensor in tensors if tensor is not None}
        return max([self.memo.once(("rounding step",), self._computed_step), *map(step_of, kinds)])

    def _computed_step(self) -> float:
        return max(step_of(self.like.dtype), stored_step(self.activations), weights_step(self.model))

    def before(self, layer: int) -> str:
        """Return the name of the stream before a layer: its `hook_resid_pre`, or the previous `hook_resid_post`.

        If neither was cached, return the name of `hook_resid_pre`.
        """
        own = f"blocks.{layer}.hook_resid_pre"
        return self.first(own, f"blocks.{layer - 1}.hook_resid_post") or own

    def after(self, layer: int) -> str:
        """Return the name of the stream after a layer: its `hook_resid_post`, or the next layer's `hook_resid_pre`."""
        own = f"blocks.{layer}.hook_resid_post"
        return self.first(own, f"blocks.{layer + 1}.hook_resid_pre") or own

    def points(self) -> list[Component]:
        """Return the points of the residual stream that the cache holds: `0_pre`, `0_mid`, …, `final_post`."""
        points: list[Component] = []
        for layer in range(self.n_layers):
            points += [Component("pre", layer)] * self.has(self.before(layer))
            points += [Component("mid", layer)] * self.has(f"blocks.{layer}.hook_resid_mid")
        return points + [Component("final_post")] * self.has(f"blocks.{self.n_layers - 1}.hook_resid_post")

    def cut(self) -> str | None:
        """Return a note if the cache holds only some of the prompt's positions (`pos_slice`)."""
        name = next((name for name in self.activations if name.endswith("attn.hook_pattern")), None)
        sources = self.n_pos if name is None else int(self.activations[name].shape[-1])
        if sources == self.n_pos:
            return None
        return (
            f"The cache holds {self.n_pos} of the prompt's {sources} positions (`pos_slice`, or past "
            "keys): the positions that it holds are numbered from 0."
        )

    def missing(self) -> list[str]:
        """Return the kinds of activations that Residscope uses but the cache does not hold for every layer."""
        kinds = ["hook_resid_pre", "hook_attn_out", "hook_mlp_out", "attn.hook_z", "attn.hook_pattern", "attn.hook_v"]
        if getattr(self.cfg, "attn_only", False):
            kinds.remove("hook_mlp_out")
        every = range(self.n_layers)
        gaps = [kind for kind in kinds if not all(self.has(f"blocks.{layer}.{kind}") for layer in every)]
        return gaps + [name for name in ("hook_embed", "ln_final.hook_scale") if not self.has(name)]


class _Checked(NamedTuple):
    """A mask whose shape and values were checked."""

    mask: Tensor
