"""A netlink socket that packs requests: one system call for a batch, one verdict per message.

pyroute2 gives the messages, not the socket: its own runs an event loop of its own and so cannot be
used inside the daemon's, and it waits for every single acknowledgement.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from pyroute2.netlink import (
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
)

Attributes: TypeAlias = Sequence[tuple[str, Any]]
Message: TypeAlias = Any
"""An `nlmsg` of pyroute2 (which has no types)."""

_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_NLM_F_DUMP_INTR = 0x10
_NLM_F_ACK_TLVS = 0x200
_NLMSGERR_ATTR_MSG = 1
_HEADER = struct.Struct("=LHHLL")
_TIMEVAL = struct.Struct("@ll")
_BATCH = 1024
"""Requests per system call: few enough for the send buffer, and for the receive buffer to hold their answers."""
_BUFFER = 4 << 20
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_LARGEST_DATAGRAM = 1 << 18
_NO_ROOM = frozenset({errno.ENOBUFS, errno.ENOMEM, errno.EMSGSIZE})
"""Nothing was sent: there are too many requests for the socket or the memory that there is."""
_ANSWER_TIME = 10
"""Seconds. The kernel answers inside the system call; this only turns a kernel bug into an error."""


class Request(NamedTuple):
    """A request in the octets that go to the kernel, but for its header. pyroute2 takes some 80 us to encode one: too
    much for what is asked for every mobile node that moves."""

    number: int
    """nlmsg_type."""
    flags: int
    body: bytes


class Refused(Exception):
    """The kernel's negative answer to one request."""

    def __init__(self, number: int, text: str = "") -> None:
        name = errno.errorcode.get(number, f"errno {number}")
        reason = f"{name}: {text or os.strerror(number)}"
        if number in (errno.EPERM, errno.EACCES):
            reason += " (CAP_NET_ADMIN is needed)"
        super().__init__(reason)
        self.number = number
        self.reason = reason


def message(
    kind: Any, number: int, flags: int, fields: Mapping[str, int], attributes: Attributes
) -> Message:
    """A request of pyroute2's class `kind`, message type `number`, ready for `Netlink`."""
    result = kind()
    for name, value in fields.items():
        result[name] = value
    result["attrs"] = list(attributes)
    result["header"]["type"] = number
    result["header"]["flags"] = NLM_F_REQUEST | flags
    return result


class Netlink:
    """A connection to the kernel for the network namespace it was made in."""

    def __init__(self, protocol: int = socket.NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
            with suppress(PermissionError):  # what is asked will not be allowed either
                self._socket.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        self._socket.bind((0, 0))
        # The kernel's own timeout: Python's would ask it before each call whether there is something.
        patience = _TIMEVAL.pack(_ANSWER_TIME, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
        self._sequence = 0
        self._oldest = 0

    @property
    def port(self) -> int:
        """Our address on the netlink: the kernel names it in what it announces of changes that we asked for."""
        return int(self._socket.getsockname()[0])

    def close(self) -> None:
        """Idempotent."""
        self._socket.close()

    def request(self, request: Request | Message) -> None:
        """One request. Raises Refused."""
        (refusal,) = self.transact([request])
        if refusal is not None:
            raise refusal

    def transact(self, requests: Sequence[Request | Message]) -> list[Refused | None]:
        """Send requests in order; the kernel tries each of them, whatever became of the others.

        Answers may be lost (ENOBUFS: the receive buffer was full), the requests were carried out all the same. Then all
        of that batch are sent again, fewer at a time: what was done already is refused as such.
        """
        verdicts: list[Refused | None] = []
        most = _BATCH
        while len(verdicts) < len(requests):
            answered = self._exchange(requests[len(verdicts) : len(verdicts) + most])
            if answered is None:
                most = max(1, most // 2)
            else:
                verdicts += answered
        return verdicts

    def get(self, request: Message) -> Message:
        """The one object a request asks for. Raises Refused."""
        self._send([self._encode(request, 0)])
        while True:
            for _, number, flags, data in self._receive():
                if number == NLMSG_ERROR:
                    raise _verdict(data, flags) or Refused(errno.ENODATA)
                return _decode(type(request), data)

    def dump(
        self, request: Message, read: Callable[[bytes], Message] | None = None
    ) -> list[Message]:
        """All objects a request asks for, read again while they change under the reader. `read` decodes a message, if
        pyroute2 is not to.

        Raises Refused.
        """
        while True:
            self._send([self._encode(request, NLM_F_DUMP)])
            result, consistent = self._collect(read or partial(_decode, type(request)))
            if consistent:
                return result

    def _collect(self, read: Callable[[bytes], Message]) -> tuple[list[Message], bool]:
        result: list[Message] = []
        consistent = True
        while True:
            for _, number, flags, data in self._receive():
                consistent = consistent and not flags & _NLM_F_DUMP_INTR
                if number == NLMSG_DONE:
                    return result, consistent
                if number == NLMSG_ERROR:
                    raise _verdict(data, flags) or Refused(errno.ENODATA)
                result.append(read(data))

    def _encode(self, request: Request | Message, flags: int) -> bytes:
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        if isinstance(request, Request):
            header = _HEADER.pack(
                _HEADER.size + len(request.body),
                request.number,
                NLM_F_REQUEST | request.flags | flags,
                self._sequence,
                0,
            )
            return header + request.body
        request["header"]["flags"] |= flags
        request["header"]["sequence_number"] = self._sequence
        request.reset()
        request.encode()
        return bytes(request.data)

    def _exchange(self, requests: Sequence[Request | Message]) -> list[Refused | None] | None:
        """The verdict on each; None if there was no room for the requests or for an answer.

        Only the last one is to be acknowledged: the kernel tells every refusal, and in order. So a batch that it takes
        has one answer.
        """
        last = len(requests) - 1
        batch = [self._encode(each, NLM_F_ACK * (n == last)) for n, each in enumerate(requests)]
        try:
            self._send(batch)
        except OSError as error:
            if error.errno not in _NO_ROOM or not last:
                raise
            return None
        verdicts: list[Refused | None] = [None] * len(batch)
        while True:
            try:
                for sequence, number, flags, data in self._receive():
                    if number == NLMSG_ERROR:
                        place = (sequence - self._oldest) & 0xFFFFFFFF
                        verdicts[place] = _verdict(data, flags)
                        if place == last:
                            return verdicts
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                # It was all done when `send` came back, but nobody knows what was refused.
                self._drain()
                return None

    def _send(self, requests: Sequence[bytes]) -> None:
        self._oldest = (self._sequence - len(requests) + 1) & 0xFFFFFFFF
        self._socket.send(b"".join(requests))

    def _drain(self) -> None:
        """Make room for answers."""
        while True:
            try:
                self._socket.recv(_LARGEST_DATAGRAM, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        """One datagram's answers to what was sent last: sequence number, message type, flags, the whole message."""
        try:
            data = self._socket.recv(_LARGEST_DATAGRAM)
        except BlockingIOError:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, number, flags, sequence, _ = _HEADER.unpack_from(data, offset)
            if (sequence - self._oldest) & 0xFFFFFFFF <= _BATCH:
                yield sequence, number, flags, data[offset : offset + length]
            offset += (length + 3) & ~3


def _decode(kind: Any, data: bytes) -> Message:
    result = kind(data)
    result.decode()
    return result


def _verdict(body: bytes, flags: int) -> Refused | None:
    (number,) = struct.unpack_from("=i", body, _HEADER.size)
    if number == 0:
        return None
    text = ""
    # With CAP_ACK only the header of our request is echoed; the attributes follow it.
    offset = _HEADER.size + 4 + _HEADER.size
    while flags & _NLM_F_ACK_TLVS and offset + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, offset)
        if length < 4:
            break
        if kind == _NLMSGERR_ATTR_MSG:
            text = body[offset + 4 : offset + length].rstrip(b"\0").decode("ascii", "replace")
        offset += (length + 3) & ~3
    return Refused(-number, text)
