"""The section of the configuration file: what it gives, and one line for every error."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dhcp_cmd.core.model import ConfirmPolicy, ConflictPolicy, RouterChoice, Settings
from dhcp_cmd.plugin import config, config_security
from dhcp_cmd.pmip.settings import PACING, PmipSettings
from dmm_wire.address import Prefix, parse_address
from dmm_wire.dmm import SignallingMode
from dmm_wire.mobility.guard import TOLERANCE
from dmm_wire.mobility.security import Declared, KeyEntry
from tests.cmd.plugin import messages as m

ROOT = Path(__file__).parents[3]

TOP = """
<duid-en server-id>
    enterprise-number 32473
    identifier 636d64
</duid-en>
<logging>
</logging>
<listen-unicast 2001:db8:dead::1/>
"""


def write(
    directory: Path, *lines: str, top: str = TOP, database: str = "sqlite:///cmd.sqlite"
) -> str:
    """A configuration file with our section, whose own lines begin at line 2."""
    path = directory / "cmd.conf"
    section = "\n".join(("<central-mobility-database>", *lines, f"database {database}"))
    path.write_text(f"{section}\n</central-mobility-database>\n{top}")
    return str(path)


def test_defaults(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert config.settings(path) == Settings(server_duid=m.SERVER_DUID, rapid_commit=False)
    assert config.status_directory(path) == "/run/dhcp-cmd"


def test_database_path_starts_at_the_file(tmp_path: Path) -> None:
    assert config.database_url(write(tmp_path)) == f"sqlite:///{tmp_path}/cmd.sqlite"
    absolute = "sqlite:////var/lib/cmd.sqlite"
    assert config.database_url(write(tmp_path, database=absolute)) == absolute


def test_every_key(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "mode Relay",
        "endpoint 2001:db8::135",
        "relay-timeout 50",
        "pacing 9",
        "enterprise-number 4294967295",
        "anchor-hold 2h",
        "trusted-relays 2001:db8::53 2001:db8:5::/64",
        "max-anchors 3",
        "max-ias 5",
        "reuse-margin 90",
        "quarantine 7d",
        "node-retention 30d",
        "flap-interval 5s",
        "flap-limit 10",
        "conflict-policy accept",
        "router-identity dlif",
        "confirm-policy Not-On-Link",
        "status-directory state",
        top="allow-rapid-commit yes\n" + TOP,
    )
    assert config.read(path) == config.Configuration(
        database=f"sqlite:///{tmp_path}/cmd.sqlite",
        status_directory=str(tmp_path / "state"),
        settings=Settings(
            server_duid=m.SERVER_DUID,
            enterprise=0xFFFFFFFF,
            mode=SignallingMode.RELAY,
            relay_timeout=50,
            anchor_hold=7200,
            trusted_relays=(Prefix.parse("2001:db8::53/128"), Prefix.parse("2001:db8:5::/64")),
            max_anchors=3,
            max_ias=5,
            reuse_margin=90,
            quarantine=604_800,
            node_retention=2_592_000,
            flap_interval=5,
            flap_limit=10,
            conflict_policy=ConflictPolicy.ACCEPT,
            router_identity=RouterChoice.DLIF,
            confirm_policy=ConfirmPolicy.NOT_ON_LINK,
            rapid_commit=True,
        ),
        pmip=PmipSettings(parse_address("2001:db8::135"), "2001:db8::135", 9),
    )


def test_inside_a_filter(tmp_path: Path) -> None:
    path = write(tmp_path)
    section, _, top = Path(path).read_text().partition(TOP)
    Path(path).write_text(f"<subnet 2001:db8::/32>\n{section}</subnet>\n{TOP}{top}")
    assert config.settings(path).server_duid == m.SERVER_DUID


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("enterprise-number 0", "enterprise-number: '0' is not a number from 1 to 4294967295"),
        ("enterprise-number 4294967296", "enterprise-number: "),
        ("enterprise-number 0x10", "enterprise-number: "),
        ("anchor-hold 0", "anchor-hold: '0' is not between 1 and 315360000 seconds"),
        ("anchor-hold 1w", "anchor-hold: '1w' is not a time such as"),
        ("anchor-hold -1", "anchor-hold: '-1' is not between"),
        ("max-anchors 65", "max-anchors: "),
        ("max-anchors many", "max-anchors: 'many' is not a number from 1 to 64"),
        ("max-ias 33", "max-ias: "),
        ("trusted-relays 2001:db8::/129", "trusted-relays: '2001:db8::/129' is not an address"),
        ("trusted-relays ::1 relay", "trusted-relays: 'relay' is not an address or prefix"),
        ("reuse-margin 31d", "reuse-margin: "),
        ("node-retention 3651d", "node-retention: "),
        ("quarantine 3651d", "quarantine: "),
        ("flap-interval 2h", "flap-interval: "),
        ("flap-limit 0", "flap-limit: "),
        ("router-identity own", "router-identity: 'own' is not one of fixed, dlif"),
        ("conflict-policy maybe", "conflict-policy: 'maybe' is not one of deny, accept"),
        ("confirm-policy maybe", "confirm-policy: 'maybe' is not one of success, not-on-link"),
        ("mode central", "mode: 'central' is not one of direct, relay, locator, proxy"),
        ("endpoint 2001:db8::/64", "endpoint: '2001:db8::/64' is not a global unicast address"),
        ("endpoint fe80::1", "endpoint: 'fe80::1' is not a global"),
        ("endpoint ::", "endpoint: '::' is not"),
        ("relay-timeout 0", "relay-timeout: '0' is not a number from 1 to 5000"),
        ("pacing 0", "pacing: '0' is not a number from 1 to 1000000"),
        ("colour blue", "'colour' is not a known key name"),
        ("max-anchors 1\nmax-anchors 2", "max-anchors"),
    ],
)
def test_errors_name_key_and_place(tmp_path: Path, line: str, complaint: str) -> None:
    path = write(tmp_path, line)
    with pytest.raises(config.ConfigError) as caught:
        config.read(path)
    text = str(caught.value)
    assert "\n" not in text
    assert re.match(re.escape(path) + ", line [23]: ", text)
    assert complaint in text


@pytest.mark.parametrize(
    ("database", "complaint"),
    [
        ("cmd.sqlite:x://", "database: "),
        ("sqlite://", "database: "),
        ("oracle://host/name", "database: oracle"),
    ],
)
def test_database_errors(tmp_path: Path, database: str, complaint: str) -> None:
    with pytest.raises(config.ConfigError, match=complaint):
        config.read(write(tmp_path, database=database))


@pytest.mark.parametrize("mode", ["proxy", "locator", "relay"])
def test_a_mode_in_which_the_cmd_signals_needs_its_address(tmp_path: Path, mode: str) -> None:
    with pytest.raises(config.ConfigError, match=f"endpoint: missing .* mode {mode} needs it"):
        config.read(write(tmp_path, f"mode {mode}"))
    found = config.read(write(tmp_path, f"mode {mode}", "endpoint 2001:db8::135"))
    assert found.settings.mode.name == mode.upper()
    assert found.pmip == PmipSettings(parse_address("2001:db8::135"), "2001:db8::135", PACING)


def test_what_has_to_be_there(tmp_path: Path) -> None:
    path = Path(write(tmp_path))
    whole = path.read_text()
    section = whole.removesuffix(TOP)
    for text, complaint in (
        (TOP, "central-mobility-database>: there are 0 such sections"),
        (section + whole, "there are 2 such sections"),
        (whole.replace("database sqlite:///cmd.sqlite", ""), "database: missing"),
        (re.sub("<duid-en.*</duid-en>", "", whole, flags=re.DOTALL), "server-id: missing"),
        (whole.replace("<logging>\n</logging>", ""), "<logging>: missing"),
    ):
        path.write_text(text)
        with pytest.raises(config.ConfigError) as caught:
            config.read(str(path))
        assert str(caught.value).startswith(str(path))
        assert complaint in str(caught.value)


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(config.ConfigError, match=r"none.conf: cannot be read: No such file"):
        config.read(str(tmp_path / "none.conf"))


def test_documented_defaults_are_the_defaults() -> None:
    space = "{https://raw.githubusercontent.com/zopefoundation/ZConfig/master/doc/schema.dtd}"
    tree = ElementTree.parse(ROOT / "dhcp_cmd/plugin/component.xml")
    documented = {
        str(key.get("name")).replace("-", "_"): str(key.findtext(f"{space}metadefault")).strip()
        for key in tree.iter(f"{space}key")
    }
    documented["enterprise"] = documented.pop("enterprise_number")
    assert documented.pop("status_directory") == config.STATUS_DIRECTORY
    for field in fields(Settings):
        if field.name in documented:
            convert = getattr(config, field.name, config.enterprise_number)
            assert convert(documented.pop(field.name)) == field.default
    assert config.pacing(documented.pop("pacing")) == PACING
    assert config_security.require(documented.pop("require")) is Declared().require
    assert config_security.tolerance(documented.pop("tolerance")) == TOLERANCE
    assert documented.pop("algorithm") == KeyEntry(256, secret=bytes(16)).algorithm
    assert documented.keys() == {"database", "endpoint", "spi", "secret", "secret_file", "peers"}


def test_every_key_is_described() -> None:
    space = "{https://raw.githubusercontent.com/zopefoundation/ZConfig/master/doc/schema.dtd}"
    tree = ElementTree.parse(ROOT / "dhcp_cmd/plugin/component.xml")
    for element in (*tree.iter(f"{space}key"), *tree.iter(f"{space}sectiontype")):
        assert str(element.findtext(f"{space}description")).strip(), element.get("name")


def test_example_can_be_read() -> None:
    example = config.read(str(ROOT / "configs/cmd.conf"))
    assert example.database == "sqlite:////var/lib/dhcp-cmd/cmd.sqlite"
    assert example.settings.server_duid == m.SERVER_DUID
    assert example.settings.rapid_commit
