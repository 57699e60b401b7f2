"""A replay that can be differentiated: one run serves as the check against the cache and for all estimates.

A tensor of zeros is added to the output of each module that may be a site. The gradient for these zeros is the gradient
for the output. Such a run counts as the replay only if it equals the cached run to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from residscope.causes.hooks import Hooks, has_backward_hooks, has_user_hooks
from residscope.causes.sites import Candidate, Site, SiteKind
from residscope.compute.progress import report_progress

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Tape:
    """What is needed to differentiate a replay.

    Attributes:
        kind: The kind of the sites whose gradients are computed.
        added: The zeros that were added to the output of each module. The keys are site kind, layer and the module's
            `id`.
        final: The stream after the last block, with its autograd graph.
    """

    kind: SiteKind
    added: dict[tuple[SiteKind, int, int], Tensor] = field(default_factory=dict)
    final: Any = None

    def record(self, own: Hooks, options: list[Candidate]) -> None:
        """Add a zero to each module's output during the next run."""
        import torch

        def adding(option: Candidate) -> Callable[[Tensor], Tensor | None]:
            def add(output: Tensor) -> Tensor | None:
                if not output.is_floating_point():
                    return None
                zero = torch.zeros_like(output, requires_grad=True)
                self.added[option.kind, option.layer, id(option.module)] = zero
                return output + zero

            return add

        modules: set[int] = set()
        for option in options:
            if option.kind == self.kind and id(option.module) not in modules:
                modules.add(id(option.module))
                own.after(option.module, adding(option))

    def slopes(self, sites: list[Site], value: Callable[[Tensor], Tensor], prompts: int) -> list[Tensor] | None:
        """The gradients at the sites, each `[batch, pos, *inner]`, of a value that is read from the final stream.

        None if they cannot be computed. The autograd graph is released.
        """
        import torch

        final, self.final = self.final, None
        zeros = [self.added.get((site.kind, site.layer, id(site.module))) for site in sites]
        self.added.clear()
        if final is None or any(zero is None for zero in zeros):
            return None
        known = [zero for zero in zeros if zero is not None]
        for zero in known:
            zero.register_hook(stoppable)
        with torch.inference_mode(False), torch.enable_grad():
            try:
                found = torch.autograd.grad(value(final).sum(), known, allow_unused=True)
            except RuntimeError:
                return None  # `estimated` will make its own run, and will raise the error
        slopes: list[Tensor | None] = list(found)  # None if the value does not depend on the activation
        return [
            (zero.detach() if slope is None else slope).reshape(prompts, -1, *site.inner) / site.factor
            for site, zero, slope in zip(sites, known, slopes, strict=True)
        ]


def stoppable(_slope: Tensor) -> None:
    """Report progress between two layers of a backward pass, so that the pass can be stopped there."""
    report_progress()


def can_tape(model: Any) -> bool:
    """Whether a run may be recorded on a tape: no hook of the user may notice it, and autograd can use the weights."""
    return (
        not has_user_hooks(model)
        and not has_backward_hooks(model)
        and not any(weight.is_inference() for weight in model.parameters())
    )
