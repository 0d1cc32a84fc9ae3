"""What the recorded stories are worth: each of these mistakes, made on purpose, changes what is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from dhcp_cmd.core import relay_options
from dhcp_cmd.pmip import compose, outbox
from dhcp_cmd.pmip.holding import Holding, Released
from dmm_wire.dmm import SignallingMode
from dmm_wire.mobility import HandoffIndicator, HandoffIndicatorValue, serving
from relay_maar.core import binding_updates, registering, signalling
from relay_maar.core.agent import Agent
from relay_maar.core.cache import BindingCache
from relay_maar.core.desired import Wanted
from relay_maar.core.order import Order
from relay_maar.core.registrations import Registrations
from tests.maar.core.stories import CASTS, name, play, recorded, stories

Patch = pytest.MonkeyPatch
EVERY: Final = tuple(cast.name for cast in CASTS)
RELAY: Final = ("relay", "relay-pmip")
LOCATOR: Final = ("locator", "locator-pmip")
PROXY: Final = ("proxy", "proxy-pmip")
PMIP: Final = tuple(each for each in EVERY if each.endswith("-pmip"))
FED: Final = tuple(each for each in EVERY if each not in PMIP)
CMD: Final = RELAY + LOCATOR + PROXY


def a_maar_repeats_its_number(patch: Patch) -> None:
    real = signalling.Signalling._transmit

    def same(self: Any, identity: Any, peer: Any, exchange: Any, now: float) -> Any:
        if exchange.sequences:
            self._sequence[peer] = exchange.sequences[-1] - 1
        return real(self, identity, peer, exchange, now)

    patch.setattr(signalling.Signalling, "_transmit", same)


def the_cmd_repeats_its_number(patch: Patch) -> None:
    real = outbox.Outbox.send

    def same(self: Any, key: Any, peer: Any, *rest: Any) -> Any:
        if self._exchanges[key].sequences:
            self._numbers[peer] = self._exchanges[key].sequences[-1][1] - 1
        return real(self, key, peer, *rest)

    patch.setattr(outbox.Outbox, "send", same)


def a_registration_repeats_its_number(patch: Patch) -> None:
    real = registering.Registering._send

    def same(self: Any, *rest: Any, **more: Any) -> Any:
        self._sequence = 0
        return real(self, *rest, **more)

    patch.setattr(registering.Registering, "_send", same)


def the_wait_does_not_double(patch: Patch) -> None:
    for module in (signalling, outbox, registering):
        patch.setattr(module, "MAX_BINDACK_TIMEOUT", 1)


def _indicates(value: int) -> Callable[[Patch], None]:
    return lambda patch: patch.setattr(
        serving, "HandoffIndicator", lambda _: HandoffIndicator(value)
    )


def a_registration_indicates_a_handover(patch: Patch) -> None:
    real = HandoffIndicatorValue.BETWEEN_GATEWAYS
    patch.setattr(registering, "HandoffIndicator", lambda _: HandoffIndicator(real))


def four_seconds_too_long(patch: Patch) -> None:
    real = serving.lifetime_of
    for module in (signalling, compose):
        patch.setattr(module, "lifetime_of", lambda *a, **k: real(*a, **k) + 4)


def _without(what: str) -> Callable[[Patch], None]:
    """A PBU that leaves out the last prefix of these."""

    def leave_out(patch: Patch) -> None:
        real = serving.Notice.update

        def update(self: serving.Notice, sequence: int) -> Any:
            return real(self._replace(**{what: getattr(self, what)[:-1]}), sequence)

        patch.setattr(serving.Notice, "update", update)

    return leave_out


def the_serving_maar_sends_no_pbu(patch: Patch) -> None:
    real = signalling.Signalling.due
    patch.setattr(signalling.Signalling, "due", lambda self, now: ([], real(self, now)[1]))


def the_cmd_answers_before_the_pbas(patch: Patch) -> None:
    def hold(self: Any, message: Any, answer: Any, hold: Any, until: float) -> Any:
        return [Released(answer, ())]

    patch.setattr(Holding, "hold", hold)


def the_cmd_waits_for_the_pbas(patch: Patch) -> None:
    patch.setattr(relay_options, "_RELAY", SignallingMode.PROXY)


def the_s_maar_gets_no_copy(patch: Patch) -> None:
    patch.setattr(Registrations, "_copy", lambda self, *rest: [])


def the_kernel_drops_before_it_puts(patch: Patch) -> None:
    real = Wanted._changes
    patch.setattr(Wanted, "_changes", lambda self, keys: real(self, keys)[::-1])


def routes_before_their_tunnel(patch: Patch) -> None:
    patch.setattr("relay_maar.core.desired.rank", lambda item: 0)


def _hurries(whose: str) -> Callable[[Patch], None]:
    """That one does not wait until the kernel has it."""

    def hurry(patch: Patch) -> None:
        real = BindingCache.after

        def after(self: Any, items: Any, then: Any, now: float) -> Any:
            if getattr(then, "__qualname__", "").startswith(whose):
                return then(now)
            return real(self, items, then, now)

        patch.setattr(BindingCache, "after", after)

    return hurry


def a_pbu_before_the_kernel(patch: Patch) -> None:
    real = signalling.Signalling.release

    def release(self: Any, identity: Any, confirmed: Any, now: float) -> bool:
        return real(self, identity, lambda peer, binding: True, now)

    def with_due(self: Any, actions: Any, now: float) -> Any:
        return actions + self._flush(now)

    patch.setattr(signalling.Signalling, "release", release)
    patch.setattr(Agent, "_with_due", with_due)


def a_late_pbu_is_believed(patch: Patch) -> None:
    patch.setattr(binding_updates, "_stale", lambda *_: False)


def an_overtaken_pbu_is_answered(patch: Patch) -> None:
    patch.setattr(Order, "is_overtaken", lambda *_: False)


MISTAKES: Final[dict[str, tuple[tuple[str, ...], Callable[[Patch], None]]]] = {
    "a retransmission has the same number": (("direct",), a_maar_repeats_its_number),
    "the CMD's has": (CMD, the_cmd_repeats_its_number),
    "a registration's has": (PMIP, a_registration_repeats_its_number),
    "the wait does not double": (EVERY, the_wait_does_not_double),
    "a move is called a refresh": (EVERY, _indicates(5)),
    "a refresh is called a move": (EVERY, _indicates(3)),
    "a registration calls itself a move": (PMIP, a_registration_indicates_a_handover),
    "a lifetime is too long": (EVERY, four_seconds_too_long),
    "a prefix is missing": (EVERY, _without("named")),
    "a prefix elsewhere is missing": (EVERY, _without("served")),
    "the S-MAAR sends no PBU": (("direct",), the_serving_maar_sends_no_pbu),
    "relay answers before the PBAs": (RELAY, the_cmd_answers_before_the_pbas),
    "proxy waits for the PBAs": (PROXY, the_cmd_waits_for_the_pbas),
    "locator without copies": (LOCATOR, the_s_maar_gets_no_copy),
    "break before make": (EVERY, the_kernel_drops_before_it_puts),
    "routes before their tunnel": (EVERY, routes_before_their_tunnel),
    "an anchor answers before its kernel": (EVERY, _hurries("Registrations.")),
    "a Reply before the kernel": (FED, _hurries("Agent.")),
    "a PBU before the kernel": (("direct",), a_pbu_before_the_kernel),
    "a late PBU is believed": (EVERY, a_late_pbu_is_believed),
    "an overtaken PBU is answered": (EVERY, an_overtaken_pbu_is_answered),
}
CASES: Final = [(each, cast) for each, (names, _) in MISTAKES.items() for cast in names]


@pytest.mark.interpreted
@pytest.mark.parametrize(("mistake", "cast"), CASES, ids=[f"{c}, {m}" for m, c in CASES])
def test_a_mistake_shows(mistake: str, cast: str, monkeypatch: Patch) -> None:
    (who,) = (each for each in CASTS if each.name == cast)
    told = recorded(who)
    MISTAKES[mistake][1](monkeypatch)
    shortest = sorted(stories(who), key=lambda story: story.anchors)
    assert any(play(who, story).text() != told[name(story)] for story in shortest)
