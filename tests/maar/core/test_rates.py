"""How often the CMD may be asked about nodes."""

from __future__ import annotations

from relay_maar.core.rates import Rates

ACCESS, OTHER = "access0", "access1"


def test_who_is_still_here_leaves_half_of_it_to_those_who_come() -> None:
    """A crowd that is confirmed all at once does not keep one from being noticed."""
    rates = Rates(rate=10, burst=100)
    still = [rates.may_ask(ACCESS, 1.0, spare=True) for _ in range(100)]
    assert still == [True] * 51 + [False] * 49
    come = [rates.may_ask(ACCESS, 1.0, spare=False) for _ in range(100)]
    assert come == [True] * 49 + [False] * 51
    assert not rates.may_ask(ACCESS, 1.05, spare=False)
    assert rates.may_ask(ACCESS, 1.15, spare=False)
    assert not rates.may_ask(ACCESS, 5.0, spare=True)
    assert rates.may_ask(ACCESS, 6.2, spare=True)


def test_each_link_has_its_own() -> None:
    """Who makes addresses up on one link keeps no node of another from being noticed."""
    rates = Rates(rate=10, burst=100)
    assert sum(rates.may_ask(ACCESS, 1.0, spare=False) for _ in range(500)) == 100
    assert sum(rates.may_ask(OTHER, 1.0, spare=False) for _ in range(500)) == 100
    assert sum(rates.may_ask(ACCESS, 2.0, spare=False) for _ in range(500)) == 10
