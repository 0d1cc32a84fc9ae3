"""The operator's TOML file: read, validated, turned into the core's and the driver's settings.

Every fault is the operator's and becomes one line that names the file, the line where it can be told, and the key.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    model_validator,
)

from dmm_wire.address import Prefix, format_address
from dmm_wire.duid import named_duid
from dmm_wire.mobility import LIFETIME_INFINITY, LIFETIME_UNIT
from dmm_wire.mobility.security import Security
from dmm_wire.router_identity import FIXED, RouterIdentity, chosen, fault
from relay_maar.config_fields import (
    Address,
    ConfigError,
    LinkLayer,
    Table,
    Unicast,
    fault_line,
    not_empty,
)
from relay_maar.config_security import SecurityTable, exposed
from relay_maar.core.own_prefixes import LENGTH as OWN_LENGTH
from relay_maar.core.session import MAX_SESSIONS
from relay_maar.core.settings import (
    TRIGGERS,
    AccessLink,
    AgentSettings,
    AttachSettings,
    RouterSettings,
)
from relay_maar.io.client import RUNTIME_DIRECTORY
from relay_maar.southbound.api import SouthboundSettings
from relay_maar.southbound.registry import AUTO, NAMES

__all__ = ["AccessTable", "AttachTable", "Config", "ConfigError", "RouterTable", "load", "parse"]


def _prefix(value: object) -> Prefix:
    if not isinstance(value, str):
        raise ValueError("must be an IPv6 prefix in quotes")
    try:
        network = ipaddress.IPv6Network(value)
    except ValueError as error:
        raise ValueError(f"not an IPv6 prefix: {error}") from None
    return Prefix(network.network_address.packed, network.prefixlen)


def _interface(value: str) -> str:
    # IFNAMSIZ is 16 with the terminating zero; the kernel also refuses "/" and white space.
    if not re.fullmatch(r"[^\s/:]{1,15}", value) or value in {".", ".."}:
        raise ValueError(f"not an interface name: {value!r}")
    return value


def _driver(value: str) -> str:
    if value not in NAMES:
        raise ValueError(f"no driver {value!r}: there are {', '.join(NAMES)}")
    return value


def _duid(value: object) -> bytes:
    if not isinstance(value, str):
        raise ValueError("must be hexadecimal digits in quotes")
    try:
        duid = bytes.fromhex(value.replace(":", ""))
    except ValueError:
        raise ValueError(f"not hexadecimal: {value!r}") from None
    # RFC 9915 section 11.1: a two-octet type and 1 to 128 octets.
    if not 3 <= len(duid) <= 130:
        raise ValueError(f"a DUID has 3 to 130 octets, not {len(duid)}")
    return duid


Pool = Annotated[Prefix, BeforeValidator(_prefix)]
Interface = Annotated[str, AfterValidator(_interface)]
Duid = Annotated[bytes, BeforeValidator(_duid)]


_NO_ROUTER = {
    "link-local": "not a link-local address that a router can have",
    "link-layer": "not an individual link-layer address of 6 octets",
}


class AccessTable(Table):
    """`[[access]]`: one access interface."""

    interface: Interface
    link_address: Unicast
    interface_id: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    relays_below: bool = False
    mtu: Annotated[int, Field(ge=1280, le=65535)] | None = None
    slaac: bool = False
    ingress_filter: bool = True
    max_nodes: Annotated[int, Field(ge=1, le=MAX_SESSIONS)] = MAX_SESSIONS


class AttachTable(Table):
    """`[attach]`: how it is noticed that a node has come."""

    triggers: Annotated[tuple[Literal["mld", "rs", "nd", "data"], ...], Field(strict=False)] = (
        "mld",
        "rs",
        "nd",
        "data",
    )
    sources: Annotated[
        tuple[Pool, ...], Field(strict=False, max_length=16), AfterValidator(not_empty)
    ] = AttachSettings().sources
    rate: Annotated[float, Field(gt=0, le=100_000, strict=False)] = 100.0
    burst: Annotated[float, Field(ge=1, le=100_000, strict=False)] = 2000.0
    late: Annotated[float, Field(ge=0, le=60, strict=False)] = 3.0
    probes: Annotated[int, Field(ge=1, le=20)] = 3
    probe_interval: Annotated[float, Field(ge=0.01, le=10, strict=False)] = 0.1
    confirm: Annotated[float, Field(ge=1, le=86_400, strict=False)] = 300.0

    def settings(self) -> AttachSettings:
        """What the core needs."""
        return AttachSettings(
            triggers=frozenset({"hook"}).union(*(TRIGGERS[each] for each in self.triggers)),
            sources=self.sources,
            rate=self.rate,
            burst=self.burst,
            late=self.late,
            probes=self.probes,
            probe_interval=self.probe_interval,
            confirm=self.confirm,
        )


class RouterTable(Table):
    """`[router-advertisements]`: ranges of RFC 4861 section 6.2.1."""

    min_interval: Annotated[float, Field(ge=3, le=1350, strict=False)] = 20.0
    max_interval: Annotated[float, Field(ge=4, le=1800, strict=False)] = 60.0
    router_lifetime: Annotated[int, Field(ge=0, le=9000)] = 1800

    @model_validator(mode="after")
    def _ordered(self) -> RouterTable:
        if self.min_interval > 0.75 * self.max_interval:
            raise ValueError(
                "min-interval must be at most 0.75 x max-interval (RFC 4861 section 6.2.1)"
            )
        if 0 < self.router_lifetime < self.max_interval:
            raise ValueError(
                "router-lifetime must be 0 or at least max-interval (RFC 4861 section 6.2.1)"
            )
        return self


class Config(Table):
    """The whole file."""

    name: Annotated[
        str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    ]
    endpoint: Unicast
    core_interface: Interface
    signalling: Literal["dhcp", "pmip"] = "dhcp"
    servers: Annotated[tuple[Unicast, ...], Field(strict=False), AfterValidator(not_empty)] = ()
    cmds: Annotated[tuple[Unicast, ...], Field(strict=False)] = ()
    pools: Annotated[tuple[Pool, ...], Field(strict=False), AfterValidator(not_empty)]
    access: Annotated[tuple[AccessTable, ...], Field(strict=False), AfterValidator(not_empty)]
    driver: Annotated[str, AfterValidator(_driver)] = AUTO
    router_identity: Literal["fixed", "dlif"] = "fixed"
    router_link_local: Address | None = None
    router_link_layer: LinkLayer | None = None
    enterprise_number: Annotated[int, Field(ge=1, le=0xFFFFFFFF)] = 32473
    relay_id: Duid | None = None
    access_technology: Annotated[int, Field(ge=0, le=255)] = 4
    state_directory: str = "/var/lib/relay-maar"
    runtime_directory: str = RUNTIME_DIRECTORY
    route_protocol: Annotated[int, Field(ge=5, le=255)] = 213
    table_base: Annotated[int, Field(ge=256, le=32_760)] = 21300
    registration_lifetime: Annotated[int, Field(ge=60, le=LIFETIME_INFINITY - LIFETIME_UNIT)] = 3600
    own_prefixes: Pool | None = None
    domain_refresh: Annotated[float, Field(ge=1, le=86_400, strict=False)] = 60.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    router_advertisements: RouterTable = RouterTable()
    attach: AttachTable = AttachTable()
    security: SecurityTable | None = None

    @model_validator(mode="after")
    def _coherent(self) -> Config:
        for index, pool in enumerate(self.pools):
            if pool.contains(self.endpoint):
                raise ValueError(
                    f"pools: {pool} contains the endpoint {format_address(self.endpoint)}"
                )
            for other in self.pools[:index]:
                if pool.contains(other) or other.contains(pool):
                    raise ValueError(f"pools: {pool} overlaps {other}")
        chosen_router = self.router_link_local or self.router_link_layer
        if chosen_router and self.router_identity != "dlif":
            raise ValueError(
                'router-link-local, router-link-layer: only with router-identity = "dlif"'
            )
        if self.identity is not None and (wrong := fault(self.identity)) is not None:
            raise ValueError(f"router-{wrong}: {_NO_ROUTER[wrong]}")
        seen: set[str] = set()
        for link in self.access:
            if link.interface in seen or link.interface == self.core_interface:
                raise ValueError(f"access: the interface {link.interface!r} is used twice")
            seen.add(link.interface)
        # The Interface-Id of a Relay-reply tells the link; nothing else does.
        ids = [link.interface_id or link.interface for link in self.access]
        for number, name in enumerate(ids):
            if name in ids[:number]:
                raise ValueError(f"access: the interface-id {name!r} is used twice")
        return self

    @model_validator(mode="after")
    def _speaks(self) -> Config:
        """What goes with `signalling`."""
        if self.signalling == "dhcp" and not self.servers:
            raise ValueError('servers: at least one is needed, or signalling = "pmip"')
        if self.signalling == "pmip" and not self.cmds:
            raise ValueError('cmds: at least one is needed with signalling = "pmip"')
        if (own := self.own_prefixes) is not None:
            if self.signalling != "pmip":
                raise ValueError('own-prefixes: only with signalling = "pmip"')
            if own.length > OWN_LENGTH or not any(pool.contains(own) for pool in self.pools):
                raise ValueError(
                    f"own-prefixes: {own} has to be one of the pools, or a part of one, of /64s"
                )
        if self.endpoint in self.cmds:
            raise ValueError(f"cmds: {format_address(self.endpoint)} is this MAAR's endpoint")
        return self

    @property
    def identity(self) -> RouterIdentity | None:
        """As which router hosts see this MAAR where each anchor is one of its own (RFC 8885 section 3.7); None: all
        MAARs are the same one."""
        if self.router_identity != "dlif":
            return None
        return chosen(self.endpoint, self.router_link_local, self.router_link_layer)

    def southbound(self) -> SouthboundSettings:
        """What the tunnel driver needs."""
        return SouthboundSettings(
            endpoint=self.endpoint,
            core_interface=self.core_interface,
            access_interfaces=tuple(link.interface for link in self.access),
            pools=self.pools,
            protocol=self.route_protocol,
            router=self.identity or FIXED,
            dlif=self.identity is not None,
            unfiltered=frozenset(link.interface for link in self.access if not link.ingress_filter),
            table_base=self.table_base,
        )

    def agent(self, link_layers: Mapping[str, bytes], mtus: Mapping[str, int]) -> AgentSettings:
        """What the core needs. Of each access interface, `link_layers` gives the router's link-layer address and `mtus`
        the MTU to advertise. Raises ConfigError as `authentication` does."""
        return AgentSettings(
            name=self.name,
            endpoint=self.endpoint,
            relay_id=self.relay_id or named_duid(self.enterprise_number, self.name),
            pools=self.pools,
            access=tuple(
                AccessLink(
                    interface=link.interface,
                    link_address=link.link_address,
                    interface_id=(link.interface_id or link.interface).encode(),
                    link_layer=link_layers[link.interface],
                    relays_below=link.relays_below,
                    mtu=mtus[link.interface],
                    slaac=link.slaac,
                    max_nodes=link.max_nodes,
                )
                for link in self.access
            ),
            servers=self.servers,
            cmds=self.cmds,
            enterprise=self.enterprise_number,
            access_technology=self.access_technology,
            identity=self.identity,
            registers=self.signalling == "pmip",
            registration_lifetime=self.registration_lifetime,
            own_prefixes=self.own_prefixes,
            domain_refresh=self.domain_refresh,
            router=RouterSettings(
                min_interval=self.router_advertisements.min_interval,
                max_interval=self.router_advertisements.max_interval,
                router_lifetime=self.router_advertisements.router_lifetime,
                autonomous=not self.servers,
            ),
            attach=self.attach.settings(),
            security=self.authentication(),
        )

    def authentication(self) -> Security:
        """The keys, read from their files. Raises ConfigError for those that cannot be used."""
        return Security() if self.security is None else self.security.settings()


def load(path: Path) -> Config:
    """Read and validate the file at `path`. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError([f"{path}: {reason}"]) from None
    config = parse(text, str(path))
    if config.security is not None and config.security.inline and (fault := exposed(path)):
        raise ConfigError([f"{path}: holds a secret, and {fault}"])
    return config


def parse(text: str, source: str) -> Config:
    """Validate the TOML `text`; `source` names it in the messages. Raises ConfigError."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{source}: not TOML: {error}"]) from None
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(
            [fault_line(source, text, dict(fault)) for fault in error.errors()]
        ) from None
