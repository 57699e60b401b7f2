"""`npm run docs`: the results of ARENA's section on logit attribution, by the course's method and by Residscope.

The left columns come from TransformerLens' own functions, as in the course. These functions need a model in
compatibility mode. The right columns come from `residscope.attribute`, on the same cache and on the raw model's cache.
"""

from __future__ import annotations

from pathlib import Path

import torch
import transformer_lens
from einops import rearrange

import residscope
from residscope import demo


def main(path: Path) -> None:
    """Run everything and write the document."""
    raw = demo.ioi()
    folded_model = demo.load()
    folded_model.enable_compatibility_mode()
    folded = demo.ioi(folded_model)
    with torch.no_grad():
        path.write_text("\n".join([*head(folded), *difference(raw, folded), *lens(raw, folded), *layers(raw, folded),
                                   *heads(raw, folded), *patterns(raw, folded)]) + "\n")  # fmt: skip
    print(path)


def head(run: demo.Ioi) -> list[str]:
    """Return the introduction of the page."""
    return [
        "# The tutorial, number by number",
        "",
        "ARENA's section on logit attribution (direct logit attribution, logit lens, layer and head attribution, "
        "attention",
        f"patterns) on the demo model ({run.model.cfg.n_layers} layers × {run.model.cfg.n_heads} heads, "
        f"{len(run.prompts)} prompts). "
        "“Tutorial” is the course's method: TransformerLens'",
        f"{version()} functions, `apply_ln_to_stack`, a projection on the difference of two residual directions, on a "
        f"model in",
        "compatibility mode (on a raw bridge `apply_ln_to_stack` leaves out the norm's weight). “Residscope” is one "
        "call, on",
        "the same cache and on that of the raw model. All values are logit differences, answer − distractor, as means "
        "over the",
        "prompts if no prompt is named. Made by `npm run docs`; do not edit.",
    ]


def version() -> str:
    """Return the installed version of TransformerLens."""
    from importlib.metadata import version as installed

    return installed(transformer_lens.__name__)


def directions(run: demo.Ioi) -> torch.Tensor:
    """Return the tutorial's logit difference directions, `[batch, d_model]`."""
    answer, distractor = run.model.tokens_to_residual_directions(run.answer_tokens).unbind(dim=1)
    return answer - distractor


def projected(run: demo.Ioi, stack: torch.Tensor) -> torch.Tensor:
    """Return the tutorial's `residual_stack_to_logit_diff` for each prompt: `[..., batch]`."""
    scaled = run.cache.apply_ln_to_stack(stack, layer=-1, pos_slice=-1)
    return (scaled * directions(run)).sum(-1)


def difference(raw: demo.Ioi, folded: demo.Ioi) -> list[str]:
    """Return the section on the logit difference, from the logits and from the final residual stream."""
    own = folded.logits[:, -1].gather(1, folded.answer_tokens)
    own = own[:, 0] - own[:, 1]
    stream = projected(folded, folded.cache["resid_post", -1][:, -1])
    mine = residscope.attribute(folded.cache, folded.answers, by="layer")
    bare = residscope.attribute(raw.cache, raw.answers, by="layer")
    rows = zip(
        folded.prompts, own, stream, mine.measured, bare.measured, bare.values.sum(0) + bare.constant, strict=True
    )
    lines = [f"| {prompt} | " + " | ".join(f"{float(v):+.6f}" for v in values) + " |" for prompt, *values in rows]
    means = [t.mean() for t in (own, stream, mine.measured, bare.measured, bare.values.sum(0) + bare.constant)]
    return [
        "",
        "## Logit difference, and the final residual stream on the logit difference direction",
        "",
        "| prompt | logits | tutorial: stream · direction | Residscope, compatible: `measured` | raw: `measured` | "
        "raw: Σ rows + `constant` |",
        "|---|---:|---:|---:|---:|---:|",
        *lines,
        "| **mean** | " + " | ".join(f"**{float(v):+.6f}**" for v in means) + " |",
    ]


def compared(
    title: str, call: str, labels: list[str], theirs: torch.Tensor, mine: torch.Tensor, bare: torch.Tensor
) -> list[str]:
    """Return a table of rows, and the largest difference of any row in any prompt."""
    assert theirs.shape == mine.shape == bare.shape
    rows = zip(labels, theirs.mean(-1), mine.mean(-1), bare.mean(-1), strict=True)
    return [
        "",
        f"## {title}",
        "",
        f"{len(labels)} rows × {theirs.shape[-1]} prompts; `{call}`. Largest difference from the tutorial's value in "
        f"any row of",
        f"any prompt: {gap(mine, theirs)} on the same cache, {gap(bare, theirs)} on the raw model's.",
        "",
        "<details><summary>All rows, mean over the prompts</summary>",
        "",
        "| row | tutorial | Residscope, compatible | Residscope, raw |",
        "|---|---:|---:|---:|",
        *(f"| `{label}` | {float(a):+.6f} | {float(b):+.6f} | {float(c):+.6f} |" for label, a, b, c in rows),
        "",
        "</details>",
    ]


def gap(a: torch.Tensor, b: torch.Tensor) -> str:
    """Return the largest difference, in logits."""
    return f"{float((a - b).abs().max()):.1e}"


def lens(raw: demo.Ioi, folded: demo.Ioi) -> list[str]:
    """Return the section on the logit lens."""
    stack, labels = folded.cache.accumulated_resid(layer=-1, incl_mid=True, pos_slice=-1, return_labels=True)
    mine, bare = (residscope.attribute(run.cache, run.answers, by="accumulated") for run in (folded, raw))
    assert labels == mine.labels == bare.labels
    call = 'residscope.attribute(cache, answers, by="accumulated")'
    return compared("Logit lens", call, labels, projected(folded, stack), mine.values, bare.values)


def layers(raw: demo.Ioi, folded: demo.Ioi) -> list[str]:
    """Return the section on layer attribution."""
    stack, labels = folded.cache.decompose_resid(layer=-1, pos_slice=-1, return_labels=True)
    mine, bare = (residscope.attribute(run.cache, run.answers, by="layer") for run in (folded, raw))
    assert labels == mine.labels == bare.labels
    call = 'residscope.attribute(cache, answers, by="layer")'
    return compared("Layer attribution", call, labels, projected(folded, stack), mine.values, bare.values)


def heads(raw: demo.Ioi, folded: demo.Ioi) -> list[str]:
    """Return the section on head attribution."""
    layers, per_layer = folded.model.cfg.n_layers, folded.model.cfg.n_heads
    stack = folded.cache.stack_head_results(layer=-1, pos_slice=-1)
    theirs = rearrange(projected(folded, stack), "(layer head) batch -> layer head batch", layer=layers)
    mine, bare = (residscope.attribute(run.cache, run.answers) for run in (folded, raw))
    means = theirs.mean(-1).flatten()
    strongest = [*means.topk(5).indices.tolist(), *(-means).topk(5).indices.tolist()]
    grids = [theirs, mine.grid, bare.grid]
    rows = [
        f"| L{i // per_layer}H{i % per_layer} | "
        + " | ".join(f"{float(g.mean(-1).flatten()[i]):+.6f}" for g in grids)
        + " |"
        for i in strongest
    ]
    return [
        "",
        "## Head attribution",
        "",
        f"{layers} × {per_layer} heads × {theirs.shape[-1]} prompts; `residscope.attribute(cache, answers).grid`. "
        f"Largest difference from the",
        f"tutorial's value of any head in any prompt: {gap(mine.grid, theirs)} on the same cache, "
        f"{gap(bare.grid, theirs)} on the raw model's.",
        f"`unexplained` in the worst prompt: {float(bare.unexplained.abs().max()):.1e}. The five strongest of each "
        f"sign",
        "(`.top(5)` gives the same, in this order):",
        "",
        "| head | tutorial | Residscope, compatible | Residscope, raw |",
        "|---|---:|---:|---:|",
        *rows,
    ]


def patterns(raw: demo.Ioi, folded: demo.Ioi) -> list[str]:
    """Return the section on the attention of the strongest heads of each sign, from the first prompt's last token."""
    per_layer = folded.model.cfg.n_heads
    means = residscope.attribute(folded.cache, folded.answers).grid.mean(-1).flatten()
    rows = []
    words = raw.model.to_str_tokens(raw.tokens[0])
    for index in [*means.topk(3).indices.tolist(), *(-means).topk(3).indices.tolist()]:
        layer, head = divmod(index, per_layer)
        theirs = folded.cache["pattern", layer][0, head, -1]
        result = residscope.attribute(raw.cache, raw.answers, by="source", heads=[(layer, head)])
        brings = result.values[:, 0, 0]
        source = int(theirs.argmax())
        most = int(brings.abs().argmax())
        rows.append(
            f"| L{layer}H{head} | {words[source]!r} ({source}) | {float(theirs[source]):.4f} "
            f"| {words[most]!r} ({most}) "
            f"| {float(brings[most]):+.4f} | {float(brings.sum()):+.4f} | {float(result.measured[0, 0]):+.4f} |"
        )
    return [
        "",
        "## Attention of the top heads",
        "",
        f"The three strongest heads of each sign, in the first prompt, from its last token, {words[-1]!r}. The "
        f"tutorial draws the pattern; ",
        "Residscope also gives the contribution of each source: "
        '`residscope.attribute(cache, answers, by="source", heads=["23.3"])`.',
        "",
        "| head | attends most to | attention | largest source contribution | its value | Σ sources | the head's own "
        "contribution |",
        "|---|---|---:|---|---:|---:|---:|",
        *rows,
    ]


if __name__ == "__main__":
    main(Path(__file__).resolve().parents[2] / "py_backend/docs/tutorial.md")
