"""Answers the requests of the view "why": pairs of components, and what a head writes."""

from __future__ import annotations

from residscope.attribution import head_tokens as written
from residscope.attribution.pair_map import strongest
from residscope.attribution.pairs import pairs_of
from residscope.serving.request_context import RequestContext
from residscope.terms import ComponentTable, Token
from residscope.wire.decompositions import PairsReply, ReadPairs
from residscope.wire.envelope import Buffers, float32, number
from residscope.wire.predictions import HeadTokensReply, ReadHeadTokens, TokenValue


def pairs(context: RequestContext, request: ReadPairs) -> tuple[PairsReply, Buffers]:
    """Answer with an attention score, split into pairs of a query component and a key component.

    The k strongest components of each side have rows and columns of their own. The last row and the last column have
    the sums of all others.
    """
    import torch

    view = context.view
    prompt, target = view.check_prompt(request.prompt), context.targets.resolve(request.target)
    found = pairs_of(view, target, prompt=prompt)
    values = found.of(prompt)
    rows, columns = strongest(values, request.k)
    cells = values.new_zeros(len(rows) + 1, len(columns) + 1)
    cells[:-1, :-1] = values[rows][:, columns]
    cells[:-1, -1] = values[rows].sum(1) - cells[:-1, :-1].sum(1)
    by_column = values[:, columns].sum(0)
    cells[-1] = torch.cat([by_column, (values.sum() - by_column.sum())[None]]) - cells[:-1].sum(0)
    reply = PairsReply(
        ComponentTable.of(found.query[row] for row in rows),
        ComponentTable.of(found.key[column] for column in columns),
        len(found.query) - len(rows),
        len(found.key) - len(columns),
        number(found.measured.mean() if prompt is None else found.measured[prompt]),
        found.notes,
    )
    return reply, [float32(cells)]


def head_tokens(context: RequestContext, request: ReadHeadTokens) -> HeadTokensReply:
    """Answer with the tokens that a head writes, and those that it would write with attention 1 to one source."""
    view = context.view
    prompt, place = view.check_prompt(request.prompt), (request.layer, request.head)
    found = written.head_tokens(context.targets, place, prompt, request.position, request.source, request.k)
    of_source = found.of_source or written.WrittenTokens([], [])
    return HeadTokensReply(
        request.layer,
        request.head,
        found.source,
        output_top=_listed(found.output.top),
        output_bottom=_listed(found.output.bottom),
        source_top=_listed(of_source.top),
        source_bottom=_listed(of_source.bottom),
        notes=found.notes,
    )


def _listed(tokens: list[tuple[Token, float]]) -> list[TokenValue]:
    return [TokenValue(token, value) for token, value in tokens]
