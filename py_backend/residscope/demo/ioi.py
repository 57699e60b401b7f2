"""The indirect object identification task (IOI): eight prompts, the right and the wrong names, and a run of a model.

The task is from Wang et al., "Interpretability in the Wild" (2022). A sentence names two people, and then names one of
them again as the giver. The right next word is the name of the other person.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from residscope.base.packages import first_line, import_failure, is_missing
from residscope.demo.errors import DemoError
from residscope.demo.model import demo_model_folder, quiet_transformers

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor
    from transformer_lens import ActivationCache
    from transformer_lens.model_bridge import TransformerBridge

_TEMPLATES = (
    ("When {0} and {1} went to the shops, {2} gave the bag to", "John", "Mary"),
    ("When {0} and {1} went to the park, {2} gave the ball to", "Tom", "James"),
    ("When {0} and {1} went to the shops, {2} gave an apple to", "Dan", "Sid"),
    ("After {0} and {1} went to the park, {2} gave a drink to", "Martin", "Amy"),
)


@dataclass(frozen=True)
class Ioi:
    """One run of the eight prompts.

    Prompts come in pairs that differ only in the giver. The right name of one prompt of a pair is the giver of
    the other prompt.

    Attributes:
        model: The model, as `TransformerBridge.boot_transformers` returns it.
        prompts: The eight sentences, without BOS.
        tokens: The token ids, beginning with BOS. If the model's tokenizer makes prompts of different lengths, it pads
            the shorter ones.
        answers: For each prompt, the right name and the wrong name (the giver), with leading spaces.
        answer_tokens: The token ids of these names.
        logits: The model's output, in logits.
        cache: All activations of this run.
    """

    model: TransformerBridge
    prompts: list[str]
    tokens: Int[Tensor, "batch pos"]
    answers: list[tuple[str, str]]
    answer_tokens: Int[Tensor, "batch 2"]
    logits: Float[Tensor, "batch pos d_vocab"]
    cache: ActivationCache

    def __repr__(self) -> str:
        batch, pos = self.tokens.shape
        return f"Ioi({self.model.cfg.model_name}, {batch} prompts of {pos} tokens, {len(self.cache)} activations)"


def load(model: str | None = None) -> TransformerBridge:
    """Boot a model with TransformerLens.

    Args:
        model: A folder, or a name on the Hugging Face hub such as `"gpt2"`. By default the value of the environment
            variable `RESIDSCOPE_DEMO_MODEL`, otherwise the demo model.

    Returns:
        The model from `TransformerBridge.boot_transformers`, with raw weights: nothing is folded into them.

    Raises:
        DemoError: If the model or TransformerLens cannot be loaded. The message says why.
    """
    name = model or os.environ.get("RESIDSCOPE_DEMO_MODEL") or None
    folder = demo_model_folder() if name is None else local_folder(name)
    try:
        with _quiet_boot(folder is not None):
            from transformer_lens.model_bridge import TransformerBridge
    except Exception as error:  # incompatible packages may raise anything
        raise DemoError(_why_not_imported(error)) from error
    with _quiet_boot(folder is not None):
        try:
            bridge = cast("Any", TransformerBridge).boot_transformers(str(folder or name))
        except Exception as error:
            raise DemoError(_why_not_opened(str(folder or name), folder is not None, error)) from error
    if folder is not None:
        bridge.cfg.model_name = folder.name  # without the path, because the name is shown on screen
    return cast("TransformerBridge", bridge)


def ioi(model: str | TransformerBridge | None = None) -> Ioi:
    """Run the eight prompts of the indirect object identification task.

    Args:
        model: A booted model, or a folder or a hub name as in `load`. By default the demo model.

    Returns:
        The run: model, prompts, tokens, answers, logits and cache.

    Raises:
        DemoError: If the model cannot be loaded, or its tokenizer splits one of the names into several tokens.

    Example:
        >>> run = residscope.demo.ioi()
        >>> residscope.inspect(run.cache, answers=run.answers)
    """
    import torch

    bridge = load(model) if model is None or isinstance(model, str) else model
    prompts: list[str] = []
    answers: list[tuple[str, str]] = []
    for template, first, second in _TEMPLATES:
        for giver, other in ((first, second), (second, first)):
            prompts.append(template.format(first, second, giver))
            answers.append((f" {other}", f" {giver}"))
    ids = [[_one_token(bridge, name) for name in pair] for pair in answers]
    with torch.no_grad():
        tokens = bridge.to_tokens(prompts, prepend_bos=True)
        logits, cache = cast("Any", bridge).run_with_cache(tokens)
    answer_tokens = torch.tensor(ids, dtype=torch.long, device=tokens.device)
    return Ioi(bridge, prompts, tokens, answers, answer_tokens, logits, cache)


def local_folder(name: str) -> Path | None:
    """Return the path of a model folder. None if the name is a name on the Hugging Face hub.

    Raises:
        DemoError: If the name has the form of a path, but there is no model at this path.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        if (path / "config.json").is_file():
            return path.resolve()
        raise DemoError(
            f"{path} is a folder without a config.json. Give a folder that save_pretrained has written, or a hub name."
        )
    if path.is_absolute() or path.exists() or "\\" in name or name.startswith(("./", "../", "~")):
        raise DemoError(
            f"There is no model folder {path}. Check the path, or leave the model out to use the demo model."
        )
    return None


def _one_token(model: TransformerBridge, name: str) -> int:
    """The token id of a name, which must be a single token."""
    ids = cast("Any", model).to_tokens(name, prepend_bos=False)[0].tolist()
    if len(ids) != 1:
        tokens = " + ".join(repr(token) for token in cast("Any", model).to_str_tokens(name, prepend_bos=False))
        raise DemoError(
            f"{name!r} is {len(ids)} tokens for this model's tokenizer ({tokens}), but the prompts need names of "
            "one token each. Use another model, or run your own prompts and call residscope.inspect on their cache."
        )
    return int(ids[0])


_ONLY_THE_DEMO = "Residscope itself reads this version's caches: `residscope.inspect(cache, answers)`."


def _why_not_imported(error: Exception) -> str:
    """The message for a failed import: TransformerLens is missing or too old, or cannot be imported."""
    try:
        installed = version("transformer-lens")
    except PackageNotFoundError:
        installed = ""
    numbers = tuple(int(part) for part in re.findall(r"\d+", installed)[:2])
    if not installed and is_missing(error, "transformer_lens"):
        return "The demo needs TransformerLens 3.9 or later, but it is not installed: `pip install transformer-lens`."
    if numbers and numbers < (3, 9):
        return (
            f"The demo needs TransformerLens 3.9 or later (this is {installed}): "
            f"`pip install -U transformer-lens`. {_ONLY_THE_DEMO}"
        )
    return (
        f"TransformerLens {installed} is installed here, but cannot be imported ({import_failure(error)}): two "
        "packages of this environment are incompatible, or one is incomplete. Reinstall the package that is named "
        "(torch and torchvision must be matching releases), or use a new environment."
    )


def _why_not_opened(name: str, local: bool, error: Exception) -> str:
    """The message for a model that could not be opened."""
    reason = first_line(error)
    if isinstance(error, ImportError):  # transformers imports a model's code only when it is opened
        return (
            f"The model in {name} could not be opened, because a package that it needs cannot be imported "
            f"({import_failure(error)}). Reinstall the package that is named (torch and torchvision must be matching "
            "releases), or use a new environment."
        )
    if local:
        return (
            f"The model in {name} could not be opened ({reason}); check that TransformerLens supports its architecture."
        )
    unreachable = ("connect", "connection", "offline", "resolve", "timed out", "max retries")
    if any(word in reason.lower() for word in unreachable):
        return (
            f"{name!r} is a name on the Hugging Face hub, which cannot be reached from here. Check the connection, "
            "give a local folder, or leave the model out to use the demo model."
        )
    return f"The model {name!r} could not be opened ({reason}); check its name on the Hugging Face hub."


@contextmanager
def _quiet_boot(local: bool) -> Generator[None]:
    """Hide the progress bar of a local model, and the hub's retry messages, from the notebook."""
    from huggingface_hub.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        if local:
            with quiet_transformers():
                yield
        else:
            yield
    finally:
        logging.set_verbosity(level)
