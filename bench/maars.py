"""Two real MAARs, a CMD that answers by a script, and a crowd of nodes: what happens when many move at once.

    core namespace --- core0 [ MAAR 1 ] access0 --- a1 [ hosts ]
                   --- core0 [ MAAR 2 ] access0 --- a2 [ hosts ]

The script leaves the CMD out of what is measured: it knows each answer before the question comes (:mod:`bench.nodes`).
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from types import TracebackType
from typing import Any, Final, Self

from bench.nodes import endpoint, pool
from dmm_wire import dmm
from dmm_wire.address import format_address, parse_address
from dmm_wire.dhcpv6.codes import SERVER_PORT, MessageType, OptionCode
from dmm_wire.dhcpv6.message import ClientMessage, RelayMessage, unwrap
from lab import netns
from relay_maar.io.client import NotRunning, ask

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 20.0
"""Seconds for whatever is waited for."""

CMD: Final = parse_address("2001:db8:c::547")
_CORE: Final = "2001:db8:c{number}::{side}"
_SO_RCVBUFFORCE: Final = 33
_BUFFER: Final = 64 << 20

_CONFIGURATION = """\
name = "maar{number}"
endpoint = "{endpoint}"
core-interface = "core0"
servers = ["{cmd}"]
pools = ["{pool}"]
driver = "seg6"
state-directory = "{directory}/state"
runtime-directory = "{directory}/run"

[[access]]
interface = "access0"
link-address = "{link_address}"
"""


class Maar:
    """A MAAR in its namespace, as an operator has it."""

    def __init__(self, number: int, namespace: str, directory: Path, source: Path) -> None:
        self.number = number
        self.namespace = namespace
        self.directory = directory
        self.process: subprocess.Popen[bytes] | None = None
        self._source = source
        self._config = directory / "maar.toml"
        directory.mkdir(parents=True, exist_ok=True)
        self._config.write_text(
            _CONFIGURATION.format(
                number=number,
                endpoint=format_address(endpoint(number)),
                cmd=format_address(CMD),
                pool=pool(number),
                link_address=format_address(pool(number).address[:15] + b"\x01"),
                directory=directory,
            )
        )

    def start(self, *before: str) -> None:
        """`before`: a program that runs it in its turn."""
        command = [*before, sys.executable, "-m", "relay_maar", "run", str(self._config)]
        with (self.directory / "log").open("ab") as log:
            self.process = netns.start(
                self.namespace, command, stdout=log, stderr=log, directory=self._source
            )

    def status(self) -> dict[str, Any]:
        """What it says of itself. Raises LabError where it does not."""
        try:
            return ask(self.directory / "run", "status")
        except (NotRunning, OSError, ValueError) as problem:
            raise netns.LabError(f"maar{self.number}: {problem}") from None

    @property
    def serves(self) -> bool:
        """Whether it is there. Raises LabError where it has ended."""
        if self.process is not None and self.process.poll() is not None:
            raise netns.LabError(f"maar{self.number} ended: {(self.directory / 'log').read_text()}")
        with contextlib.suppress(netns.LabError):
            return "sessions" in self.status()
        return False

    def complaints(self) -> list[str]:
        """The lines of its log that are more than news."""
        lines = (self.directory / "log").read_text().splitlines()
        return [line for line in lines if " INFO " not in line]

    def cpu(self) -> float:
        """Seconds of processor time."""
        assert self.process is not None
        return int(Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[0]) / 1e9

    def kill(self) -> None:
        """SIGKILL, if it runs."""
        if self.process is not None:
            netns.kill(self.process)

    def routes(self) -> dict[str, dict[str, Any]]:
        """The routes to nodes' prefixes in its main table, by prefix."""
        command = "-6", "route", "show", "table", "main", "proto", "213"
        found = netns.ip_json(*command, namespace=self.namespace)
        return {each["dst"]: each for each in found if each["dst"].endswith("/64")}

    def ruled(self) -> set[str]:
        """The prefixes of nodes whose packets go back through a tunnel."""
        rules = netns.ip_json("-6", "rule", "show", namespace=self.namespace)
        command = "-6", "route", "show", "table", "all", "proto", "213"
        routes = netns.ip_json(*command, namespace=self.namespace)
        # Of versions that had a rule for each prefix, which `--beside` measures, too.
        found = {f"{each['src']}/64" for each in rules if each.get("srclen") == 64}
        return found | {each["from"] for each in routes if "from" in each and each.get("segs")}


class Site:
    """The namespaces, the MAARs and the CMD, between `with` and its end. Removes first what a killed run with the same
    prefix has left. `sources`: where MAAR 1 and MAAR 2 have their code from, this tree if not given."""

    def __init__(self, name: str, sources: tuple[Path, Path] = (ROOT, ROOT)) -> None:
        self.core, self.hosts = f"{name}-core", f"{name}-hosts"
        self._name = name
        self._sources = sources
        self._closing = contextlib.ExitStack()

    @property
    def namespaces(self) -> tuple[str, ...]:
        """All of them."""
        return self.core, f"{self._name}-m1", f"{self._name}-m2", self.hosts

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            undo.callback(netns.lock(self._name).close)
            netns.remove(self.namespaces)
            undo.callback(netns.remove, self.namespaces)
            self.directory = Path(mkdtemp(prefix=f"{self._name}-", dir="/var/tmp"))
            undo.callback(rmtree, self.directory, ignore_errors=True)
            self._build()
            self.cmd = Cmd(self.core)
            undo.callback(self.cmd.socket.close)
            self.links = {number: self._packets(f"a{number}") for number in (1, 2)}
            for link in self.links.values():
                undo.callback(link.close)
            self.maars = {
                number: Maar(
                    number,
                    f"{self._name}-m{number}",
                    self.directory / str(number),
                    self._sources[number - 1],
                )
                for number in (1, 2)
            }
            for maar in self.maars.values():
                undo.callback(maar.kill)
            self._closing = undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.close()

    def start(self) -> None:
        """Start the MAARs and tell them their domain."""
        for maar in self.maars.values():
            maar.start()
        for maar in self.maars.values():
            self.joins(maar)

    def joins(self, maar: Maar) -> None:
        """Wait until a MAAR serves and knows its domain."""

        def joined() -> bool:
            self.cmd.serve()
            return maar.serves and len(maar.status()["domain"]["peers"]) == 1

        netns.wait_for(joined, timeout=PATIENCE, what=f"maar{maar.number}")

    def _build(self) -> None:
        netns.batch(f"netns add {each}" for each in self.namespaces)
        for each in self.namespaces:
            netns.write_sysctls(each, {"net/ipv6/conf/default/accept_dad": "0"})
            netns.ip("link", "set", "lo", "up", namespace=each)
        netns.write_sysctls(self.core, {"net/ipv6/conf/all/forwarding": "1"})
        netns.ip("addr", "add", f"{format_address(CMD)}/128", "dev", "lo", namespace=self.core)
        for number in (1, 2):
            maar = f"{self._name}-m{number}"
            self._cable(maar, "core0", self.core, f"c{number}")
            self._cable(maar, "access0", self.hosts, f"a{number}")
            here = _CORE.format(number=number, side=2)
            there = _CORE.format(number=number, side=1)
            netns.batch(
                (
                    "addr add fe80::2/64 dev core0 nodad",
                    f"addr add {here}/64 dev core0 nodad",
                    f"route add default via {there}",
                ),
                namespace=maar,
            )
            netns.batch(
                (
                    # Without it there is no Neighbor Solicitation for what comes from an endpoint.
                    f"addr add fe80::1/64 dev c{number} nodad",
                    f"addr add {there}/64 dev c{number} nodad",
                    f"route add {format_address(endpoint(number))} via {here}",
                    f"route add {pool(number)} via {here}",
                ),
                namespace=self.core,
            )

    def _cable(self, here: str, device: str, there: str, other: str) -> None:
        netns.ip(*f"link add {device} netns {here} type veth peer {other} netns {there}".split())
        for namespace, name in ((here, device), (there, other)):
            netns.batch(
                (f"link set {name} addrgenmode none", f"link set {name} up"), namespace=namespace
            )

    def _packets(self, device: str) -> socket.socket:
        def opened() -> socket.socket:
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            sock.bind((device, 0x86DD))
            return sock

        sock = netns.inside(self.hosts, opened)
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        return sock


class Cmd:
    """Answers the domain to whoever asks for it, and to a node's message what `script` has for its place: MAAR and
    link-local address."""

    def __init__(self, namespace: str) -> None:
        self.socket = netns.inside(
            namespace, lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        )
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        self.socket.bind((format_address(CMD), SERVER_PORT))
        self.script: dict[bytes, bytes] = {}
        """Relay-replies by the link-local address of the node."""
        self.asked: set[bytes] = set()
        """Of which nodes there were messages, since somebody cleared it."""

    def serve(self) -> None:
        """Answer all that has come."""
        receive, send, script = self.socket.recvfrom, self.socket.sendto, self.script
        while True:
            try:
                data, source = receive(4096)
            except BlockingIOError:
                return
            # peer-address (RFC 9915 section 9.1).
            reply = script.get(data[18:34])
            if reply is not None:
                send(reply, source)
                self.asked.add(data[18:34])
            else:
                send(_domain(data), source)


def _domain(query: bytes) -> bytes:
    unwrapped = unwrap(query)
    client = unwrapped.client
    answer = ClientMessage(MessageType.REPLY, client.transaction_id, client.options[:1]).encode()
    level = unwrapped.relays[0]
    domain = dmm.Domain((endpoint(1), endpoint(2)))
    options = (
        dmm.to_option(dmm.DEFAULT_ENTERPRISE, (dmm.Status(0), domain)),
        (int(OptionCode.RELAY_MSG), answer),
    )
    return RelayMessage(
        MessageType.RELAY_REPL, 0, level.link_address, level.peer_address, options
    ).encode()
