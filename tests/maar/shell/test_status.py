"""What `relay-maar status` shows a person."""

from __future__ import annotations

import pytest

from relay_maar.cli import _print_status

ADDRESS = "ca:cd:ab:cl:ok:ng"
"""Not one of a link, but of the same form: what has a name between colons here is a picture to some."""


def test_addresses_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    entry = {"prefix": "2001:db8::/64", "role": "local", "anchor": "::1", "lifetime": 9.6}
    session = {
        "identity": f"eui48:{ADDRESS}",
        "here": True,
        "present": False,
        "attachment": {"interface": "a[b]"},
        "prefixes": [entry],
    }
    gone = {"identity": "duid:01", "here": False, "serving": "::2", "prefixes": []}
    stays = gone | {"prefixes": [entry | {"lifetime": None}]}
    _print_status(
        {
            "name": "maar[/]",
            "endpoint": "2001:db8:ff::1",
            "driver": "seg6",
            "domain": {"peers": [], "known": False},
            "links": {"a[b]": "up"},
            "sessions": [session, gone, stays],
            "routers": [
                {
                    "link_local": "fe80::1",
                    "link_layer": ADDRESS,
                    "interface": "a[b]",
                    "anchor": "::1",
                    "nodes": 1,
                }
            ],
            "tunnels": ["2001:db8:ff::cd:2"],
            "counters": {"seen.mld": 1},
        }
    )
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert shown[0][:5] == ["maar[/]:", "endpoint", "2001:db8:ff::1,", "driver", "seg6,"]
    assert shown[1] == ["a[b]", "up"]
    node = [f"eui48:{ADDRESS}", "a[b]", "(silent)", "2001:db8::/64", "local", "::1", "10"]
    assert node in shown
    assert ["duid:01", "::2", "-", "-", "-", "-"] in shown
    assert ["duid:01", "::2", "2001:db8::/64", "local", "::1", "for", "ever"] in shown
    assert ["fe80::1", ADDRESS, "a[b]", "::1", "1"] in shown
    assert ["tunnel", "to", "2001:db8:ff::cd:2"] in shown
