"""A replay that can be differentiated: one run serves as the check against the cache and for all estimates.

Zeros are added to the outputs of the modules that may be sites, and only these zeros have a gradient. Such a run counts
as the replay only if it is the cached one to the last bit.
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
        kind: The sites whose gradients are wanted.
        added: The zero that was added to the output of each module, by its site kind, layer and `id`.
        final: The stream after the last block, with its graph.
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
        """The gradient of a value of the final stream at each site, `[batch, pos, *inner]`; None if there is none.

        The graph is released.
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
                return None  # the estimates make a run of their own, and say why there are none
        slopes: list[Tensor | None] = list(found)  # None: nothing reads the activation
        return [
            (zero.detach() if slope is None else slope).reshape(prompts, -1, *site.inner) / site.factor
            for site, zero, slope in zip(sites, known, slopes, strict=True)
        ]


def stoppable(_slope: Tensor) -> None:
    """Called between two layers while gradients are computed, which can be stopped there."""
    report_progress()


def can_tape(model: Any) -> bool:
    """Whether a run of the model may be recorded: not if there are hooks that may notice it."""
    return (
        not has_user_hooks(model)
        and not has_backward_hooks(model)
        and not any(weight.is_inference() for weight in model.parameters())
    )
