"""The program of `test_two_processes`: `accelerate launch` runs it in each of two processes.

python -m accelerate.commands.launch --multi_gpu --num_processes 2 … many_worker.py FOLDER
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator

import residscope
from tests.support import tiny

COUNT = 5  # odd, so that one process has more items than the other
ANSWERS = ("w5", "w6")


def item(model, number: int, made: list[int] | None = None):
    """Return the cache of one to three prompts, and their answers. Cache and answers are the same in every process."""
    if made is not None:
        made.append(number)
    torch.manual_seed(number)
    tokens = torch.randint(3, tiny.VOCAB, (1 + number % 3, 7))
    _, cache = model.run_with_cache(tokens)
    return cache, [ANSWERS] * len(tokens)


def main(folder: Path) -> None:
    accelerator = Accelerator(cpu=True)
    rank = accelerator.process_index
    model = tiny.boot("native")
    made: list[int] = []
    items = [partial(item, model, number, made) for number in range(COUNT)]
    many = partial(residscope.attribute_many, accelerator=accelerator)
    found: dict[str, object] = {"processes": accelerator.num_processes}

    whole = many(items)
    found["made"] = made.copy()
    summary = many(items, by="neuron", keep="summary")
    given = many([partial(item, model, number) for number in range(COUNT)][rank::2], split=False)
    effects = residscope.ablate_many(items, accelerator=accelerator)
    each = many(item(model, number) for number in range(COUNT))  # with an iterator, each process makes all caches

    def broken():
        raise RuntimeError("the tokenizer is gone")

    path = folder / "kept.npz"
    made.clear()
    try:
        many([*items[:3], broken, items[4]], resume=path)  # item 3 belongs to process 1
    except Exception as error:
        found["error"], found["done"] = f"{type(error).__name__}: {error}", made.copy()

    def interrupted():
        raise KeyboardInterrupt

    try:
        many([*items[:3], interrupted])
    except BaseException as error:
        found["interrupt"] = [f"{type(error).__name__}: {error}", sorted(set(error.partial.items))]  # pyright: ignore
    found["left"] = sorted(file.name for file in folder.glob("kept*"))
    accelerator.wait_for_everyone()
    made.clear()
    resumed = many(items, resume=path)
    found["made_again"] = made.copy()

    found |= {"items": whole.items, "same": [torch.equal(r.values, whole.values) for r in (given, each, resumed)]}
    torch.save(
        {
            "values": whole.values,
            "measured": whole.measured,
            "mean": summary.mean(),
            "std": summary.std(),
            "total": effects.total,
            "sem": effects.sem("indirect"),
        },
        folder / f"tensors-{rank}.pt",
    )
    (folder / f"found-{rank}.json").write_text(json.dumps(found))
    accelerator.end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
