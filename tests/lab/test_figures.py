"""The figures of RFC 8885 sections 3.1 to 3.4: what follows one, and what does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dmm_wire import dmm
from dmm_wire import mobility as mh
from dmm_wire.address import Prefix
from dmm_wire.dhcpv6.message import ClientMessage
from lab import figures
from lab.messages import Message
from lab.topology import MAAR_PLANS

T1 = MAAR_PLANS[0].endpoint
PREFIX = Prefix.parse("2001:db8:100:7::/64")
ANCHORS = ["MAAR1", "MAAR2"]
REBIND = ClientMessage(6, b"abc")

FORWARD, REPLY = ("Relay-forward", "MAAR3", "CMD"), ("Relay-reply", "CMD", "MAAR3")
UPDATES = [("PBU", "CMD", anchor) for anchor in ANCHORS]
ANSWERS = [("PBA", anchor, "CMD") for anchor in ANCHORS]
COPIES = [("PBA", anchor, "MAAR3") for anchor in ANCHORS]
OWN_UPDATES = [("PBU", "MAAR3", anchor) for anchor in ANCHORS]

LADDERS = {
    "relay": [FORWARD, *UPDATES, *ANSWERS, REPLY],
    "locator": [FORWARD, REPLY, *UPDATES, ANSWERS[0], COPIES[0], COPIES[1], ANSWERS[1]],
    "proxy": [FORWARD, REPLY, *UPDATES, *ANSWERS],
    "direct": [FORWARD, REPLY, *OWN_UPDATES, *COPIES],
}


def message(at: int, name: str, sender: str, receiver: str) -> Message:
    new = mh.PreviousMaarOption(T1, PREFIX) if sender == "CMD" else mh.ServingMaar(T1)
    options: tuple[mh.MobilityOption, ...] = (mh.ServingMaar(T1) if name == "PBU" else new,)
    place = (at, "m1", sender, receiver, name)
    match name:
        case "PBU":
            return Message(*place, mobility=mh.BindingUpdate(1, 4, options))
        case "PBA":
            return Message(*place, mobility=mh.BindingAcknowledgement(0, 1, 4, options))
        case "Relay-reply":
            told = (dmm.Visit(1, T1), dmm.PreviousMaar(PREFIX, 0, 1, False, T1))
            return Message(*place, suboptions=told, dhcpv6=REBIND)
    return Message(*place, suboptions=(dmm.Maar(T1, 0),), dhcpv6=REBIND)


def follows(mode: str, said: list[tuple[str, str, str]], *, moved: bool = True) -> bool:
    figure = figures.of_step(mode, moved=moved)
    anchors = ANCHORS if moved else []
    seen = [message(at, *each) for at, each in enumerate(said)]
    return figures.is_followed(figure, figures.told(figure, seen, "MAAR3", anchors), anchors)


@pytest.mark.parametrize("mode", LADDERS)
def test_a_ladder_follows_its_figure_and_no_other(mode: str) -> None:
    assert {figure for figure in LADDERS if follows(figure, LADDERS[mode])} == {mode}


@pytest.mark.parametrize("mode", LADDERS)
def test_without_any_of_its_messages_it_does_not(mode: str) -> None:
    for number, missing in enumerate(LADDERS[mode]):
        rest = LADDERS[mode][:number] + LADDERS[mode][number + 1 :]
        assert not follows(mode, rest), missing


@pytest.mark.parametrize("mode", LADDERS)
def test_from_the_end_to_the_beginning_it_does_not(mode: str) -> None:
    assert not follows(mode, LADDERS[mode][::-1])


@pytest.mark.parametrize("mode", LADDERS)
def test_without_the_new_option_of_a_pba_it_does_not(mode: str) -> None:
    figure = figures.of_step(mode, moved=True)
    seen = [message(at, *each) for at, each in enumerate(LADDERS[mode])]
    plain = mh.BindingAcknowledgement(0, 1, 4, ())
    number = LADDERS[mode].index(COPIES[1] if mode == "direct" else ANSWERS[1])
    seen[number] = replace(seen[number], mobility=plain)
    told = figures.told(figure, seen, "MAAR3", ANCHORS)
    assert not figures.is_followed(figure, told, ANCHORS)


def test_p_maars_do_not_wait_for_each_other() -> None:
    first, second = ([UPDATES[number], ANSWERS[number]] for number in (0, 1))
    assert follows("proxy", [FORWARD, *second, REPLY, *first]) is False
    assert follows("proxy", [FORWARD, REPLY, *second, *first])
    assert follows("proxy", [FORWARD, UPDATES[0], REPLY, ANSWERS[0], *second])
    assert follows("relay", [FORWARD, *second, *first, REPLY])
    assert not follows("relay", [FORWARD, *second, REPLY, *first])


@pytest.mark.parametrize("mode", LADDERS)
def test_a_first_attachment_is_the_same_in_all_modes(mode: str) -> None:
    assert follows(mode, [FORWARD, REPLY], moved=False)
    assert not follows(mode, [FORWARD], moved=False)
    assert follows(mode, [("PBU", "MAAR3", "CMD"), ("PBA", "CMD", "MAAR3")], moved=False)


def test_what_has_no_arrow_is_there_and_says_so() -> None:
    figure = figures.of_step("locator", moved=True)
    seen = [message(at, *each) for at, each in enumerate(LADDERS["locator"])]
    told = figures.told(figure, seen, "MAAR3", ANCHORS)
    assert [each.message for each in told] == seen
    assert [each.message.name for each in told if each.arrow is None] == ["Relay-reply"]
    assert [each.message.name for each in told if each.beside] == ["Relay-reply"]
    assert not follows("locator", [*LADDERS["locator"], OWN_UPDATES[0]])
    assert [each.peer for each in told] == ["", "", *ANCHORS, "MAAR1", "MAAR1", "MAAR2", "MAAR2"]
    assert str(told[2].arrow) == "CMD → P-MAAR PBU*"


def test_other_exchanges_with_the_cmd_are_not_the_registration() -> None:
    """The MAAR's own questions, what another client says, a message sent again."""
    figure = figures.of_step("proxy", moved=True)
    other = Message(1, "cmd", "MAAR3", "CMD", "Relay-forward", dhcpv6=ClientMessage(11, b"xyz"))
    domain = Message(2, "cmd", "CMD", "MAAR3", "Relay-reply", suboptions=(dmm.Domain((T1,)),))
    first, again = message(3, *FORWARD), message(4, *FORWARD)
    reply = message(5, *REPLY)
    told = figures.told(figure, [other, domain, first, again, reply], "MAAR3", ANCHORS)
    assert [each.message for each in told] == [first, reply]
    assert figures.told(figure, [other, domain, first], "MAAR3", ANCHORS) == []


def test_the_new_options_of_a_message_are_named_once_each() -> None:
    assert figures.new_options(message(1, *REPLY)) == ["PREVIOUS_MAAR"]
    assert figures.new_options(message(1, *FORWARD)) == []
    options = (
        mh.HomeNetworkPrefix(PREFIX),
        mh.PreviousMaarOption(T1, PREFIX),
        mh.PreviousMaarOption(T1, PREFIX),
        mh.ServingMaar(T1),
        mh.AnchoredPrefixOption(PREFIX),
        mh.LocalPrefix(PREFIX),
        mh.DlifLinkLocal(T1),
        mh.DlifLinkLayer(b"\2\0\x5e\0\x53\1"),
    )
    update = Message(1, "m1", "CMD", "MAAR1", "PBU", mobility=mh.BindingUpdate(1, 4, options))
    assert len(figures.new_options(update)) == 6


def update(at: int, anchor: str, handoff: mh.HandoffIndicatorValue) -> Message:
    options = (mh.ServingMaar(T1), mh.HandoffIndicator(handoff))
    return Message(at, "m1", "CMD", anchor, "PBU", mobility=mh.BindingUpdate(1, 4, options))


def test_what_is_said_again_is_later() -> None:
    figure = figures.of_step("proxy", moved=True)
    moved, same = mh.HandoffIndicatorValue.BETWEEN_GATEWAYS, mh.HandoffIndicatorValue.NOT_CHANGED
    seen = [message(1, *FORWARD), message(2, *REPLY)]
    seen += [update(3, "MAAR1", moved), update(4, "MAAR2", moved), message(5, *ANSWERS[1])]
    seen += [update(2000, "MAAR1", same), message(2001, *ANSWERS[0]), message(2002, *ANSWERS[1])]
    stray = message(2003, *OWN_UPDATES[0])
    first, later = figures.by_turns(figures.told(figure, [*seen, stray, stray], "MAAR3", ANCHORS))
    assert [each.message.at for each in first] == [1, 2, 3, 4, 5, 2001, 2003, 2003]
    assert [each.message.at for each in later] == [2000, 2002]
    assert [figures.is_renewal(each.message) for each in later] == [True, False]
    assert not any(figures.is_renewal(each.message) for each in first)
