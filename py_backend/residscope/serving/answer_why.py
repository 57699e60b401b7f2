"""Answers the requests of the view "why": pairs of components, and what a head writes."""

from __future__ import annotations

from residscope.attribution import head_tokens as written
from residscope.errors import ResidscopeError
from residscope.serving.request_context import RequestContext
from residscope.terms import Token
from residscope.wire.envelope import Buffers
from residscope.wire.protocol import HeadTokensReply, PairsReply, ReadHeadTokens, ReadPairs, TokenValue


def pairs(context: RequestContext, request: ReadPairs) -> tuple[PairsReply, Buffers]:
    """An attention score by pairs of components."""
    raise ResidscopeError("protocol", "This kernel cannot answer that yet.")


def head_tokens(context: RequestContext, request: ReadHeadTokens) -> HeadTokensReply:
    """The tokens that a head writes, and those that it would write for one source."""
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
