"""nftables: the program `nft` writes and lists rules; what is read often, netlink tells without a process."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Mapping
from typing import Final

from pyroute2.netlink import nla
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES, nfgen_msg

from relay_maar.southbound.netlink import Netlink, Refused, message

_NETLINK_NETFILTER: Final = 12
_GET_GENERATION: Final = NFNL_SUBSYS_NFTABLES << 8 | 16
_GET_OBJECTS: Final = NFNL_SUBSYS_NFTABLES << 8 | 19
_COUNTER: Final = 1
_PATIENCE: Final = 10.0
"""Seconds for one run of nft."""


class NftError(Exception):
    """nft is not there, or refused; one line."""


class _Generation(nfgen_msg):
    """NFT_MSG_GETGEN (include/uapi/linux/netfilter/nf_tables.h)."""

    __slots__ = ()
    nla_map = (("NFTA_GEN_UNSPEC", "none"), ("NFTA_GEN_ID", "be32"))


class _Object(nfgen_msg):
    """NFT_MSG_GETOBJ of named counters."""

    __slots__ = ()
    nla_map = (
        ("NFTA_OBJ_UNSPEC", "none"),
        ("NFTA_OBJ_TABLE", "asciiz"),
        ("NFTA_OBJ_NAME", "asciiz"),
        ("NFTA_OBJ_TYPE", "be32"),
        ("NFTA_OBJ_DATA", "counter"),
    )

    class counter(nla):
        """The data of a counter."""

        __slots__ = ()
        nla_map = (
            ("NFTA_COUNTER_UNSPEC", "none"),
            ("NFTA_COUNTER_BYTES", "be64"),
            ("NFTA_COUNTER_PACKETS", "be64"),
        )


class Reader:
    """A connection to nftables in the network namespace it was made in."""

    def __init__(self) -> None:
        self._netlink = Netlink(_NETLINK_NETFILTER)

    def close(self) -> None:
        """Idempotent."""
        self._netlink.close()

    def generation(self) -> int:
        """It is another one after every change that anybody makes, to any table. Raises NftError."""
        try:
            found = self._netlink.get(message(_Generation, _GET_GENERATION, 0, {}, ()))
        except (Refused, OSError) as error:
            raise NftError(f"nftables: {error}") from None
        return int(found.get_attr("NFTA_GEN_ID"))

    def counters(self, family: int, table: str) -> Mapping[str, int]:
        """The packets that each counter of a table has seen. Raises NftError."""
        attributes = [("NFTA_OBJ_TABLE", table), ("NFTA_OBJ_TYPE", _COUNTER)]
        asked = message(_Object, _GET_OBJECTS, 0, {"nfgen_family": family}, attributes)
        try:
            found = self._netlink.dump(asked)
        except (Refused, OSError) as error:
            raise NftError(f"nftables: {error}") from None
        return {
            each.get_attr("NFTA_OBJ_NAME"): each.get_attr("NFTA_OBJ_DATA").get_attr(
                "NFTA_COUNTER_PACKETS"
            )
            for each in found
        }


INET6: Final = int(socket.AF_INET6)
"""The family of `table ip6` (NFPROTO_IPV6)."""


def program() -> str | None:
    """Where nft is: a service's PATH may not look there."""
    return shutil.which("nft", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def run(*arguments: str, text: str = "") -> str:
    """`nft ARGUMENTS`, in the network namespace of the calling thread. Raises NftError."""
    found = program()
    if found is None:
        raise NftError("there is no program nft (package nftables)")
    try:
        done = subprocess.run(
            [found, *arguments],
            input=text,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NftError(f"nft: {error}") from None
    if done.returncode:
        raise NftError(f"nft: {(done.stderr.strip() or 'failed').splitlines()[0]}")
    return done.stdout
