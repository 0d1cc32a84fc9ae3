"""dmm_wire.duid: the DUID-EN of RFC 9915 section 11.3 that a MAAR's name stands for."""

from __future__ import annotations

import pytest

from dmm_wire.duid import named_duid

from .strategies import hexed


def test_vector() -> None:
    assert named_duid(32473, "maar1") == hexed("0002 00007ed9 6d61617231")
    assert named_duid(0xFFFFFFFF, "é") == hexed("0002 ffffffff c3a9")


@pytest.mark.parametrize("name", ["", "x" * 125, "é" * 63])
def test_name_that_does_not_fit(name: str) -> None:
    with pytest.raises(ValueError, match="124 octets"):
        named_duid(32473, name)
    assert len(named_duid(32473, "x" * 124)) == 130
