"""What the CMD answers to what is no PBU and no PBA (RFC 6275 section 9.2)."""

from __future__ import annotations

from dmm_wire.dmm import SignallingMode
from dmm_wire.mobility import BindingError, BindingErrorStatus, decode_binding_error
from tests.maar.core.modes_world import CMD, ModesWorld
from tests.maar.core.world import endpoint, fix_checksum

HOME_TEST_INIT = bytes((59, 1, 1, 0, 0, 0, 0, 0)) + bytes(8)


def test_an_unknown_type_gets_a_binding_error_once_a_second() -> None:
    world = ModesWorld(SignallingMode.PROXY, 1)
    octets = fix_checksum(HOME_TEST_INIT, endpoint(1), CMD)
    for wait in (0.0, 0.5, 0.6):
        world.now += wait
        world.hear(endpoint(1), octets)
    error = BindingError(BindingErrorStatus.UNRECOGNIZED_MH_TYPE)
    said = [(to, decode_binding_error(data, CMD, to)) for to, data in world.errors]
    assert said == [(endpoint(1), error)] * 2
    assert world.signaller.outcomes["mobility-type"] == 3
    assert world.signaller.outcomes["binding-error-sent"] == 2
