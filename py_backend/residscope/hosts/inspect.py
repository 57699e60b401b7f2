"""`residscope.inspect`: shows a cache in the output of a notebook's cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from residscope.hosts.panel import Panel, running_shell
from residscope.serving.service import Service
from residscope.session import saes
from residscope.session.caches import name_of
from residscope.terms import Answers, CacheLike, Heads, MaskLike, ModelLike

if TYPE_CHECKING:
    from torch import Tensor


def inspect(
    cache: CacheLike,
    answers: Answers = None,
    *,
    prompt: int | None = None,
    position: int | Literal["last"] = "last",
    heads: Heads = (),
    sae: object = None,
    logits: Tensor | None = None,
    tokens: Tensor | None = None,
    attention_mask: MaskLike = None,
    model: ModelLike = None,
    generated_from: int | None = None,
    segments: Any = None,
    lens: Any = None,
    name: str | None = None,
    show: bool = True,
) -> Panel:
    """Show a cache in the cell's output: logit lens, layers, heads and attention, linked.

    Args:
        cache: An `ActivationCache` that is already in memory. The model is not run again, and the cache is not changed.
        answers: The target, as in `residscope.attribute`. By default the model's two top predictions.
        prompt: The prompt to show first. None: the mean over prompts.
        position: The destination position. `"last"`: each prompt's last real token.
        heads: Heads to pin, such as `["L23H3", "29.0"]`.
        sae: An SAE or a transcoder as in `residscope.attribute`, a list of several, or a dictionary of several by name.
            The tab "features" shows its features. By default, the tab uses the SAEs in the notebook's variables whose
            configuration names an activation of this model.
        logits: The model's output `[batch, pos, d_vocab]`, if the cache does not hold it. The sum of all contributions
            is compared with it.
        tokens: Token ids `[batch, pos]`, if the cache does not hold them.
        attention_mask: 1 for each real token, 0 for padding, `[batch, pos]`. By default padding is detected, see
            `docs/padding.md`.
        model: The model, if `cache.model` was deleted.
        generated_from: The position of the first generated token, which is the length of the prompt in tokens. None:
            no token was generated. A mark in the row of tokens shows where the generated text begins.
        segments: Folds the row of tokens into segments: `"sentence"`, `"line"`, `"turn"`, `"tag"`, your own ranges such
            as `[("question", 0, 12)]`, or the result of `residscope.segments`.
        lens: A tuned lens, a Jacobian lens or your own, as in `attribute`. The views that read the stream then have a
            choice: the stream as it is (plain), or after the lens' map (transported). The maps stay in the kernel.
        name: A name for the cache. By default the variable's name.
        show: Whether to show the panel at once. With False, you place it yourself, for example in a `VBox`.

    Returns:
        The panel. Its `heads`, `prompt`, `position` and `target` can be read, set, and linked with ipywidgets.

    Raises:
        ResidscopeError: If the cache or an argument cannot be used. The message says why and what to do.
    """
    given: dict[str, Any] = {"logits": logits, "tokens": tokens, "attention_mask": attention_mask, "model": model}
    given |= {"generated_from": generated_from, "lens": lens, "saes": saes.named(sae)}
    service = Service(cache, name or name_of(cache), **given)
    transport = "plain" if lens is None else "transported"
    with service.unchanging():
        panel = None
        try:
            panel = Panel(service, answers, prompt=prompt, position=position, heads=heads, transport=transport)
            if segments is not None:
                panel.segments = segments
            if show and running_shell() is not None:
                panel.prepare()
            if show:
                panel.show()
        except BaseException:  # a wrong argument, or an interrupt: release the cache
            if panel is not None:
                panel.close()
            service.release()
            raise
    return panel
