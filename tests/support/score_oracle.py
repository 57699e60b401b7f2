"""Attention scores without Residscope: gradients and interventions through the model's own modules.

Every norm before a score is pinned: its scale stays at the value of the run. The norm's weight and bias are found from
the outputs of the model's own module for test vectors. Then a score is affine in the stream at the destination, and in
the stream at the source. So its gradient is exact, and removing a vector changes the score by that vector's row.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

NORMS = ("norm", "ln1", "ln_attn")


@dataclass
class Pinned:
    """Keeps the scales of the norms before and in a block's attention at their values in the first run."""

    block: Any
    scales: dict[tuple[Any, ...], torch.Tensor] = field(default_factory=dict)
    maps: dict[tuple[Any, ...], tuple[torch.Tensor, torch.Tensor, bool]] = field(default_factory=dict)

    def modules(self) -> list[torch.nn.Module]:
        """Return the block's first norm and all norms in its attention, without modules inside these norms."""
        found, inside = [], set()
        attention = self.block.attn
        named = [("ln1", self.block.ln1)] if hasattr(self.block, "ln1") else []
        named += [(path, module) for path, module in attention.named_modules()]
        for path, module in named:
            last = path.rpartition(".")[2].lower()
            is_norm = last.endswith(NORMS) or type(module).__name__.endswith(("Norm", "L2Norm"))
            if is_norm and id(module) not in inside and not isinstance(module, torch.nn.Identity):
                found.append(module)
                inside |= {id(child) for child in module.modules()}
        return found

    @contextmanager
    def held(self):
        """Make each of these norms affine in its input, during a `with` statement."""
        with ExitStack() as stack:
            for module in self.modules():
                handle = module.register_forward_hook(self._hook)
                stack.callback(handle.remove)
            yield

    def _hook(self, module: torch.nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor | None:
        x = inputs[0] if inputs else None
        if x is None or not isinstance(output, torch.Tensor) or x.shape != output.shape or id(module) in _probed:
            return None
        key = id(module), tuple(x.shape[1:])  # queries and keys may share a norm (Llama 4)
        if key not in self.maps:
            self.maps[key] = _affine(module, x)
        weight, bias, centres = self.maps[key]
        written = weight * (x - x.mean(-1, keepdim=True) if centres else x)
        call = (key, tuple(x.shape))
        with torch.no_grad():
            if call not in self.scales:  # the scale that the module itself used in its first call
                of_module = (written * (output - bias)).sum(-1, keepdim=True)
                self.scales[call] = (written**2).sum(-1, keepdim=True) / of_module
        return written / self.scales[call] + bias


_probed: set[int] = set()


@torch.no_grad()
def _affine(module: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """Return a norm's weight, its bias, and whether it subtracts the mean. All are found from its outputs."""
    _probed.add(id(module))
    try:
        generator = torch.Generator().manual_seed(0)
        probe = 1 + torch.rand(x.shape[-1], generator=generator, dtype=torch.float64)
        probe[1::2] *= -1
        probe = (1e3 * (probe - probe.mean())).to(x).expand(x.shape).contiguous()
        bias = module(torch.zeros_like(x))
        centres = bool(torch.allclose(module(1e3 * torch.ones_like(x)), bias, atol=1e-4))
        scale = probe.pow(2).mean(-1, keepdim=True).sqrt()
        return (module(probe) - bias) * scale / probe, bias, centres
    finally:
        _probed.discard(id(module))


@dataclass
class Run:
    """The model's own score, as a function of the stream before a layer."""

    model: Any
    tokens: torch.Tensor
    layer: int
    head: int
    destination: int
    mask: torch.Tensor | None = None

    def __post_init__(self) -> None:
        self.pinned = Pinned(self.model.blocks[self.layer])

    def score(self, change: Any) -> torch.Tensor:
        """Return the scores at the destination before any soft-cap, `[batch, source]`, up to a constant.

        Without a soft-cap, this is the logarithm of the pattern.

        Args:
            change: A function of the stream before the layer that returns what the layer reads instead.
        """
        held: dict[str, torch.Tensor] = {}
        block = self.model.blocks[self.layer]

        def replaced(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict]:
            if args and isinstance(args[0], torch.Tensor):
                return (change(args[0]), *args[1:]), kwargs
            return args, kwargs | {"hidden_states": change(kwargs["hidden_states"])}

        def kept(name: str) -> Any:
            def hook(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
                held[name] = output

            return hook

        points = {name: getattr(block.attn, name) for name in ("hook_attn_scores", "hook_pattern")}
        with ExitStack() as stack:
            stack.callback(block.register_forward_pre_hook(replaced, with_kwargs=True).remove)
            for name, point in points.items():
                stack.callback(point.register_forward_hook(kept(name)).remove)
            stack.enter_context(self.pinned.held())
            stack.enter_context(torch.enable_grad())
            options = {} if self.mask is None else {"attention_mask": self.mask}
            self.model(self.tokens, **options)
        cap = getattr(getattr(block.attn, "original_component", None), "attn_logit_softcapping", None)
        if cap:  # Residscope's rows sum to the score before its soft-cap
            scores = held["hook_attn_scores"][:, self.head, self.destination].double()
            return cap * (scores / cap).clamp(min=-1 + 1e-12).atanh()
        return held["hook_pattern"][:, self.head, self.destination].double().clamp(min=1e-300).log()

    def gradient(self, source: int, versus: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return score(d, source) − score(d, versus), `[batch]`, and its gradient, `[batch, pos, d_model]`."""
        stream: list[torch.Tensor] = []

        def leaf(x: torch.Tensor) -> torch.Tensor:
            stream.append(x.detach().clone().requires_grad_())
            return stream[0]

        logs = self.score(leaf)
        value = logs[:, source] - logs.gather(1, versus[:, None])[:, 0]
        value.sum().backward()
        gradient = stream[0].grad
        assert gradient is not None
        return value.detach(), gradient

    def without(self, vectors: torch.Tensor, position: torch.Tensor, source: int, versus: torch.Tensor) -> torch.Tensor:
        """Return the decrease of score(d, source) − score(d, versus) if vectors are removed at one position.

        The first run of this object determines the scales of the norms. So the run without a change is made first.
        """
        each = torch.arange(len(vectors))

        def taken(x: torch.Tensor) -> torch.Tensor:
            x = x.detach().clone()
            x[each, position] -= vectors.to(x)
            return x

        def value(change: Any) -> torch.Tensor:
            logs = self.score(change).detach()
            return logs[:, source] - logs.gather(1, versus[:, None])[:, 0]

        return value(lambda x: x) - value(taken)
