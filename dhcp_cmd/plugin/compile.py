"""dhcpkit's configuration file as plain data for `dhcp-cmd serve`.

Handlers of static options become their octets, filters become conditions. What cannot become plain data is refused by
name, lest the operator believes in a rule that is not applied. Third-party handlers are among these: only for
dhcpkit's own is it known here what they do.
"""

from __future__ import annotations

import logging
import operator
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ZConfig
from dhcpkit.ipv6 import All_DHCP_Relay_Agents_and_Servers
from dhcpkit.ipv6.messages import AdvertiseMessage, RelayReplyMessage, ReplyMessage
from dhcpkit.ipv6.server import config_parser
from dhcpkit.ipv6.server.extension_registry import server_extension_registry
from dhcpkit.ipv6.server.extensions.dns.config import (
    DomainSearchListOptionHandlerFactory,
    RecursiveNameServersOptionHandlerFactory,
)
from dhcpkit.ipv6.server.extensions.dslite.config import AFTRNameOptionHandlerFactory
from dhcpkit.ipv6.server.extensions.linklayer_id.config import CopyLinkLayerIdOptionHandlerFactory
from dhcpkit.ipv6.server.extensions.map.config import (
    MapEOptionHandlerFactory,
    MapTOptionHandlerFactory,
)
from dhcpkit.ipv6.server.extensions.ntp.config import NTPServersOptionHandlerFactory
from dhcpkit.ipv6.server.extensions.remote_id.config import CopyRemoteIdOptionHandlerFactory
from dhcpkit.ipv6.server.extensions.sip_servers.config import (
    SIPServersAddressListOptionHandlerFactory,
    SIPServersDomainNameListOptionHandlerFactory,
)
from dhcpkit.ipv6.server.extensions.sntp.config import SNTPServersOptionHandlerFactory
from dhcpkit.ipv6.server.extensions.sol_max_rt.config import (
    InfMaxRTOptionHandlerFactory,
    SolMaxRTOptionHandlerFactory,
)
from dhcpkit.ipv6.server.extensions.subscriber_id.config import CopySubscriberIdOptionHandlerFactory
from dhcpkit.ipv6.server.filters.elapsed_time.config import ElapsedTimeFilterFactory
from dhcpkit.ipv6.server.filters.marks.config import MarkedWithFilterFactory
from dhcpkit.ipv6.server.filters.subnets.config import SubnetFilterFactory, SubnetGroupFilterFactory
from dhcpkit.ipv6.server.handlers.basic import OverwriteOptionHandler
from dhcpkit.ipv6.server.handlers.ignore import IgnoreRequestHandlerFactory
from dhcpkit.ipv6.server.handlers.preference import PreferenceOptionHandlerFactory
from dhcpkit.ipv6.server.handlers.unicast import ServerUnicastOptionHandlerFactory
from dhcpkit.ipv6.server.listeners.multicast_interface.config import (
    MulticastInterfaceUDPListenerFactory,
)
from dhcpkit.ipv6.server.listeners.unicast.config import UnicastUDPListenerFactory

from dhcp_cmd.plugin import config
from dhcp_cmd.plugin.config import ConfigError, MobilityHandlerFactory
from dhcp_cmd.server.filters import Condition, Elapsed, Marked, OnLink, StaticOption
from dhcp_cmd.server.plan import Account, Echo, Ignore, ListenerPlan, Plan, Rules
from dmm_wire.address import Prefix
from dmm_wire.dhcpv6.codes import MessageType
from dmm_wire.dhcpv6.message import parse_options

INSTEAD = "use ipv6-dhcpd for this"

Split = Callable[[bytes], tuple[bytes, ...]]
"""The data of an option in its items."""


def read_plan(path: str, *, starting: bool) -> Plan:
    """Read a configuration file for `dhcp-cmd serve`, and check what the server needs as `config.accept` does.

    Raises ConfigError, in one line, also for what only `ipv6-dhcpd` can do. With `starting`, the status directory is
    made and cleared.
    """
    path = os.path.realpath(path)
    try:
        loader = config_parser.get_config_loader()
        loader.importSchemaComponent("dhcp_cmd.plugin")
        with open(path, encoding="utf-8") as file:
            main, _handlers = loader.loadFile(file, Path(path).as_uri())
        compiler = _Compiler()
        compiler.compile(main)
        listeners = tuple(_listener(factory) for factory in main.listener_factories)
        if not listeners:
            raise ValueError("there is no listener, such as <listen-unicast 2001:db8::1/>")
        if compiler.mobility is None:
            raise ValueError(f"<{config.SECTION}>: missing")
        config.accept(main, path, starting=starting, holds=True)
        security = config.security(compiler.mobility.configuration)
    except (ZConfig.ConfigurationError, ValueError, OSError) as error:
        raise ConfigError(config.one_line(error, path)) from error
    configuration = compiler.mobility.configuration
    assert configuration is not None  # `accept` has just given it
    return Plan(
        database=configuration.database,
        status_directory=configuration.status_directory,
        settings=configuration.settings,
        pmip=configuration.pmip,
        listeners=listeners,
        rules=compiler.rules(),
        account=Account(main.user.pw_name, main.user.pw_uid, main.group.gr_gid),
        configure_logging=lambda level: _configure_logging(main, level),
        workers=main.workers,
        security=security,
    )


def _configure_logging(main: Any, level: int | None) -> None:
    """Make the root logger what the file says; `level` overrides the levels in it."""
    root = logging.getLogger()
    before = list(root.handlers)
    lowest = main.logging.configure(root)
    if level is not None:
        lowest = level
        for handler in root.handlers:
            handler.setLevel(level)
    root.setLevel(lowest)  # dhcpkit leaves it to the handlers, and every call would make a record
    for handler in before:
        if handler not in root.handlers:
            handler.close()


# --- listeners ---


def _listener(factory: Any) -> ListenerPlan:
    match factory:
        case MulticastInterfaceUDPListenerFactory():
            return ListenerPlan(
                address=All_DHCP_Relay_Agents_and_Servers.packed,
                link_address=factory.link_address.packed,
                marks=frozenset(factory.marks),
                interface=factory.name,
                reply_from=factory.reply_from.packed,
            )
        case UnicastUDPListenerFactory():
            address = factory.name.packed
            return ListenerPlan(address, address, frozenset(factory.marks))
        case _:
            raise _refused(factory)


def _refused(factory: Any) -> ValueError:
    return ValueError(f"<{factory.section.getSectionType()}>: {INSTEAD}")


# --- handlers and filters ---


class _Compiler:
    """Walks handlers and filters in the order in which dhcpkit applies them."""

    def __init__(self) -> None:
        self.mobility: MobilityHandlerFactory | None = None
        self._conditions: list[Condition] = []
        self._options: list[StaticOption] = []
        self._ignores: list[Ignore] = []
        self._echoes: list[Echo] = []
        self._unicast: list[tuple[int, ...]] = []

    def compile(self, main: Any) -> None:
        for name, extension in server_extension_registry.items():
            adds = hasattr(extension, "create_setup_handlers") or hasattr(
                extension, "create_cleanup_handlers"
            )
            if adds and not extension.__name__.startswith("dhcpkit."):
                raise ValueError(f"the extension {name} handles every message: {INSTEAD}")
        self._section(main, ())

    def rules(self) -> Rules:
        return Rules(
            tuple(self._conditions),
            tuple(self._options),
            tuple(self._ignores),
            tuple(self._echoes),
            tuple(self._unicast),
        )

    def _section(self, section: Any, conditions: tuple[int, ...]) -> None:
        for factory in section.filter_factories:
            self._section(factory, (*conditions, *self._filter(factory)))
        for factory in section.handler_factories:
            self._handler(factory, conditions)

    def _filter(self, factory: Any) -> Iterator[int]:
        """The conditions of a filter, as indices."""
        match factory:
            case SubnetFilterFactory() | SubnetGroupFilterFactory():
                made = OnLink(
                    tuple(
                        Prefix(network.network_address.packed, network.prefixlen)
                        for network in factory.filter_condition
                    )
                )
                yield self._index(made)
            case MarkedWithFilterFactory():
                yield self._index(Marked(factory.filter_condition))
            case ElapsedTimeFilterFactory():
                limits = {limit.operator: limit.limit for limit in factory.filter_condition}
                yield self._index(Elapsed(limits.get(operator.gt), limits.get(operator.lt)))
            case _:
                raise _refused(factory)

    def _index(self, condition: Condition) -> int:
        if condition not in self._conditions:
            self._conditions.append(condition)
        return self._conditions.index(condition)

    def _handler(self, factory: Any, conditions: tuple[int, ...]) -> None:
        kind = type(factory)
        if kind is MobilityHandlerFactory:
            if conditions:
                raise ValueError(f"<{config.SECTION}> inside a filter: {INSTEAD}")
            self.mobility = factory
        elif kind is IgnoreRequestHandlerFactory:
            types = factory().message_types
            codes = frozenset(int(each.message_type) for each in types) if types else None
            self._ignores.append(Ignore(codes, conditions))
        elif kind in _ECHOES:
            option = factory().option_class
            if RelayReplyMessage.may_contain(option):
                self._echoes.append(Echo(int(option.option_type), conditions))
        elif kind in _SPLIT:
            if kind is ServerUnicastOptionHandlerFactory:
                self._unicast.append(conditions)
            self._options.append(self._option(factory(), _SPLIT[kind], conditions))
        else:
            raise _refused(factory)

    def _option(
        self, handler: Any, split: Split | None, conditions: tuple[int, ...]
    ) -> StaticOption:
        option = handler.option
        [(code, body)] = parse_options(bytes(option.save()))
        replaces = isinstance(handler, OverwriteOptionHandler)
        return StaticOption(
            code=code,
            items=(body,) if split is None else split(body),
            messages=frozenset(
                int(kind)
                for kind, message in (
                    (MessageType.ADVERTISE, AdvertiseMessage),
                    (MessageType.REPLY, ReplyMessage),
                )
                if message.may_contain(option)
            ),
            conditions=conditions,
            always=handler.always_send,
            replaces=replaces,
            unites=split is not None,
            late=self.mobility is not None,
        )


def _addresses(body: bytes) -> tuple[bytes, ...]:
    return tuple(body[i : i + 16] for i in range(0, len(body), 16))


def _names(body: bytes) -> tuple[bytes, ...]:
    """Domain names, RFC 9915 section 10: labels, each with its length, and an empty one at the end."""
    names: list[bytes] = []
    start = end = 0
    while end < len(body):
        length = body[end]
        end += 1 + length
        if not length:
            names.append(body[start:end])
            start = end
    return tuple(names)


def _suboptions(body: bytes) -> tuple[bytes, ...]:
    return tuple(
        code.to_bytes(2, "big") + len(data).to_bytes(2, "big") + data
        for code, data in parse_options(body)
    )


_SPLIT: dict[type, Split | None] = {
    RecursiveNameServersOptionHandlerFactory: _addresses,
    DomainSearchListOptionHandlerFactory: _names,
    SNTPServersOptionHandlerFactory: _addresses,
    NTPServersOptionHandlerFactory: _suboptions,
    SIPServersAddressListOptionHandlerFactory: _addresses,
    SIPServersDomainNameListOptionHandlerFactory: _names,
    AFTRNameOptionHandlerFactory: None,
    SolMaxRTOptionHandlerFactory: None,
    InfMaxRTOptionHandlerFactory: None,
    MapEOptionHandlerFactory: None,
    MapTOptionHandlerFactory: None,
    PreferenceOptionHandlerFactory: None,
    ServerUnicastOptionHandlerFactory: None,
}
"""Handlers of static options; how the data of two such options is united into one, None: the first one stays."""

_ECHOES = (
    CopyRemoteIdOptionHandlerFactory,
    CopySubscriberIdOptionHandlerFactory,
    CopyLinkLayerIdOptionHandlerFactory,
)
"""Handlers that give a relay agent its own option back."""
