"""The section `<central-mobility-database>` of a dhcpkit configuration file, and the file as a whole.

There is one way to read a file, `read`, for the server and for `dhcp-cmd --config` alike. It looks
at nothing but the file: no interface, no address and no database has to be there. What only the
server needs is in `accept`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import ZConfig
from dhcpkit.common.privileges import drop_privileges, restore_privileges
from dhcpkit.ipv6.server import config_parser
from dhcpkit.ipv6.server.handlers import Handler, HandlerFactory
from ZConfig.datatypes import SuffixMultiplier

from dhcp_cmd.core.model import ConfirmPolicy, ConflictPolicy, RouterChoice, Settings
from dhcp_cmd.core.ports import StoreError
from dhcp_cmd.plugin import config_security, counters, mends
from dhcp_cmd.pmip.settings import PACING, PmipSettings
from dhcp_cmd.store import open_store
from dhcp_cmd.store.engine import parse_url
from dmm_wire.address import Prefix, format_address, is_routable, parse_address
from dmm_wire.dmm import SignallingMode
from dmm_wire.errors import WireError
from dmm_wire.mobility.security import Declared, Security

SECTION = "central-mobility-database"
STATUS_DIRECTORY = "/run/dhcp-cmd"

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_YEAR = 365 * _DAY
_with_suffix: Callable[[str], int] = SuffixMultiplier({"s": 1, "m": _MINUTE, "h": _HOUR, "d": _DAY})

Choice = TypeVar("Choice", bound=StrEnum)


class ConfigError(ValueError):
    """The configuration cannot be used. One line that names the key and, where it is known, file and line."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """What the CMD takes from the configuration file. Paths are absolute."""

    database: str
    """SQLAlchemy URL."""
    status_directory: str
    settings: Settings
    pmip: PmipSettings | None = None
    """None in mode direct."""
    security: Declared | None = None
    """The keys of PMIPv6 as they are configured: nothing of it is read from other files yet."""


# --- Datatypes of the keys: component.xml names them ---


def _integer(key: str, low: int, high: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise ValueError(f"{key}: {text!r} is not a number from {low} to {high}")
        return int(text)

    return convert


def _seconds(key: str, low: int, high: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        try:
            value = _with_suffix(text)
        except ValueError:
            raise ValueError(
                f"{key}: {text!r} is not a time such as 90, 90s, 15m, 12h or 7d"
            ) from None
        if not low <= value <= high:
            raise ValueError(f"{key}: {text!r} is not between {low} and {high} seconds")
        return value

    return convert


def _choice(key: str, choices: type[Choice]) -> Callable[[str], Choice]:
    def convert(text: str) -> Choice:
        try:
            return choices(text.lower())
        except ValueError:
            raise ValueError(f"{key}: {text!r} is not one of {', '.join(choices)}") from None

    return convert


enterprise_number = _integer("enterprise-number", 1, 0xFFFFFFFF)
anchor_hold = _seconds("anchor-hold", 1, 10 * _YEAR)
max_anchors = _integer("max-anchors", 1, 64)
reuse_margin = _seconds("reuse-margin", 0, 30 * _DAY)
quarantine = _seconds("quarantine", 0, 10 * _YEAR)
flap_interval = _seconds("flap-interval", 0, _HOUR)
flap_limit = _integer("flap-limit", 1, 1000)
max_ias = _integer("max-ias", 1, 32)
relay_timeout = _integer("relay-timeout", 1, 5000)
pacing = _integer("pacing", 1, 1_000_000)
timestamp_window = _integer("timestamp-window", 1, 86_400_000)
delete_delay = _integer("delete-delay", 0, 3_600_000)
node_retention = _seconds("node-retention", 0, 10 * _YEAR)
conflict_policy = _choice("conflict-policy", ConflictPolicy)
confirm_policy = _choice("confirm-policy", ConfirmPolicy)
router_identity = _choice("router-identity", RouterChoice)


def trusted_relays(text: str) -> tuple[Prefix, ...]:
    """Addresses and prefixes, in any number."""
    found = []
    for word in text.split():
        try:
            found.append(Prefix.parse(word if "/" in word else f"{word}/128"))
        except WireError:
            raise ValueError(f"trusted-relays: {word!r} is not an address or prefix") from None
    return tuple(found)


_SETTINGS = (
    "trusted_relays",
    "anchor_hold",
    "max_anchors",
    "max_ias",
    "mode",
    "relay_timeout",
    "timestamp_window",
    "delete_delay",
    "reuse_margin",
    "quarantine",
    "node_retention",
    "flap_interval",
    "flap_limit",
    "conflict_policy",
    "confirm_policy",
    "router_identity",
)
"""Attributes of the section that are fields of Settings; None: the field's default."""
_LOOKED_UP = {
    "user",
    "group",
    "pid_file",
    "control_socket",
    "control_socket_user",
    "control_socket_group",
}


def mode(text: str) -> SignallingMode:
    """Who tells the P-MAARs where a node is (RFC 8885 sections 3.2 to 3.4)."""
    names = [each.name.lower() for each in SignallingMode]
    if text.lower() not in names:
        raise ValueError(f"mode: {text!r} is not one of {', '.join(names)}")
    return SignallingMode[text.upper()]


def endpoint(text: str) -> bytes:
    """An address that others can send to."""
    try:
        address = parse_address(text)
    except WireError:
        address = b""
    if not address or not is_routable(address):
        raise ValueError(f"endpoint: {text!r} is not a global unicast address")
    return address


# --- The section in the server ---


class MobilityHandlerFactory(HandlerFactory):
    """Makes the handler. `accept` gives it the configuration when the whole file has been read."""

    configuration: Configuration | None = None

    def create(self) -> Handler:
        """The handler of this section, to be pickled into the workers."""
        from dhcp_cmd.plugin.handler import MobilityHandler

        if self.configuration is None:
            raise ConfigError(f"<{SECTION}>: the configuration was not read to its end")
        return MobilityHandler(self.configuration, server=os.getpid())


# --- The file ---


def read(path: str) -> Configuration:
    """Read a dhcpkit configuration file for what the CMD needs of it. Raises ConfigError."""
    path = os.path.abspath(path)
    try:
        loader = config_parser.get_config_loader()
        # dhcpkit has done so already where our entry point is installed.
        loader.importSchemaComponent("dhcp_cmd.plugin")
        _leave_machine_alone(loader.schema)
        included = config_security.included(loader)
        with open(path, encoding="utf-8") as file:
            top, _handlers = loader.loadFile(file, Path(path).as_uri())
        configuration = _configuration(top, os.path.dirname(path))
    except (ZConfig.ConfigurationError, ValueError, OSError) as error:
        raise ConfigError(one_line(error, path)) from error
    if configuration.security is not None and configuration.security.inline:
        _check_exposure([path, *included])
    return configuration


def _check_exposure(paths: list[str]) -> None:
    try:
        config_security.check_exposure(paths)
    except (ZConfig.ConfigurationError, ValueError, OSError) as error:
        raise ConfigError(str(error)) from error


def security(configuration: Configuration | None) -> Security:
    """What PMIPv6 messages are authenticated by, the keys read from their files. Raises ConfigError for those that
    cannot be used."""
    if configuration is None or configuration.pmip is None or configuration.security is None:
        return Security()
    try:
        return configuration.security.read(config_security.read_secret)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def database_url(config_path: str) -> str:
    """The SQLAlchemy URL of the database that a configuration file names. Raises ConfigError."""
    return read(config_path).database


def settings(config_path: str) -> Settings:
    """The CMD's settings in a configuration file. Raises ConfigError."""
    return read(config_path).settings


def status_directory(config_path: str) -> str:
    """Where the server of this file keeps its counters (`counters.read`). Raises ConfigError."""
    return read(config_path).status_directory


def one_line(error: Exception, path: str) -> str:
    """An error about the configuration file `path` as one line: file, line where known, what is wrong."""
    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, OSError):
        return f"{path}: cannot be read: {error.strerror or error}"
    line = getattr(error, "lineno", None)
    url = getattr(error, "url", None)
    if url:
        path = unquote(urlsplit(url).path)  # an included file
    place = f"{path}, line {line}" if line and line > 0 else path
    text = getattr(error, "message", None) or str(error)
    return f"{place}: {' '.join(str(text).split())}"


def _leave_machine_alone(schema: Any) -> None:
    """Keep as text what dhcpkit looks up on the machine, where it need not be when an operator asks
    for the database: interfaces and addresses (in sections; those of DUIDs apart), users, paths."""
    kept = set(schema.gettype("duid").getsubtypenames())
    kept |= {config_security.SECTION, config_security.KEY_SECTION}
    for name in schema.gettypenames():
        section_type = schema.gettype(name)
        if not section_type.isabstract() and name not in kept:
            section_type.datatype = _as_read
    for _name, key in schema:
        if key.attribute in _LOOKED_UP:
            key.datatype = _as_read
    schema.datatype = _as_read


def _as_read(value: Any) -> Any:
    return value


def _walk(section: Any) -> Iterator[Any]:
    """All handler sections, those inside filters too."""
    yield from section.handler_factories
    for inner in section.filter_factories:
        yield from _walk(inner)


def _configuration(top: Any, directory: str) -> Configuration:
    sections = [s for s in _walk(top) if s.getSectionType() == SECTION]
    if len(sections) != 1:
        raise ValueError(f"<{SECTION}>: there are {len(sections)} such sections, one is needed")
    section = sections[0]
    if top.server_id is None:
        raise ValueError(
            "server-id: missing; every CMD of the domain needs the same DUID, also after a reboot"
            " (add a section such as <duid-en server-id>)"
        )
    if top.logging is None:
        raise ValueError("<logging>: missing; dhcpkit's server does not run without this section")
    if section.database is None:
        raise ValueError(f"database: missing in <{SECTION}>")
    chosen = {key: getattr(section, key) for key in _SETTINGS if getattr(section, key) is not None}
    if section.enterprise_number is not None:
        chosen["enterprise"] = section.enterprise_number
    return Configuration(
        database=_absolute(section.database, directory),
        status_directory=os.path.join(directory, section.status_directory or STATUS_DIRECTORY),
        settings=Settings(
            server_duid=bytes(top.server_id.save()),
            rapid_commit=top.allow_rapid_commit,
            **chosen,
        ),
        pmip=_pmip(section),
        security=None
        if section.security is None
        else config_security.located(section.security, directory),
    )


def _pmip(section: Any) -> PmipSettings | None:
    if section.mode in (None, SignallingMode.DIRECT):
        return None
    if section.endpoint is None:
        name = section.mode.name.lower()
        raise ValueError(f"endpoint: missing in <{SECTION}>, mode {name} needs it")
    owner = format_address(section.endpoint)
    return PmipSettings(section.endpoint, owner, section.pacing or PACING)


def _absolute(text: str, directory: str) -> str:
    try:
        url = parse_url(text)
    except StoreError as error:
        raise ValueError(f"database: {error}") from None
    if url.get_backend_name() == "sqlite" and url.database is not None:
        url = url.set(database=os.path.join(directory, url.database))
    return url.render_as_string(hide_password=False)


# --- The server's start ---


def accept(main: Any, path: str, *, starting: bool, holds: bool = False) -> None:
    """Hand the configuration to the section in `main`, dhcpkit's MainConfig read from `path`.

    Before, check what the server needs: the status directory and a database with the current schema,
    both as the user it will run as; and that it can do the mode: `holds` says whether the server can
    hold its answers. Does nothing for a file without our section. Raises ConfigError;
    nothing was started then.
    """
    factories = [f for f in _walk(main) if isinstance(f, MobilityHandlerFactory)]
    if not factories:
        return
    configuration = read(path)
    if configuration.settings.mode is SignallingMode.RELAY and not holds:
        raise ConfigError(
            f"{path}: mode: relay needs a server that holds its answers: use dhcp-cmd serve, or proxy"
        )
    directory = configuration.status_directory
    was_root = os.geteuid() == 0
    mask = os.umask(0o077)
    groups = os.getgroups()
    try:
        if starting:
            _make_status_directory(directory, main)
        _become(main)
        _check(configuration, path)
        if holds:
            security(configuration)
        if starting:
            counters.clear(directory)
            counters.start(directory, os.getpid())
    except OSError as error:
        raise ConfigError(f"{path}: status-directory: {directory}: {error.strerror}") from error
    finally:
        if was_root:
            restore_privileges()
            os.setgroups(groups)  # dhcpkit restores neither
        os.umask(mask)
    for factory in factories:
        factory.configuration = configuration
    mends.apply_in_main()


def _become(main: Any) -> None:
    try:
        drop_privileges(main.user, main.group, permanent=False)
    except PermissionError:
        raise ConfigError(f"user: cannot become {main.user.pw_name!r} without being root") from None


def _make_status_directory(directory: str, main: Any) -> None:
    try:
        os.makedirs(directory, mode=0o755)
    except FileExistsError:
        return
    if os.geteuid() == 0:
        os.chown(directory, main.user.pw_uid, main.group.gr_gid)


def _check(configuration: Configuration, path: str) -> None:
    directory = configuration.status_directory
    if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        raise ConfigError(
            f"{path}: status-directory: {directory} is not writable for the server's user"
        )
    try:
        # As a server opens it: a database that is silent does not keep a reload waiting for ever.
        open_store(configuration.database, serving=True).close()
    except StoreError as error:
        raise ConfigError(f"{path}: database: {error}") from error
