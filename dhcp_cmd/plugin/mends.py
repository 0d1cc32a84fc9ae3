"""What dhcpkit 1.0.7 gets wrong for us, mended while it runs: its files stay as they were
installed.

dhcpkit is from 2018. Some of it does not work on a current Python, some of it drops messages that
RFC 9915 wants answered. Every mend is one function below with its reason; each can be applied any
number of times. They come in three groups:

* `apply_at_load`: when dhcpkit (or anybody) imports `dhcp_cmd.plugin`. dhcpkit does so in the
  middle of its own import, so these touch only modules that are complete by then.
* `apply_in_main`: when the server's main process has accepted a configuration with our section.
* `apply_in_worker`: when a worker process starts that has our handler.

Three incompatibilities stop `ipv6-dhcpd` before it loads any extension, so that nothing here could
mend them for it; what is installed beside it does. `pkg_resources`, gone in setuptools 82: the `cmd`
extra asks for an older one. The distribution name `netifaces`: packaging/netifaces has it. And
dhcpkit's `typing`, see below: packaging/netifaces installs a line that runs when an interpreter
starts. Where that distribution came from elsewhere, `python -m dhcp_cmd.plugin CONFIG` is the same
server with `typing` mended first.
"""

from __future__ import annotations

import logging
import multiprocessing
import struct
import sys
import typing
from collections.abc import Callable
from typing import Any

# typing: `import dhcpkit` puts a copy of this module with nothing but its public names into
# sys.modules, for the sake of Python < 3.5.2. Whoever needs its private names afterwards fails:
# dataclasses, typing_extensions and through it SQLAlchemy. From Python 3.12 the interpreter itself
# looks for one, `typing._type_check`, so that dhcpkit's first TypeVar fails. So the copy gets the
# names it lacks; where dhcpkit has not been imported yet, the genuine module is offered in the
# copy's place.
if "dhcpkit" in sys.modules:
    vars(typing).update(typing.cast.__globals__ | vars(typing))
else:
    sys.modules["dhcpkit.typing"] = typing

import ZConfig.loader
from dhcpkit.ipv6.messages import (
    ConfirmMessage,
    Message,
    RelayForwardMessage,
    ReplyMessage,
)
from dhcpkit.ipv6.options import Option, RelayMessageOption, UnknownOption
from dhcpkit.ipv6.server.handlers import CannotRespondError
from dhcpkit.ipv6.server.handlers.unicast import RejectUnwantedUnicastHandler
from dhcpkit.ipv6.server.listeners import IgnoreMessage
from dhcpkit.ipv6.server.listeners.udp import UDPListener
from dhcpkit.ipv6.server.nonblocking_pool import NonBlockingPool
from dhcpkit.ipv6.server.queue_logger import QueueLevelListener
from dhcpkit.ipv6.server.transaction_bundle import TransactionBundle

from dhcp_cmd.core.errors import Rejected
from dhcp_cmd.core.model import BindingRequest
from dhcp_cmd.plugin import counters
from dmm_wire.dhcpv6.message import unwrap
from dmm_wire.errors import WireError

logger = logging.getLogger(__name__)

QUEUE_LIMIT = 1024
"""Datagrams that may wait in the main process for a worker; more are dropped. About a second of work."""

PARSE_ERRORS = (ValueError, IndexError, struct.error)
"""What dhcpkit's classes raise on bytes they do not understand (UnicodeDecodeError is a ValueError)."""


def apply_at_load() -> None:
    """Apply what has to be in place before dhcpkit reads its configuration."""
    pool_result()
    opaque_options()
    unicast_silence()
    log_end()
    config_errors()
    missing_directory()


def apply_in_main() -> None:
    """Apply what the main process needs, which receives the datagrams."""
    noise_filter()


def apply_in_worker(read: Callable[[bytes, bytes, bytes], BindingRequest | None]) -> None:
    """Apply what a worker needs. `read(datagram, source, link)` makes the request of a datagram; it
    raises WireError or Rejected for one to drop, and says None for one that is not the CMD's."""
    original_bytes(read)
    confirm_is_decided()


def _once(function: Any) -> bool:
    """Whether `function` is still dhcpkit's own."""
    return not hasattr(function, "__mended__")


def _mended(function: Any) -> Any:
    function.__mended__ = True
    return function


def pool_result() -> None:
    """From Python 3.8 `ApplyResult` wants the pool where dhcpkit gives its cache: every datagram
    raises.

    And the pool's queue has no bound, so that the pool "that doesn't block when full" is never full
    and keeps every datagram of a flood: it drops them now when `QUEUE_LIMIT` wait, which is what it
    was written for.
    """
    if not _once(NonBlockingPool.apply_async):
        return

    def apply_async(
        self: Any,
        func: Any,
        args: Any = (),
        kwds: Any = None,
        callback: Any = None,
        error_callback: Any = None,
    ) -> Any:
        if self._taskqueue.qsize() >= QUEUE_LIMIT:
            counters.count("queue-full")
            return None
        return super(NonBlockingPool, self).apply_async(
            func, args, kwds or {}, callback, error_callback
        )

    NonBlockingPool.apply_async = _mended(apply_async)


def opaque_options() -> None:
    """dhcpkit drops a message for one option that its class cannot read, a DUID of a form it does
    not expect among them.

    DUIDs are opaque values (RFC 9915 section 11), and what we need of a message `dmm_wire` has read
    already. So such an option is carried like an unknown one.
    """
    if not _once(Option.parse.__func__):
        return
    stock = Option.parse.__func__

    def parse(cls: Any, buffer: bytes, offset: int = 0, length: int | None = None) -> Any:
        try:
            return stock(cls, buffer, offset, length)
        except PARSE_ERRORS:
            option = UnknownOption()
            return option.load_from(buffer, offset, length), option

    Option.parse = classmethod(_mended(parse))


def unicast_silence() -> None:
    """dhcpkit answers a client's unicast message with UseMulticast, a Solicit, Confirm or Rebind
    too.

    RFC 9915 has obsoleted that status (section 21.13): servers should not accept unicast traffic
    from clients (section 16). It is dropped. Relayed messages and those that a `<server-unicast>`
    section admits are not meant.
    """
    stock = RejectUnwantedUnicastHandler.pre
    if not _once(stock):
        return

    def pre(self: Any, bundle: Any) -> None:
        relayed = len(bundle.incoming_relay_messages) > 1  # the last one is dhcpkit's own
        if not (bundle.allow_unicast or bundle.received_over_multicast or relayed):
            raise CannotRespondError("Unicast message from a client")

    RejectUnwantedUnicastHandler.pre = _mended(pre)


def config_errors() -> None:
    """A configuration error ends `ipv6-dhcpd` with status 1, some with a traceback. It shall be one
    line and status 2.

    The server reads its file with this method; other programs that read one (`config.read`) do not.
    A reload, when the workers' start method has been set, keeps the old configuration: for that the
    server expects ZConfig's exception.
    """
    stock = ZConfig.loader.ConfigLoader.loadURL
    if not _once(stock):
        return

    def load_url(self: Any, url: str) -> Any:
        from dhcp_cmd.plugin import config

        starting = multiprocessing.get_start_method(allow_none=True) is None
        try:
            loaded = stock(self, url)
            config.accept(loaded[0], url, starting=starting)
            return loaded
        except (ZConfig.ConfigurationError, ValueError, OSError) as error:
            line = config.one_line(error, url)
            if not starting:
                raise ZConfig.ConfigurationSyntaxError(line, None, None) from error
            logger.critical(line)
            raise SystemExit(2) from error

    ZConfig.loader.ConfigLoader.loadURL = _mended(load_url)


def missing_directory() -> None:
    """The server goes to the directory of its configuration before it reads it: one that is not
    there ends in a logged traceback and status 1. It shall be one line and status 2.

    Nothing of ours is called until then; what the server logs as its end is all there is to meet.
    """
    root = logging.getLogger()
    if any(getattr(each, "__mended__", False) for each in root.filters):
        return

    def last_words(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        starting = multiprocessing.get_start_method(allow_none=True) is None
        ending = (record.module, record.funcName) == ("main", "run")
        if isinstance(error, OSError) and starting and ending:
            logger.critical(f"{error.filename}: {error.strerror}")
            raise SystemExit(2) from error
        return True

    root.addFilter(_mended(last_words))


def log_end() -> None:
    """When the server ends, Python may close the queue of its log under the thread that reads it.

    dhcpkit expects an EOFError then; a current Python raises others too, and a stop that went well
    ends in a traceback.
    """
    stock = QueueLevelListener.dequeue
    if not _once(stock):
        return

    def dequeue(self: Any, block: bool) -> Any:
        try:
            return stock(self, block)
        except (OSError, TypeError):
            return self._sentinel

    QueueLevelListener.dequeue = _mended(dequeue)


def noise_filter() -> None:
    """dhcpkit gives every datagram to a worker process, which takes about as long as answering one.

    So noise, at a rate that any host can send, keeps the workers busy. What is no DHCPv6 message is
    counted and dropped by the main process (and missing from dhcpkit's own statistics).
    """
    stock = UDPListener.recv_request
    if not _once(stock):
        return

    def recv_request(self: Any) -> Any:
        packet, replier = stock(self)
        try:
            unwrap(packet.data)
        except WireError as error:
            counters.count(error.reason)
            raise IgnoreMessage(str(error)) from None
        return packet, replier

    UDPListener.recv_request = _mended(recv_request)


def confirm_is_decided() -> None:
    """dhcpkit drops a Confirm without addresses before any handler has seen it.

    It gets no answer (RFC 9915 section 18.3.3), but it shows where the node is, and that is for the CMD to record.
    """
    from dhcpkit.ipv6.server.message_handler import MessageHandler

    stock = MessageHandler.init_response
    if not _once(stock):
        return

    def init_response(bundle: TransactionBundle) -> None:
        if isinstance(bundle.request, ConfirmMessage) and BindingRequest in bundle.handler_data:
            bundle.response = ReplyMessage(bundle.request.transaction_id)
            bundle.create_outgoing_relay_messages()
        else:
            stock(bundle)

    MessageHandler.init_response = staticmethod(_mended(init_response))


def original_bytes(read: Callable[[bytes, bytes, bytes], BindingRequest | None]) -> None:
    """dhcpkit forgets a datagram's bytes when it has parsed it, and validates it by rules of its
    own.

    By these it drops a Relay-forward with a vendor option (17) or a Relay-ID (53), a client message
    without Elapsed Time, an Information-request without Client Identifier, a Decline with an IA_PD,
    and every message that holds a known option in a place where it does not expect one. RFC 9915
    section 16 has other rules, and `read` keeps them: what it cannot read is counted and dropped
    without a log line for each; what it reads goes on with the request beside it, in
    `bundle.handler_data[BindingRequest]`. A datagram that is none of the CMD's business (`read`
    says None) goes dhcpkit's own way, as does what comes over TCP.
    """
    from dhcpkit.ipv6.server import worker

    if not _once(worker.handle_message):
        return
    stock_handle, stock_parse = worker.handle_message, worker.parse_incoming_request

    def handle_message(packet: Any, replier: Any) -> None:
        try:
            packet.binding_request = (
                None
                if packet.received_over_tcp
                else read(packet.data, packet.source_address.packed, packet.link_address.packed)
            )
        except (WireError, Rejected) as error:
            counters.count(error.reason)
            name = worker.get_interface_name_from_options(packet.relay_options)
            statistics = worker.shared_statistics.get_update_set(interface_name=name)
            statistics.count_incoming_packet()
            statistics.count_unparsable_packet()
            logger.debug("Dropped a datagram from %s: %s", packet.source_address, error)
            return
        stock_handle(packet, replier)

    def parse_incoming_request(packet: Any) -> TransactionBundle:
        if packet.binding_request is None:
            return stock_parse(packet)
        try:
            _, message = Message.parse(packet.data)
        except Exception:
            counters.count("unparsable")
            raise
        hop_count = message.hop_count + 1 if isinstance(message, RelayForwardMessage) else 0
        bundle = TransactionBundle(
            incoming_message=RelayForwardMessage(
                hop_count=hop_count,
                link_address=packet.link_address,
                peer_address=packet.source_address,
                options=[*packet.relay_options, RelayMessageOption(relayed_message=message)],
            ),
            received_over_multicast=packet.received_over_multicast,
            received_over_tcp=packet.received_over_tcp,
            marks=packet.marks,
        )
        bundle.handler_data[BindingRequest] = packet.binding_request
        return bundle

    worker.handle_message = _mended(handle_message)
    worker.parse_incoming_request = _mended(parse_incoming_request)
