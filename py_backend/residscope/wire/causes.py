"""Messages for which the user's model is run with something replaced."""

from __future__ import annotations

from typing import Literal

from residscope.terms import Against, Number, Position, Replaced, ReplacedBy, Target
from residscope.wire.message import Reply, Request


class MeasureEffects(Request, frozen=True, tag="effects"):
    """The effects on the target if heads, or the stream at a layer and position, are replaced in runs of the model.

    Runs are made only in turns on the kernel's main thread, between cells. Each turn takes a moment. The reply has the
    effects that are known so far. The view sends the request again until nothing is left to measure. The buffers are
    float32 [layer × head], or [layer × position] for the stream: the total effect, the direct effect, and the estimate
    of the total effect. NaN means not known (yet). For `"zero"` and `"mean"`, values are what the component adds: minus
    the change of the target. For `"other"`, they are the change of the target.

    Attributes:
        of: What is replaced.
        replaced_by: What takes its place.
        against: The compared run, for `"other"`.
        measure: Whether to continue measuring. If not, the reply only has what is known.
        stop: Whether to make no more runs. Ignored with `measure`.
    """

    target: Target
    of: Replaced = "heads"
    replaced_by: ReplacedBy = "zero"
    against: Against | None = None
    prompt: Number | None = None
    position: Position = "last"
    measure: bool = True
    stop: bool = False


class EffectsReply(Reply, frozen=True, tag="effects"):
    """The effects so far (see `MeasureEffects`).

    Attributes:
        of: What is replaced.
        state: Whether all is measured (`done`), measuring waits for a turn (`waiting`), or it was stopped.
        turn: The token with which `residscope.hosts.turns.take` takes the turn. None if measuring does not wait.
        done: The number of measured effects.
        total: The number of all effects. 0 before it is known.
        before: The target in the unchanged run. None before it is known.
        replayed: The comparison of the unchanged run with the cache, in words. Empty before it is known.
        replaced_by: What takes the place of the activation, in words.
        prompts: The number of prompts in the mean.
        notes: Notes on these numbers.
    """

    of: Replaced
    state: Literal["waiting", "done", "stopped"]
    turn: str | None
    done: int
    total: int
    before: float | None
    replayed: str
    replaced_by: str
    prompts: int
    notes: list[str]


class RunWithout(Request, frozen=True, tag="without"):
    """Runs the model without some heads, so that `Compare` can compare this run. For turns see `MeasureEffects`."""

    against: Against


class WithoutReply(Reply, frozen=True, tag="without"):
    """Whether there is a run without these heads, and how the unchanged run compares with the cache."""

    state: Literal["waiting", "done"]
    turn: str | None
    replayed: str
    notes: list[str]


Requests = MeasureEffects | RunWithout
Replies = EffectsReply | WithoutReply
