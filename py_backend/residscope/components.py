"""The rows of each decomposition: what a part of the model writes into the target.

Weights are projected onto the target's direction first, so no tensor has a `d_model` axis per head or per neuron.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .cache import CacheView
from .errors import ResidscopeError
from .norms import tensor_of
from .readout import Functional, Readout

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Labelled rows; the first `parts` of them are what was asked for (heads, neurons), the others the rest."""

    labels: list[str]
    values: Float[Tensor, "component batch pos"]
    parts: int | None = None


Worth = Callable[["Tensor"], "Tensor"]


def accumulated(readout: Readout, worth: Worth) -> Rows:
    """The stream before each layer, between its sublayers (where the model has such a point), and at the end."""
    view = readout.view
    names = {}
    for layer in range(view.n_layers):
        names[f"{layer}_pre"] = f"blocks.{layer}.hook_resid_pre"
        if view.has(f"blocks.{layer}.hook_resid_mid"):  # blocks with attention and MLP side by side have none
            names[f"{layer}_mid"] = f"blocks.{layer}.hook_resid_mid"
    names["final_post"] = f"blocks.{view.n_layers - 1}.hook_resid_post"
    return _worth_of(readout, worth, names)


def layers(readout: Readout) -> Rows:
    """The embeddings, and each layer's attention and MLP output."""
    view = readout.view
    names = embeddings(view)
    for layer in range(view.n_layers):
        names |= _sublayers(view, layer)
    return _worth_of(readout, readout.functional, names)


def heads(readout: Readout) -> Rows:
    """Every head (layer-major), each layer's attention bias, then MLPs and embeddings."""
    view = readout.view
    labels: list[str] = []
    values: list[Tensor] = []
    biases: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    for layer in range(view.n_layers):
        names |= {label: name for label, name in _sublayers(view, layer).items() if label != f"{layer}_attn_out"}
        if not view.has_heads(layer):
            continue
        direction, divisor, bias = head_directions(readout, layer)
        z = view.rows(f"blocks.{layer}.attn.hook_z", readout.positions)  # [batch, pos, head, d_head]
        values.append(_einsum(z, direction, "batch pos head d_head, batch head d_head -> head batch pos") / divisor)
        labels += [f"L{layer}H{head}" for head in range(view.n_heads)]
        if bias is not None:
            biases[f"{layer}_attn_bias"] = bias
    if not labels:
        raise ResidscopeError("no-heads", 'This model has no attention heads: use `by="layer"` or `by="accumulated"`.')
    return _with_rest(readout, labels, values, biases, names | embeddings(view))


def neurons(readout: Readout, wanted: Sequence[int]) -> Rows:
    """Every MLP neuron of the wanted layers, their MLP biases, then all other sublayers and the embeddings."""
    view = readout.view
    labels, values, biases = split_mlps(readout, wanted)
    names: dict[str, str] = {}
    for layer in range(view.n_layers):
        names |= _sublayers(view, layer)
        if layer in wanted:
            del names[f"{layer}_mlp_out"]
    return _with_rest(readout, labels, [values], biases, names | embeddings(view))


def split_mlps(
    readout: Readout, wanted: Sequence[int]
) -> tuple[list[str], Float[Tensor, "neuron batch pos"], dict[str, Float[Tensor, "batch pos"]]]:
    """The neurons of the wanted layers, by name, and these layers' MLP bias rows."""
    import torch

    labels: list[str] = []
    values: list[Tensor] = []
    biases: dict[str, Tensor] = {}
    for layer in wanted:
        direction, divisor, bias = neuron_directions(readout, layer)
        post = readout.view.rows(f"blocks.{layer}.mlp.hook_post", readout.positions)  # [batch, pos, d_mlp]
        values.append(_einsum(post, direction, "batch pos neuron, batch neuron -> neuron batch pos") / divisor)
        labels += [f"L{layer}N{neuron}" for neuron in range(direction.shape[1])]
        if bias is not None:
            biases[f"{layer}_mlp_bias"] = bias
    return labels, torch.cat(values), biases


def head_directions(
    readout: Readout, layer: int
) -> tuple[Float[Tensor, "batch head d_head"], Float[Tensor, "batch pos"], Float[Tensor, "batch pos"] | None]:
    """What each unit of `z` is worth, W_O[h] @ g; what to divide by; and the layer's bias row, if it has one."""
    functional = readout.writer(layer, "ln1_post")
    block = readout.view.model.blocks[layer]
    W_O = block.attn.W_O.detach().to(functional.vector)
    direction = _einsum(W_O, functional.vector, "head d_head d_model, batch d_model -> batch head d_head")
    return direction, functional.divisor, _bias(functional, block.attn, "b_O", getattr(block, "ln1_post", None))


def neuron_directions(
    readout: Readout, layer: int
) -> tuple[Float[Tensor, "batch d_mlp"], Float[Tensor, "batch pos"], Float[Tensor, "batch pos"] | None]:
    """What each unit of `post` is worth, W_out @ g; what to divide by; and the MLP's bias row, if it has one.

    Raises:
        ResidscopeError: If this layer's MLP is no plain one (a mixture of experts has several W_out).
    """
    view = readout.view
    mlp = getattr(view.model.blocks[layer], "mlp", None)
    W_out = tensor_of(getattr(mlp, "W_out", None))
    if W_out is None or W_out.ndim != 2:
        raise ResidscopeError("no-neurons", f"The MLP of layer {layer} cannot be split: it {_no_neurons(mlp)}")
    functional = readout.writer(layer, "ln2_post")
    direction = functional.vector @ W_out.to(functional.vector).T
    bias = _bias(functional, mlp, "b_out", getattr(view.model.blocks[layer], "ln2_post", None))
    return direction, functional.divisor, bias


def layers_with_neurons(view: CacheView, wanted: Any = None) -> list[int]:
    """The layers whose MLPs can be split: the wanted ones, or by default all that have neurons.

    Raises:
        ResidscopeError: If a wanted layer does not exist or has no neurons, or none has.
    """
    if wanted is not None:
        return [view.check_layer(layer) for layer in ([wanted] if hasattr(wanted, "__index__") else wanted)]
    found = [layer for layer in range(view.n_layers) if has_neurons(view, layer)]
    if not found:
        mlp = getattr(view.model.blocks[0], "mlp", None)
        raise ResidscopeError("no-neurons", f"No MLP of this model can be split: it {_no_neurons(mlp)}")
    return found


def without_neurons(view: CacheView, wanted: Sequence[int]) -> list[str]:
    """A note on the layers that are not split."""
    others = [str(layer) for layer in range(view.n_layers) if layer not in wanted]
    return [f"Not split into neurons: layer {', '.join(others)}."] if others else []


def has_neurons(view: CacheView, layer: int) -> bool:
    """Whether this layer's MLP is one matrix of neurons."""
    W_out = tensor_of(getattr(getattr(view.model.blocks[layer], "mlp", None), "W_out", None))
    return W_out is not None and W_out.ndim == 2


def embeddings(view: CacheView) -> dict[str, str]:
    """The rows of the embeddings, and the activations they are read from."""
    names = {"embed": "hook_embed"}
    return names | {"pos_embed": "hook_pos_embed"} if view.has("hook_pos_embed") else names


def _no_neurons(mlp: Any) -> str:
    why = "is not there" if mlp is None else "has no single W_out (as in a mixture of experts)"
    return f'{why}, so there are no neurons to list. `by="layer"` has it as a whole.'


def _sublayers(view: CacheView, layer: int) -> dict[str, str]:
    """The rows of a layer's sublayers, and the activations they are read from."""
    names = {f"{layer}_attn_out": f"blocks.{layer}.hook_attn_out"}
    if not getattr(view.cfg, "attn_only", False):
        names[f"{layer}_mlp_out"] = f"blocks.{layer}.hook_mlp_out"
    return names


def _bias(functional: Functional, module: Any, name: str, output_norm: Any) -> Tensor | None:
    """What a sublayer's bias adds, with that of the norm on its output, whose bias is the functional's constant."""
    bias = tensor_of(getattr(module, name, None))
    if bias is None:
        norm_bias = tensor_of(getattr(output_norm, "bias", getattr(output_norm, "b", None)))
        return None if norm_bias is None else functional.constant
    return functional.constant + (functional.vector @ bias.to(functional.vector))[:, None] / functional.divisor


def _with_rest(
    readout: Readout, labels: list[str], values: list[Tensor], biases: dict[str, Tensor], names: dict[str, str]
) -> Rows:
    """Parts, biases, and every other sublayer as a whole."""
    import torch

    rest = _worth_of(readout, readout.functional, names)
    rows = [*values, *(bias.unsqueeze(0) for bias in biases.values()), rest.values]
    return Rows([*labels, *biases, *rest.labels], torch.cat(rows), len(labels))


def _worth_of(readout: Readout, worth: Worth, names: dict[str, str]) -> Rows:
    import torch

    values = [worth(readout.view.rows(name, readout.positions)) for name in names.values()]
    return Rows(list(names), torch.stack(values))


def _einsum(a: Tensor, b: Tensor, shapes: str) -> Tensor:
    from einops import einsum

    return einsum(a, b, shapes)
