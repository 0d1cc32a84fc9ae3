"""The handler of dhcpkit's chain that answers for the CMD.

It runs where dhcpkit lets handlers fill the reply. The decision is committed there: what fails
later in the chain costs the reply, never the other way round. (An `analyse_post` would be too late:
dhcpkit swallows its errors and sends the reply.)
"""

from __future__ import annotations

import logging
import secrets
import time
from typing import Any

from dhcpkit.ipv6.extensions.prefix_delegation import IAPDOption
from dhcpkit.ipv6.messages import AdvertiseMessage, ReplyMessage
from dhcpkit.ipv6.options import (
    ClientIdOption,
    IANAOption,
    IATAOption,
    Option,
    UnknownOption,
)
from dhcpkit.ipv6.server.handlers import CannotRespondError, Handler
from dhcpkit.ipv6.server.transaction_bundle import TransactionBundle

from dhcp_cmd.core.errors import Rejected
from dhcp_cmd.core.inquire import LANES
from dhcp_cmd.core.model import BindingRequest, Decision
from dhcp_cmd.core.ports import StoreError
from dhcp_cmd.core.request import read_request
from dhcp_cmd.plugin import counters, mends
from dhcp_cmd.plugin.config import Configuration
from dhcp_cmd.service import Cmd
from dhcp_cmd.store import open_store
from dmm_wire import dmm
from dmm_wire.dhcpv6.codes import MessageType, OptionCode
from dmm_wire.dhcpv6.message import unwrap

logger = logging.getLogger(__name__)

RESPONSES: dict[int, Any] = {
    MessageType.ADVERTISE: AdvertiseMessage,
    MessageType.REPLY: ReplyMessage,
}


class MobilityHandler(Handler):
    """Decides, commits, and puts the decision into dhcpkit's reply, byte for byte.

    Made in the server's main process and pickled into each worker, which opens the database for
    itself. `server` is the main process's pid.
    """

    def __init__(self, configuration: Configuration, server: int) -> None:
        super().__init__()
        self.configuration = configuration
        self.server = server
        self._cmd: Cmd | None = None

    def worker_init(self) -> None:
        """Open the database and take over reading datagrams. A database that is away now may be back for a message."""
        counters.start(self.configuration.status_directory, self.server)
        mends.apply_in_worker(self.read)
        try:
            self._open()
        except StoreError as error:
            logger.error("The database is not there: %s", error)

    def _open(self) -> Cmd:
        if self._cmd is None:
            store = open_store(self.configuration.database)
            lane = secrets.randbelow(LANES)  # another one for each worker, most likely
            self._cmd = Cmd(store, self.configuration.settings, lane)
        return self._cmd

    def read(self, datagram: bytes, source: bytes, link: bytes) -> BindingRequest | None:
        """The request of a datagram, None for a Leasequery (RFC 5007), which other extensions
        answer.

        Raises WireError or Rejected, each with a reason.
        """
        try:
            return read_request(datagram, source, self.configuration.settings.enterprise, link)
        except Rejected:
            if unwrap(datagram).client.type == MessageType.LEASEQUERY:
                return None
            raise

    def handle(self, bundle: TransactionBundle) -> None:
        """Decide and commit. Raises CannotRespondError when nothing is to be sent, or nothing could be committed."""
        request: BindingRequest | None = bundle.handler_data.get(BindingRequest)
        if request is None:
            return
        try:
            (decision,) = self._open().handle([request], _now)
        except StoreError as error:
            self._counted(bundle, "store-error")
            raise CannotRespondError(f"Nothing was committed ({error})") from error
        except Exception:
            self._counted(bundle, "internal-error")
            raise
        self._counted(bundle, decision.outcome)
        if decision.reply is None:
            raise CannotRespondError(decision.outcome)
        self._answer(bundle, request, decision)

    def analyse_post(self, bundle: TransactionBundle) -> None:
        """Count what was refused before it came to us, such as a message for another server."""
        request: BindingRequest | None = bundle.handler_data.get(BindingRequest)
        if request is None or self in bundle.handler_data:
            return
        if request.server_id not in (None, self.configuration.settings.server_duid):
            counters.count("other-server")
        elif not request.relays and not bundle.received_over_multicast:
            counters.count("unicast")
        else:
            counters.count("refused")

    def _counted(self, bundle: TransactionBundle, outcome: str) -> None:
        bundle.handler_data[self] = outcome
        counters.count(outcome)

    def _answer(
        self, bundle: TransactionBundle, request: BindingRequest, decision: Decision
    ) -> None:
        assert decision.reply is not None
        reply = RESPONSES[decision.reply.type]
        if type(bundle.response) is not reply:
            bundle.response = reply(bundle.response.transaction_id, bundle.response.options)
        # Neither dhcpkit's rapid commit nor its answers for IAs that nobody handled may change what
        # was committed.
        bundle.allow_rapid_commit = False
        for ia in bundle.request.get_options_of_type(IANAOption, IATAOption, IAPDOption):
            bundle.mark_handled(ia)

        options = [o for o in bundle.response.options if not isinstance(o, ClientIdOption)]
        if request.client_id is not None:
            options.insert(0, UnknownOption(OptionCode.CLIENTID, request.client_id))
        options += [_option(code, body) for code, body in decision.reply.options]
        bundle.response.options = options

        if decision.level is not None and decision.relay:
            # dhcpkit counts relays from the client outwards and adds one of its own at the end.
            level = bundle.outgoing_relay_messages[len(request.relays) - 1 - decision.level]
            enterprise = self.configuration.settings.enterprise
            level.options.append(UnknownOption(*dmm.to_option(enterprise, decision.relay)))


def _now() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


def _option(code: int, body: bytes) -> Option:
    """The option as decided, in the class for unknown ones: dhcpkit does not touch it.

    Only a Status Code gets the class that dhcpkit looks for, lest it adds one of its own.
    """
    option = UnknownOption(code, body)
    return Option.parse(option.save())[1] if code == OptionCode.STATUS_CODE else option
