"""`./dev bench relay`: DHCPv6 packets through one MAAR and through ISC dhcrelay, on the same cables, in one run.

    client namespace --- access0 [ relay agent ] core0 --- server namespace

A client's message goes up, the server's answer comes down: two packets an exchange. So many exchanges are on their way
all the time that the relay agent never waits; what it can do at most is also told from its processor time for a packet.
dhcrelay tells the system's log of every packet, so it gets a log that is there: without one it would try to find it
anew each time.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.maars import PATIENCE, ROOT
from bench.nodes import link_local, mac, request
from dmm_wire.address import format_address
from dmm_wire.dhcpv6.codes import MessageType, OptionCode
from dmm_wire.dhcpv6.message import ClientMessage, RelayMessage, parse
from lab import netns

SERVER: Final = "2001:db8:c::547"
ENDPOINT: Final = "2001:db8:f1::1"
NODES: Final = 1000
WINDOW: Final = 200
"""Exchanges on their way at the same time."""
BAR, AIM = 0.5, 1.0
"""Of dhcrelay's packets per second."""
COLUMNS: Final = ("relay agent", "packets/s", "CPU us/packet", "packets per CPU second", "lost")
_SERVER_PORT: Final = 547
_IPV6: Final = 0x86DD
_SO_RCVBUFFORCE: Final = 33
_CORE: Final = "2001:db8:c::1"
_ACCESS: Final = "2001:db8:1::1"

_CONFIGURATION = """\
name = "maar1"
endpoint = "{endpoint}"
core-interface = "core0"
servers = ["{server}"]
pools = ["2001:db8:1::/48"]
driver = "seg6"
state-directory = "{directory}/state"
runtime-directory = "{directory}/run"

[[access]]
interface = "access0"
link-address = "{access}"
"""


@dataclass(slots=True)
class Figures:
    """One relay agent in one trial."""

    relay: str
    packets: int
    """That it passed on, both ways."""
    seconds: float
    cpu: float
    """Its processor time, seconds."""
    lost: int
    """Exchanges that did not come to an end."""

    @property
    def rate(self) -> float:
        """Packets per second as measured, with a generator that takes its part of the machine."""
        return self.packets / self.seconds

    @property
    def capacity(self) -> float:
        """Packets per second of processor time."""
        return self.packets / self.cpu


def measure(name: str, seconds: float, rounds: int, beside: Path | None) -> list[Figures]:
    """Each relay agent in turn, so many times. `beside`: the tree of another version of ours. Raises LabError."""
    relays: dict[str, Callable[[Path], list[str]]] = {"relay-maar": _ours}
    sources = {"relay-maar": ROOT}
    if beside is not None:
        relays["relay-maar (beside)"], sources["relay-maar (beside)"] = _ours, beside.resolve()
    if shutil.which("dhcrelay") is None:
        raise netns.LabError("dhcrelay is not installed (Debian: isc-dhcp-relay)")
    relays["dhcrelay"] = _theirs
    found = []
    for _ in range(rounds):
        for relay, command in relays.items():
            with ExitStack() as closing:
                folder = Path(
                    closing.enter_context(TemporaryDirectory(prefix=name, dir="/var/tmp"))
                )
                cables = closing.enter_context(_cables(name))
                cables.log = closing.enter_context(_log(folder))
                source = sources.get(relay, ROOT)
                process = closing.enter_context(_running(f"{name}-relay", command(folder), source))
                found.append(cables.load(relay, process, seconds))
    return found


def _ours(folder: Path) -> list[str]:
    config = folder / "maar.toml"
    config.write_text(
        _CONFIGURATION.format(endpoint=ENDPOINT, server=SERVER, access=_ACCESS, directory=folder)
    )
    return [sys.executable, "-m", "relay_maar", "run", str(config)]


def _theirs(folder: Path) -> list[str]:
    relay = ["dhcrelay", "-6", "-q", "-d", "--no-pid", "-I", "-l", "access0"]
    script = 'mount --bind "$0" /dev && exec "$@"'
    # Of the namespace of mounts that `ip netns exec` has made for it; -d keeps it in the foreground.
    return ["sh", "-c", script, str(folder / "dev"), *relay, "-u", f"{SERVER}%core0"]


@contextmanager
def _log(folder: Path) -> Iterator[socket.socket]:
    """The system's log for who has this folder's `dev` as /dev."""
    devices = folder / "dev"
    devices.mkdir(exist_ok=True)
    os.mknod(devices / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(devices / "log"))
        sock.setblocking(False)
        yield sock


@contextmanager
def _running(
    namespace: str, command: Sequence[str], source: Path
) -> Iterator[subprocess.Popen[bytes]]:
    process = netns.start(namespace, command, directory=source)
    try:
        yield process
    finally:
        netns.kill(process)


@contextmanager
def _cables(name: str) -> Iterator[Cables]:
    spaces = [f"{name}-{each}" for each in ("client", "relay", "server")]
    with ExitStack() as undo:
        undo.callback(netns.lock(name).close)
        netns.remove(spaces)
        undo.callback(netns.remove, spaces)
        client, relay, server = spaces
        netns.batch(f"netns add {each}" for each in spaces)
        for each in spaces:
            netns.write_sysctls(each, {"net/ipv6/conf/default/accept_dad": "0"})
            netns.ip("link", "set", "lo", "up", namespace=each)
        for device, other in (("access0", client), ("core0", server)):
            netns.ip(*f"link add {device} netns {relay} type veth peer eth0 netns {other}".split())
            netns.ip("link", "set", device, "up", namespace=relay)
            netns.ip("link", "set", "eth0", "up", namespace=other)
        netns.batch(
            (f"addr add {_CORE}/64 dev core0 nodad", f"addr add {_ACCESS}/64 dev access0 nodad"),
            namespace=relay,
        )
        netns.batch(
            (
                f"addr add {SERVER}/64 dev eth0 nodad",
                f"route add {ENDPOINT}/128 via {_CORE}",
                f"route add {_ACCESS}/128 via {_CORE}",
            ),
            namespace=server,
        )
        cables = Cables(client, relay, server)
        undo.callback(cables.close)
        yield cables


class Cables:
    """Clients at one end of the relay agent, the server at the other."""

    def __init__(self, client: str, relay: str, server: str) -> None:
        def link() -> socket.socket:
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
            sock.bind(("eth0", _IPV6))
            return sock

        def served() -> socket.socket:
            sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
            sock.bind((SERVER, _SERVER_PORT))
            return sock

        self._link = netns.inside(client, link)
        self._server = netns.inside(server, served)
        for sock in (self._link, self._server):
            sock.setblocking(False)
        self._frames = [request(node) for node in range(1, NODES + 1)]
        self._replies: dict[bytes, bytes] = {}
        self._relay = relay
        self._introduced: set[str] = set()
        self.log: socket.socket | None = None
        """To be read while the load goes on: else its writers would wait."""

    def close(self) -> None:
        """Let go of the sockets."""
        self._link.close()
        self._server.close()

    def load(self, relay: str, process: subprocess.Popen[bytes], seconds: float) -> Figures:
        """Wait until it passes packets on, warm up, measure. Raises LabError where it does not work."""
        self._wait(relay, process)
        self._run(0.3)
        before, start = _cpu(process.pid), time.monotonic()
        done, lost = self._run(seconds)
        return Figures(relay, 2 * done, time.monotonic() - start, _cpu(process.pid) - before, lost)

    def _wait(self, relay: str, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + PATIENCE
        while self._run(0.1, window=1)[0] == 0:
            self._introduce()
            if process.poll() is not None or time.monotonic() > deadline:
                raise netns.LabError(f"{relay} passes nothing on")

    def _introduce(self) -> None:
        """The clients have no kernel that would answer who they are."""
        links = netns.ip_json("link", "show", namespace=self._relay)
        for device in {link["ifname"] for link in links} - {"lo", "core0"} - self._introduced:
            self._introduced.add(device)
            netns.batch(
                (
                    f"neigh replace {format_address(link_local(n))} lladdr {mac(n).hex(':')} "
                    f"dev {device}"
                    for n in range(1, NODES + 1)
                ),
                namespace=self._relay,
            )

    def _run(self, seconds: float, window: int = WINDOW) -> tuple[int, int]:
        """Keep so many exchanges going. Returns how many came to an end, and how many did not."""
        link, frames = self._link, self._frames
        sent = done = 0
        end = time.monotonic() + seconds
        patience = end + 0.5
        with selectors.DefaultSelector() as waiting:
            waiting.register(link, selectors.EVENT_READ)
            waiting.register(self._server, selectors.EVENT_READ)
            if self.log is not None:
                waiting.register(self.log, selectors.EVENT_READ)
            while True:
                now = time.monotonic()
                if now < end:
                    for _ in range(window - (sent - done)):
                        link.send(frames[sent % NODES])
                        sent += 1
                elif done == sent or now > patience:
                    return done, sent - done
                if not waiting.select(0.05) and now < end:
                    window += sent - done  # those are lost
                self._answer()
                done += self._arrived()
                self._read_log()

    def _answer(self) -> None:
        receive, send = self._server.recvfrom, self._server.sendto
        while True:
            try:
                data, source = receive(2048)
            except BlockingIOError:
                return
            if data[0] != MessageType.RELAY_FORW:
                continue
            reply = self._replies.get(data)
            if reply is None:
                reply = self._replies[data] = _reply(data)
            if reply:
                send(reply, source)

    def _read_log(self) -> None:
        with suppress(BlockingIOError):
            while self.log is not None:
                self.log.recv(1024)

    def _arrived(self) -> int:
        """The answers that clients have got."""
        count = 0
        while True:
            try:
                frame = self._link.recv(2048)
            except BlockingIOError:
                return count
            # IPv6, UDP, to port 546, a Reply.
            count += frame[20] == 17 and frame[56:58] == b"\x02\x22" and frame[62] == 7


def _reply(data: bytes) -> bytes:
    """The server's answer: the relay's own options and the client's Client-ID come back."""
    level = parse(data)
    assert isinstance(level, RelayMessage)
    options = dict(level.options)
    client = parse(options[OptionCode.RELAY_MSG])
    assert isinstance(client, ClientMessage)
    if client.type == MessageType.INFORMATION_REQUEST:
        return b""
    inner = ClientMessage(MessageType.REPLY, client.transaction_id, client.options[:1]).encode()
    back = [(int(OptionCode.RELAY_MSG), inner)]
    interface_id = options.get(OptionCode.INTERFACE_ID)
    if interface_id is not None:
        back.insert(0, (int(OptionCode.INTERFACE_ID), interface_id))
    return RelayMessage(
        MessageType.RELAY_REPL, level.hop_count, level.link_address, level.peer_address, tuple(back)
    ).encode()


def _cpu(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def best(figures: Sequence[Figures]) -> dict[str, Figures]:
    """The round of each relay agent in which it took the least processor time for a packet."""
    found: dict[str, Figures] = {}
    for each in figures:
        known = found.get(each.relay)
        if known is None or each.capacity > known.capacity:
            found[each.relay] = each
    return found


def rows(figures: Sequence[Figures]) -> Iterator[tuple[str, ...]]:
    """As COLUMNS."""
    for each in best(figures).values():
        yield (
            each.relay,
            f"{each.rate:,.0f}",
            f"{1e6 / each.capacity:.1f}",
            f"{each.capacity:,.0f}",
            str(each.lost),
        )


def told(figures: Sequence[Figures], console: Console) -> bool:
    """Print the figures. Returns whether the bar is met."""
    table = Table(*COLUMNS)
    for row in rows(figures):
        table.add_row(*row)
    console.print(table)
    found = best(figures)
    theirs = found["dhcrelay"]
    for name, each in found.items():
        if each is not theirs:
            console.print(
                f"{name}: {each.rate / theirs.rate:.2f} x dhcrelay's packets/s, "
                f"{each.capacity / theirs.capacity:.2f} x per CPU second (bar {BAR}, aim {AIM})"
            )
    return found["relay-maar"].rate >= BAR * theirs.rate


def write(figures: Sequence[Figures], directory: Path) -> None:
    """Put all that was measured into relay.json."""
    directory.mkdir(parents=True, exist_ok=True)
    found = [asdict(each) for each in figures]
    (directory / "relay.json").write_text(json.dumps(found, indent=1) + "\n")
