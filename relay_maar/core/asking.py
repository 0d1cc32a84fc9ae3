"""How the CMD is asked about a node: by a Relay-forward (`relay_maar.core.questions`) or by a PBU
(`relay_maar.core.registrar`). That is all in which the two kinds of signalling differ where nodes come
and go: when to ask, and when to ask the node itself, is one and the same (`relay_maar.core.attaching`).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple, Protocol

from dmm_wire import dmm
from dmm_wire.identity import Identity
from relay_maar.core.actions import Action
from relay_maar.core.noticed import Ask, Pace, Place, Why
from relay_maar.core.session import Attachment, Session

Visit = Callable[
    [Identity, Attachment, dmm.Visit, tuple[dmm.SubOption, ...], float],
    tuple[list[Action], Session | None],
]
"""How a visit is taken in."""


class Served(NamedTuple):
    """The CMD says that the node is here, what it is called, and what it has."""

    name: Identity
    visit: dmm.Visit
    suboptions: tuple[dmm.SubOption, ...]


class Verdict(Enum):
    """Why the CMD does not say that a node is here."""

    STALE = "stale"
    """It knows of a later visit elsewhere."""
    REFUSED = "refused"
    """It does not move the node, now."""
    UNKNOWN = "unknown"
    """There is nothing to serve the node with."""
    AGAIN = "again"
    """The question was wrong, and is put right."""


class Answer(NamedTuple):
    """What the CMD says to the question with this transaction id."""

    transaction_id: bytes
    what: Served | Verdict


class Asking(Protocol):
    """A way to ask the CMD."""

    @property
    def pace(self) -> Pace:
        """How a question is repeated."""

    @property
    def deregisters(self) -> bool:
        """Whether the CMD is told of a node that is gone when what it granted ends."""

    def ask(self, ask: Ask, now: float) -> list[Action]:
        """Ask about a node that came, or is still here."""

    def silent(self, session: Session, place: Place, why: Why, now: float) -> list[Action]:
        """A node that is here does not answer."""

    def ends(self, session: Session) -> float:
        """When what the CMD said of a node here ends if it is not asked again; infinity for never."""
