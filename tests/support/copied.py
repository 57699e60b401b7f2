"""Runs the code that "Copy code" writes, and makes the expected arrays from the kernel's replies."""

from __future__ import annotations

import numpy as np

from residscope.export.code import ASSIGNED
from residscope.serving.service import Service
from residscope.wire.attention import ReadAttention, ScoreHeads
from residscope.wire.decompositions import Attribute, MapPositions, RankNeurons
from residscope.wire.predictions import ReadTokenLens
from residscope.wire.shown import Shown, WriteCode
from tests.support.rows import labels_of


def numbers(values) -> np.ndarray:
    return np.array(values, dtype=float)  # plotly keeps cells without a number as None


def written(service: Service, picture: str, shown: Shown) -> str:
    return service.reply(WriteCode(picture, shown))[0].code


def drawn(figure) -> np.ndarray:
    """Return the values of all marks in a figure."""
    marks = [trace for trace in figure.data if trace.hoverinfo != "skip"]
    held = [mark.z if mark.type == "heatmap" else mark.x if mark.orientation == "h" else mark.y for mark in marks]
    return np.concatenate([numbers(values).ravel() for values in held])


def ran(code: str, **namespace):
    """Run code in a new namespace with these names, and return its array `values`."""
    assert code.splitlines()[-1] == "figure"
    names = set(namespace)
    exec(compile(code, "cell", "exec"), namespace)
    added = set(namespace) - names - {"__builtins__", "residscope", "px"}
    assert added <= set(ASSIGNED)
    assert namespace["figure"].to_json()
    values = np.asarray(namespace["values"])
    # The figure of a token lens shows only the likeliest token of each cell. For attention as text, `values` is a sum
    # or mean over heads, but the figure shows each head.
    shown = values[..., 0] if "attribution.probabilities" in code else values
    if "the sum over heads" not in code and "the mean over heads" not in code:
        np.testing.assert_allclose(np.sort(drawn(namespace["figure"])), np.sort(shown, None), atol=1e-5, rtol=1e-5)
    return values


def pictured(service: Service, picture: str, shown: Shown) -> np.ndarray:
    """Return the array that the service's replies hold for this selection."""
    view, where = service.view(), {"prompt": shown.prompt, "position": shown.position}
    shape = (view.n_layers, view.n_heads)

    def ask(request):
        reply, buffers = service.reply(request)
        return reply, [np.frombuffer(buffer, np.float32) for buffer in buffers]

    match picture:
        case "lens":
            reply, [rows, *_] = ask(Attribute("accumulated", shown.target, norm=shown.norm, **where))
            return rows + reply.constant
        case "layers":
            return ask(Attribute("layer", shown.target, **where))[1][0]
        case "heads" if shown.score:
            return ask(ScoreHeads(shown.score, shown.prompt))[1][0].reshape(shape)
        case "heads":
            return ask(Attribute("head", shown.target, **where))[1][0][: shape[0] * shape[1]].reshape(shape)
        case "ranking" if shown.ranking == "neurons":
            return ask(RankNeurons(shown.target, shown.layer, shown.top_k, **where))[1][0]
        case "ranking":
            rows = ask(Attribute("head", shown.target, **where))[1][0][: shape[0] * shape[1]]
            order, k = np.argsort(-rows), shown.top_k
            return np.array([*(v for v in rows[order][:k] if v > 0), *(v for v in rows[order[::-1]][:k] if v < 0)])
        case "positions":
            reply, [rows, *_] = ask(MapPositions(shown.by, shown.target, shown.prompt, shown.norm, shown.heads))
            return rows.reshape(len(labels_of(reply)), reply.positions)
        case "token-lens":
            points = [f"{layer}_{part}" for layer in range(shape[0]) for part in ("pre", "mid")] + ["final_post"]
            points = [point for point in points if view.has(f"blocks.{point.replace('_', '.hook_resid_')}")] + points[
                -1:
            ]
            cells = service.reply(ReadTokenLens(points, 0, view.n_pos, shown.target, prompt=shown.prompt))[0].cells
            return np.array([[cell.probabilities for cell in row] for row in cells])
        case "prompts":
            by = "head" if shown.heads else "accumulated"
            reply, [_, _, each, constants] = ask(Attribute(by, shown.target, position=shown.position))
            labels = labels_of(reply)
            each = each.reshape(len(labels), view.batch)
            rows = each[[labels.index(head) for head in shown.heads]] if shown.heads else each[-1] + constants
            return rows[0] if len(shown.heads) == 1 else rows
        case _:
            raise AssertionError(picture)


def pictured_attention(service: Service, shown: Shown) -> tuple[np.ndarray, np.ndarray]:
    """Return the maps as the service sends them (here in float32), and their rounding steps."""
    maps, steps = [], []
    for head in shown.heads:
        layer, index = head[1:].split("H")
        ask = ReadAttention(int(layer), int(index), shown.target, shown.prompt, shown.position, shown.weighting)
        reply, buffers = service.reply(ask)
        part, buffer = next(
            (part, buffer) for part, buffer in zip(reply.parts, buffers, strict=True) if part.what == shown.weighting
        )
        assert part.wide
        map = np.zeros((reply.positions, reply.positions))
        cells = np.tril_indices(reply.positions) if part.triangle else np.indices(map.shape).reshape(2, -1)
        map[tuple(cells)] = np.frombuffer(buffer, np.float32)
        maps.append(map)
        steps.append(np.abs(map) * 2.0**-22)
    return np.array(maps), np.array(steps)
