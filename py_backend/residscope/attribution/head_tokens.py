"""The tokens that a head writes: the logits of its output, and of its output for a single source.

Source: "A Mathematical Framework for Transformer Circuits" (the OV circuit). Here it is applied to vectors of this run,
with norms frozen at their cached scales. So a token's logit equals the head's row of `attribute` with this token as the
target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from einops import einsum, rearrange

from residscope.attribution.head_inputs import ALL, check_heads, gated, head_inputs, read_names
from residscope.attribution.head_split import unchecked
from residscope.attribution.readout import Readout
from residscope.attribution.stream_target import StreamTarget
from residscope.attribution.sublayer_parts import head_outputs
from residscope.attribution.targets import Targets
from residscope.cache.finite import check_finite
from residscope.cache.norms import odd_final_norm
from residscope.cache.output_maps import out_weight, why_unread
from residscope.cache.positions import left_out, mean_note, notes_on, real, resolve
from residscope.cache.unembedding import unembedding_of_stream
from residscope.compute.precision import working
from residscope.compute.projection import project
from residscope.errors import ResidscopeError
from residscope.session.change_notes import changed
from residscope.terms import Contrast, Position, Target, Token

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor


@dataclass(frozen=True)
class WrittenTokens:
    """Tokens with the logits that a vector writes for them.

    Attributes:
        top: The tokens with the highest logits, the highest first.
        bottom: The tokens with the lowest logits, the lowest first.
    """

    top: list[tuple[Token, float]]
    bottom: list[tuple[Token, float]]


@dataclass(frozen=True)
class HeadTokens:
    """The tokens that a head writes at a destination, for one prompt or as the mean over prompts.

    Attributes:
        output: The tokens written by the head's output.
        source: The position of the source that is read. None if `of_source` is None.
        of_source: The tokens that the head would write with attention 1 to this source and 0 to all other sources. None
            if these tokens cannot be determined (`notes` give the reason).
        notes: Notes on these numbers, in sentences.
    """

    output: WrittenTokens
    source: int | None
    of_source: WrittenTokens | None
    notes: list[str]


def head_tokens(
    targets: Targets,
    place: tuple[int, int],
    prompt: int | None,
    position: Position = "last",
    source: int | None = None,
    k: int = 5,
) -> HeadTokens:
    """Return the tokens for which a head's output has the highest and the lowest logits.

    Each number is the head's contribution to the logit of a token, through the output path of the head's layer, the
    final norm at the cached scale, the unembedding and the logit scale. Biases that belong to no head are not included.

    Args:
        targets: The cache and its vocabulary.
        place: Layer and index of the head.
        prompt: The prompt. None: the mean over prompts.
        position: The destination.
        source: The source. None: the source with the most attention.
        k: The number of tokens with the highest logits, and of tokens with the lowest logits.

    A mean is over the prompts in which the destination is not padding, and for a source, in which neither of the two
    is.

    Raises:
        ResidscopeError: If there is no such head or position, if the position is padding in every prompt of a mean, if
            the head's output is not known, or if the heads of the layer do not add up to the layer's output.
    """
    import torch

    whole, (layer, head) = targets.view, place
    whole.check_head(layer, head)
    where, at = resolve(whole, position), None if source is None else resolve(whole, source)
    assert where is not None  # a destination is one position of each prompt
    prompts = range(whole.batch) if prompt is None else range(prompt, prompt + 1)
    padded, view = left_out(whole, where, prompt), whole.only(prompts)
    used = torch.ones(len(prompts), dtype=torch.bool, device="cpu") if padded is None else ~padded
    no_target = view.like.new_zeros(view.batch, int(view.cfg.d_model))
    readout = Readout(view, where[prompts.start : prompts.stop], no_target, no_target[:, 0])
    W_O = out_weight(view, layer)
    if W_O is None:
        raise ResidscopeError("no-heads", why_unread(view, layer, "attn") or f"Layer {layer} has no attention heads.")
    check_heads(layer, [head], W_O.shape[0])
    cut = W_O.shape[0], W_O.shape[1]
    z = working(head_outputs(view, readout.positions, layer, cut))[:, 0, head]
    output = _written(targets, readout, layer, z, W_O[head], k, used)
    checked = StreamTarget(targets, Target([Contrast([output.top[0][0]], [])]), where)
    notes = changed(whole) + checked.check(layer) + unchecked(whole, [layer]) + odd_final_norm(whole)
    notes += _output_notes(targets) + notes_on(whole, position, where, prompt)
    try:
        read = head_inputs(view, readout.positions, layer, [head], cut)
    except ResidscopeError as error:
        return HeadTokens(output, None, None, [*notes, str(error)])
    if read.unexplained() > max(1e-3, 8 * view.rounding_step(*read_names(view, layer))):
        return HeadTokens(output, None, None, [*notes, _NOT_FROM_SOURCES])
    is_source = real(view) if len(prompts) > 1 else torch.ones_like(real(view))
    chosen = _most_attended(read.part(ALL, ALL, ALL)[:, 0, 0], is_source & used[:, None]) if at is None else int(at[0])
    used = used & is_source[:, chosen]
    if not bool(used.any()):
        return HeadTokens(output, None, None, [*notes, _NEVER_BOTH.format(chosen)])
    if not bool(is_source[:, chosen].all()):
        notes.append(mean_note(f"Source {chosen}", int((~is_source[:, chosen]).sum()), len(prompts)))
    notes += gated(whole, [layer]) + (_differing(targets, chosen, used) if len(prompts) > 1 else [])
    value = read.v[:, 0, chosen] if read.gate is None else read.v[:, 0, chosen] * read.gate[:, 0, 0]
    return HeadTokens(output, chosen, _written(targets, readout, layer, value, W_O[head], k, used), notes)


def _most_attended(paid: Float[Tensor, "batch source"], real: Bool[Tensor, "batch source"]) -> int:
    """The source with the most attention, in the mean over the prompts in which it is real."""
    real = real.to(paid.device)
    return int((paid.masked_fill(~real, 0).sum(0) / real.sum(0)).nan_to_num(-1.0).argmax())


_NOT_FROM_SOURCES = (
    "What this head would write for a single source is not known, because its `hook_z` is not pattern @ v."
)


_NEVER_BOTH = (
    "In each prompt, the destination or source {} is padding, so a mean of what this head would write for this source "
    "has no values."
)


def _written(
    targets: Targets,
    readout: Readout,
    layer: int,
    z: Float[Tensor, "batch d_head"],
    W_O: Tensor,
    k: int,
    used: Bool[Tensor, " batch"],
) -> WrittenTokens:
    """The tokens that a head's `z` writes, in the mean over these prompts. The mean is taken before the unembedding."""
    vectors = einsum(z, W_O.to(z), "batch d_head, d_head d_model -> batch d_model")
    vectors = readout.output_path(layer, "attn").push(rearrange(vectors, "batch d_model -> 1 batch d_model"))[0]
    norm, divisor = readout.norm, readout.functional.divisor
    vectors = norm.centre(vectors) / divisor
    vectors = vectors if norm.weight is None else vectors * norm.weight
    mean = vectors[used.to(vectors.device)].mean(0, keepdim=True)
    W_U, _ = unembedding_of_stream(targets.view)
    logits = project(W_U.T, mean.to(W_U.device))[0][: targets.vocabulary.size] * targets.output.scale
    check_finite(targets.view, logits)
    count = min(max(k, 1), len(logits))

    def listed(largest: bool) -> list[tuple[Token, float]]:
        found = logits.topk(count, largest=largest)
        pairs = zip(found.indices.tolist(), found.values.tolist(), strict=True)
        return [(targets.vocabulary.token(id), value) for id, value in pairs]

    return WrittenTokens(listed(True), listed(False))


def _output_notes(targets: Targets) -> list[str]:
    output, notes = targets.output, list[str]()
    if output.scale != 1:
        notes.append(f"The model multiplies its logits by {output.scale:.4g}; these logits include this factor.")
    if output.cap > 0:
        notes.append(f"The model soft-caps its logits at {output.cap:g}: these are the logits before the cap.")
    return notes


def _differing(targets: Targets, source: int, used: Bool[Tensor, " batch"]) -> list[str]:
    """A note if these prompts have different tokens at the source."""
    tokens = targets.view.tokens
    count = 1 if tokens is None else len(set(tokens[used.to(tokens.device), source].tolist()))
    if count == 1:
        return []
    return [f"Source {source} is {count} different tokens in these prompts: the values of the prompts are averaged."]
