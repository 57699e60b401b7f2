"""Refuses runs of two models that differ in shape, or in which an answer's id is not the same token."""

from __future__ import annotations

from residscope.cache.view import CacheView
from residscope.cache.vocabulary import Vocabulary, quote
from residscope.errors import ResidscopeError
from residscope.terms import Target

_SIZES = (("heads of width", "d_head"), ("a stream of width", "d_model"), ("MLPs of width", "d_mlp"))


def check_shapes(first: CacheView, second: CacheView) -> None:
    """Refuse models of different shapes.

    Raises:
        ResidscopeError: If they differ. The message names the differences.
    """
    sizes = [_sizes(view) for view in (first, second)]
    differ = [name for name in sizes[0] if sizes[0][name] != sizes[1].get(name, sizes[0][name])]
    if not differ:
        return
    one, two = (", ".join(f"{of[name]} {name}" if name in _COUNTS else f"{name} {of[name]}" for name in differ)
                for of in sizes)  # fmt: skip
    raise ResidscopeError(
        "compare-shapes",
        f"The two models have different shapes: the first has {one}, the second {two}. Compare runs of one model, or "
        "of checkpoints of one model.",
    )


_COUNTS = ("layers", "heads per layer")


def _sizes(view: CacheView) -> dict[str, int]:
    sizes = {"layers": view.n_layers, "heads per layer": view.n_heads}
    known = ((name, getattr(view.cfg, attribute, None)) for name, attribute in _SIZES)
    return sizes | {name: int(value) for name, value in known if isinstance(value, int)}


def check_same_ids(target: Target, first: Vocabulary, second: Vocabulary) -> list[str]:
    """Refuse answers whose ids are other tokens in the second vocabulary.

    If only one model has a tokenizer, this cannot be checked, and a note is returned.

    Raises:
        ResidscopeError: If an id is another token (the message names it), or if this cannot be checked and the
            vocabularies have different sizes.
    """
    ids = {token.id for contrast in target.contrasts for token in (*contrast.answer, *contrast.distractor)}
    if not ids:
        return []
    unknown = [vocabulary.tokenizer is None for vocabulary in (first, second)]
    if any(unknown) and first.size != second.size:
        raise ResidscopeError(
            "compare-vocabulary",
            f"The first model has {first.size:,} tokens and the second {second.size:,}, and without both tokenizers it "
            "is not known whether the answers' ids mean the same tokens: set `model.tokenizer`.",
        )
    if any(unknown):
        one = "One of the models has no tokenizer: the answers' ids were taken to mean the same tokens in both."
        return [] if all(unknown) else [one]
    for id in sorted(ids):
        if id >= second.size or first.text(id) != second.text(id):
            there = quote(second.text(id)) if id < second.size else "no token"
            raise ResidscopeError(
                "compare-vocabulary",
                f"The token id {id} is {quote(first.text(id))} in the first model and {there} in the second: their "
                "vocabularies differ, so their logits cannot be compared.",
            )
    return []


def same_vocabulary(first: CacheView, second: CacheView) -> bool:
    """Return whether ids certainly mean the same tokens in both runs, because both have the same model."""
    return first.model is second.model
