"""Reads the forms in which a user may write answers: tokens, pairs and sets, arrays, tables and ranges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from residscope.attribution.inner_targets import InnerTarget
from residscope.base.legible import cut
from residscope.cache.vocabulary import Vocabulary
from residscope.errors import ResidscopeError
from residscope.terms import Contrast, Target, Token


def is_array(value: object) -> bool:
    """Return whether a value is a torch tensor, a numpy array, or a scalar of either."""
    return not isinstance(value, str) and hasattr(value, "ndim") and hasattr(value, "tolist")


def unpacked(answers: Any) -> Any:
    """Return columns of tables, numpy arrays and ranges as lists. Arrays of floats (directions) stay arrays."""
    if isinstance(answers, range):
        return list(answers)
    if hasattr(answers, "to_numpy") and hasattr(answers, "ndim"):  # pandas
        answers = answers.to_numpy()
    kind = getattr(getattr(answers, "dtype", None), "kind", None)  # torch's dtypes have no `kind`
    if kind is None or isinstance(answers, str):  # also a numpy string, which has a dtype
        return answers
    return answers.astype("float64") if kind == "f" else entries(answers)  # native byte order, which torch can read


def has_target(answers: object) -> bool:
    """Whether a list, tuple or set of answers contains a target object or a `Target`, at any depth."""
    if not isinstance(answers, list | tuple | set | frozenset):
        return False
    parts = cast("list[Any]", list(answers))
    return any(isinstance(part, InnerTarget | Target) or has_target(part) for part in parts)


def entries(answers: Any) -> list[Any]:
    """An array of ids or texts as a list of answers: one answer or one pair for each prompt."""
    rows, shape = answers.tolist(), list(answers.shape)
    if not shape:
        return [rows]
    if len(shape) == 1:
        return rows
    if len(shape) == 2 and shape[1] in (1, 2):
        return [tuple(row) if len(row) == 2 else row[0] for row in rows]
    raise ResidscopeError(
        "answers", f"An array of answers is [batch] or [batch, 2], but this one has the shape {shape}."
    )


def check_columns(pair: tuple[object, ...], batch: int) -> None:
    """Refuse a pair of lists that could mean two columns (an entry for each prompt) or two sets of tokens."""
    lengths = [len(side) if isinstance(side, list) else 0 for side in pair]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if len(pair) == 2 and batch > 1 and batch in lengths:
        raise ResidscopeError(
            "answers",
            f"{shortened(pair)} can be read in two ways, because there are {batch} prompts. For one "
            "pair for each prompt, write a list: `list(zip(answers, distractors))`. For sets of tokens, whose mean "
            "is taken in every prompt, write `({…}, {…})`.",
        )


def contrast_of(answer: Any, vocabulary: Vocabulary, notes: list[str]) -> Contrast:
    """Return the contrast that one answer names. Notes on how it was read are added to `notes`."""
    if is_array(answer) and answer.ndim == 1 and len(answer) == 2:  # a row of an array `[batch, 2]`
        answer = tuple(answer.tolist())
    if isinstance(answer, tuple):
        if len(answer) != 2:
            raise ResidscopeError(
                "answers", f"A pair is (answer, distractor), but {answer!r} has {len(answer)} entries."
            )
        if any(isinstance(side, tuple) for side in answer):
            raise ResidscopeError(
                "answers",
                f"{answer!r} contains pairs: give the pairs of several prompts as a list, [(…, …), (…, …)].",
            )
        return Contrast(_tokens(answer[0], vocabulary, notes), _tokens(answer[1], vocabulary, notes))
    if isinstance(answer, list):
        raise ResidscopeError(
            "answers",
            f"{answer!r} could be a pair or a set: write a pair as a tuple, (answer, distractor), and a set as {{…}}.",
        )
    return Contrast(_tokens(answer, vocabulary, notes), [])


def _tokens(side: Any, vocabulary: Vocabulary, notes: list[str]) -> list[Token]:
    """The tokens of one side of a contrast. The side is a token, or a list or set of tokens (for their mean)."""
    if isinstance(side, str):
        check = vocabulary.require(side)
        if check.tokens[0].text != side.replace("▁", " ") and check.message not in notes:
            notes.append(check.message)
        return check.tokens
    if is_array(side) and side.ndim == 0:
        side = side.item()
    if isinstance(side, int) and not isinstance(side, bool):
        return [vocabulary.token(side)]
    if is_array(side) or hasattr(side, "to_numpy"):
        raise ResidscopeError(
            "answers",
            "A side of a pair is one token or a set of tokens, not an array or a column of a table. Give a list "
            "with a pair for each prompt, `list(zip(answers, distractors))`, or all ids as one tensor, "
            "`torch.stack([answers, distractors], dim=1)`.",
        )
    if isinstance(side, list | set | frozenset | tuple):
        if not side:
            raise ResidscopeError("answers", "A side of the answers is empty: give at least one token.")
        if isinstance(side, set | frozenset):  # Python's order of a set differs between kernels
            parts = [_tokens(part, vocabulary, notes) for part in sorted(side, key=repr)]
            return [token for part in sorted(parts, key=_ids) for token in part]
        return [token for part in side for token in _tokens(part, vocabulary, notes)]
    raise ResidscopeError(
        "answers",
        f"{shortened(side)} is not an answer{_kind_hint(side)}: give a token as text or id, a pair (answer, "
        "distractor), a list with one of these for each prompt, or a tensor of ids, [batch] or [batch, 2].",
    )


def _ids(tokens: list[Token]) -> list[int]:
    return [token.id for token in tokens]


def shortened(value: object) -> str:
    """The `repr` of a value, shortened."""
    return cut(repr(value), 80)


def _kind_hint(value: object) -> str:
    """A hint for a value of the wrong kind. Empty if there is none."""
    if isinstance(value, Mapping):
        return ", but a dict"
    return " (write `list(…)` around it)" if isinstance(value, Iterator) else ""
