"""Every mend: what dhcpkit does without it, then with it. Each case runs in a child process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from textwrap import dedent

import pytest

from dmm_wire.dhcpv6.codes import MessageType, OptionCode
from tests.cmd.plugin import messages as m

ROOT = Path(__file__).parents[3]

# What packaging/netifaces does when an interpreter starts. Without it no other mend could be seen at
# work: with a current setuptools, or from Python 3.12 on, dhcpkit could not be imported at all.
TYPING = """
import sys, typing
sys.modules.setdefault("dhcpkit.typing", typing)
"""
WITHOUT_EXTENSION = """
import sys, types
sys.modules["dhcp_cmd.plugin"] = types.ModuleType("dhcp_cmd.plugin")  # what dhcpkit would load
"""
STOCK = TYPING + WITHOUT_EXTENSION
MENDED = """
import dhcp_cmd.plugin
from dhcp_cmd.plugin import mends
mends.apply_at_load()  # once more: it must not matter
"""


def child(*code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-"],
        input="\n".join(dedent(part) for part in code),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_pkg_resources_is_needed_and_pinned() -> None:
    blocked = child(TYPING, "sys.modules['pkg_resources'] = None", "import dhcpkit.registry")
    assert "pkg_resources" in blocked.stderr
    assert child(TYPING, "import dhcpkit.registry").returncode == 0
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert "setuptools>=77,<80.9" in extra["cmd"]


def test_netifaces_is_there_by_name() -> None:
    # The entry points of dhcpkit ask for it through pkg_resources, which wants the distribution.
    done = child("import pkg_resources; pkg_resources.require('dhcpkit'); import netifaces")
    assert done.returncode == 0, done.stderr


USES_TYPING = """
import typing, typing_extensions
typing._type_check, typing._GenericAlias
print(typing.__name__)
"""


WITHOUT_PTH = 'import sys; sys.modules.pop("dhcpkit.typing", None)'


def test_typing_after_dhcpkit() -> None:
    stock = child(WITHOUT_PTH, WITHOUT_EXTENSION, "import dhcpkit", USES_TYPING)
    assert "AttributeError" in stock.stderr
    mended = child(WITHOUT_PTH, "import dhcpkit", MENDED, USES_TYPING)
    assert mended.returncode == 0, mended.stderr


def test_typing_before_dhcpkit() -> None:
    # Python 3.12 and later, where the interpreter asks sys.modules["typing"] for private names.
    genuine = "import typing as genuine"
    done = child(WITHOUT_PTH, genuine, MENDED, USES_TYPING, "assert typing is genuine")
    assert (done.returncode, done.stdout) == (0, "typing\n"), done.stderr


POOL = """
from dhcpkit.ipv6.server.nonblocking_pool import NonBlockingPool
if __name__ == "__main__":
    with NonBlockingPool(processes=1) as pool:
        print(pool.apply_async(len, ("abc",)).get(timeout=30))
"""


def test_pool_result() -> None:
    assert "AttributeError" in child(STOCK, POOL).stderr
    assert child(MENDED, POOL).stdout == "3\n"


def test_pool_drops_when_full() -> None:
    flood = """
    import multiprocessing
    from dhcpkit.ipv6.server.nonblocking_pool import NonBlockingPool
    if __name__ == "__main__":
        gate = multiprocessing.Event()
        with NonBlockingPool(processes=1, initializer=gate.wait) as pool:
            results = [pool.apply_async(len, ("x" * 1000,)) for _ in range(4000)]
            gate.set()
            kept = [result.get(timeout=30) for result in results if result is not None]
        print(len(kept) < len(results), set(kept))
    """
    only_the_result = "mends.QUEUE_LIMIT = 10**9"
    assert child(MENDED, only_the_result, flood).stdout == "False {1000}\n"
    assert child(MENDED, flood).stdout == "True {1000}\n"


def test_log_end() -> None:
    read = """
    import multiprocessing
    from dhcpkit.ipv6.server.queue_logger import QueueLevelListener
    class Closing:
        def recv_bytes(self): return None + 1  # what Connection does when it is closed meanwhile
    closed, closing = multiprocessing.Queue(), multiprocessing.Queue()
    closed._reader.close()
    closing._recv_bytes = Closing().recv_bytes
    for queue in closed, closing:
        listener = QueueLevelListener(queue)
        try:
            print(listener.dequeue(True) is listener._sentinel)
        except (OSError, TypeError) as error:
            print(type(error).__name__)
    """
    assert child(STOCK, read).stdout.split() == ["OSError", "TypeError"]
    assert child(MENDED, read).stdout.split() == ["True", "True"]


def test_noise_filter() -> None:
    receive = f"""
    import socket
    from dhcpkit.ipv6.server.listeners import IgnoreMessage
    from dhcpkit.ipv6.server.listeners.udp import UDPListener

    listener = UDPListener.__new__(UDPListener)  # the real one wants port 547
    listener.listen_socket = listener.reply_socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    listener.listen_socket.bind(("::1", 0))
    listener.interface_name, listener.interface_id, listener.interface_index = "lo", b"lo", 1
    from ipaddress import IPv6Address
    listener.listen_address = listener.global_address = IPv6Address("::1")
    listener.marks = []
    for data in bytes.fromhex("{m.solicit().hex()}"), b"noise":
        listener.listen_socket.sendto(data, listener.listen_socket.getsockname())
        try:
            print(listener.recv_request()[0].data == data)
        except IgnoreMessage as error:
            print("ignored")
    """
    assert child(STOCK, receive).stdout.split() == ["True", "True"]
    twice = "mends.apply_in_main(); mends.apply_in_main()"
    assert child(MENDED, twice, receive).stdout.split() == ["True", "ignored"]


@pytest.mark.parametrize(
    "option",
    [
        pytest.param((int(OptionCode.CLIENTID), b"\x00\x03\x00"), id="DUID-LL without address"),
        pytest.param((int(OptionCode.ORO), b"\x00"), id="ORO of one octet"),
        pytest.param((int(OptionCode.DOMAIN_LIST), b"\x3fx"), id="domain cut short"),
        pytest.param((int(OptionCode.VENDOR_OPTS), b"\x00\x00\x00\x09\xff"), id="vendor option"),
    ],
)
def test_opaque_options(option: tuple[int, bytes]) -> None:
    message = m.client(MessageType.SOLICIT, option, client_id=False)
    parse = f"""
    from dhcpkit.ipv6.messages import Message
    sent = bytes.fromhex("{message.hex()}")
    print(bytes(Message.parse(sent)[1].save()) == sent)
    """
    stock = child(STOCK, parse)
    assert stock.returncode == 1
    assert stock.stdout == ""
    assert child(MENDED, parse).stdout == "True\n"


CHAIN = """
from ipaddress import IPv6Address
from dhcpkit.ipv6.duids import EnterpriseDUID
from dhcpkit.ipv6.messages import Message, RelayForwardMessage
from dhcpkit.ipv6.options import RelayMessageOption
from dhcpkit.ipv6.server.message_handler import MessageHandler
from dhcpkit.ipv6.server.statistics import StatisticsSet
from dhcpkit.ipv6.server.transaction_bundle import TransactionBundle

def answer(data, multicast):
    relay = RelayForwardMessage(0, IPv6Address("2001:db8::1"), IPv6Address("fe80::2"),
                                [RelayMessageOption(Message.parse(data)[1])])
    bundle = TransactionBundle(relay, received_over_multicast=multicast)
    MessageHandler(EnterpriseDUID(32473, b"cmd")).handle(bundle, StatisticsSet())
    return bytes(bundle.response.save()).hex() if bundle.response else None
"""


def test_unicast_silence() -> None:
    confirm = m.client(MessageType.SOLICIT, m.ELAPSED, m.ia_na())
    ask = f"""
    print(answer(bytes.fromhex("{confirm.hex()}"), False))
    print(answer(bytes.fromhex("{confirm.hex()}"), True) is not None)
    """
    unicast, multicast = child(STOCK, CHAIN, ask).stdout.split()
    assert "000d" in unicast  # a Status Code
    assert "0005" in unicast  # UseMulticast
    assert multicast == "True"
    assert child(MENDED, CHAIN, ask).stdout.split() == ["None", "True"]


SERVER = """
import sys
from dhcpkit.ipv6.server.main import run
sys.argv = ["ipv6-dhcpd", sys.argv[1] if len(sys.argv) > 1 else CONFIG]
sys.exit(run())
"""


@pytest.mark.parametrize(
    ("text", "stock_status", "complaint"),
    [
        ("colour blue\n", 1, "line 2: 'colour' is not a known key name"),
        ("<recursive-name-servers>\n</recursive-name-servers>\n", 1, "'address'"),
        ("user nobody-of-that-name\n", 1, "line 2: User with name"),
    ],
)
def test_config_errors(tmp_path: Path, text: str, stock_status: int, complaint: str) -> None:
    path = tmp_path / "server.conf"
    path.write_text("# a configuration\n" + text)
    where = f"CONFIG = {str(path)!r}"
    stock = child(STOCK, where, SERVER)
    assert stock.returncode == stock_status
    mended = child(MENDED, where, SERVER)
    assert mended.returncode == 2
    assert len(mended.stderr.splitlines()) == 1, mended.stderr
    assert str(path) in mended.stderr
    assert complaint in mended.stderr


def test_missing_directory(tmp_path: Path) -> None:
    where = f"CONFIG = {str(tmp_path / 'nowhere' / 'server.conf')!r}"
    stock = child(STOCK, where, SERVER)
    assert (stock.returncode, "Traceback" in stock.stderr) == (1, True)
    mended = child(MENDED, where, SERVER)
    assert (mended.returncode, mended.stdout) == (2, "")
    assert len(mended.stderr.splitlines()) == 1, mended.stderr
    assert mended.stderr.endswith(f"{tmp_path}/nowhere: No such file or directory\n")


def test_missing_config_file(tmp_path: Path) -> None:
    mended = child(MENDED, f"CONFIG = {str(tmp_path / 'none.conf')!r}", SERVER)
    assert (mended.returncode, len(mended.stderr.splitlines())) == (2, 1), mended.stderr


WORKER = """
import logging
from ipaddress import IPv6Address
from dhcpkit.ipv6.server import worker
from dhcpkit.ipv6.server.listeners import IncomingPacketBundle, Replier
from dhcpkit.ipv6.server.statistics import ServerStatistics

class Handled:
    def handle(self, bundle, statistics):
        request = bundle.handler_data.get(mended_request)
        print("handled", type(bundle.request).__name__, request is not None)

worker.logger = logging.getLogger()
worker.logging_handler = logging.NullHandler()
worker.shared_statistics = ServerStatistics()
worker.current_message_handler = Handled()
mended_request = None

def receive(data, tcp=False):
    packet = IncomingPacketBundle(data=data, source_address=IPv6Address("2001:db8::2"),
                                  received_over_tcp=tcp)
    worker.handle_message(packet, Replier())
    print("unparsable", worker.shared_statistics.global_stats.unparsable_packets.value)
"""
MENDED_WORKER = """
from dhcp_cmd.core.model import BindingRequest as mended_request
from dhcp_cmd.core.request import read_request
for again in range(2):
    mends.apply_in_worker(lambda data, source, link: read_request(data, source, 32473, link))
"""


def maar(message: bytes, *, peer: bytes = m.LINK_LOCAL, interface_id: bytes = b"eth1") -> bytes:
    return m.relayed(
        message,
        link="2001:db8:1::",
        endpoint="2001:db8:ffff::2",
        relay_id=m.SERVER_DUID,
        peer=peer,
        interface_id=interface_id,
    )


@pytest.mark.parametrize(
    ("name", "data"),
    [
        pytest.param(
            "Solicit",
            m.forward(
                m.client(MessageType.SOLICIT, m.ELAPSED),
                (int(OptionCode.VENDOR_OPTS), (32473).to_bytes(4, "big")),
                link="2001:db8:1::",
            ),
            id="Relay-forward with option 17",
        ),
        pytest.param(
            "Solicit",
            m.forward(
                m.client(MessageType.SOLICIT, m.ELAPSED),
                (int(OptionCode.RELAY_ID), m.SERVER_DUID),
                link="2001:db8:1::",
            ),
            id="Relay-forward with Relay-ID",
        ),
        pytest.param(
            "Solicit",
            m.client(MessageType.SOLICIT, m.ia_na()),
            id="no Elapsed Time",
        ),
        pytest.param(
            "InformationRequest",
            m.client(MessageType.INFORMATION_REQUEST, m.ELAPSED, client_id=False),
            id="Information-request without Client Identifier",
        ),
        pytest.param(
            "Decline",
            m.client(MessageType.DECLINE, m.SERVER_ID, m.ELAPSED, m.ia_pd()),
            id="Decline with IA_PD",
        ),
        pytest.param(
            "Renew",
            m.client(MessageType.RENEW, m.SERVER_ID, m.ELAPSED, m.RAPID_COMMIT),
            id="a known option in another place",
        ),
        pytest.param(
            "Request",
            maar(m.client(MessageType.REQUEST, m.SERVER_ID, m.ia_na(), m.ia_pd())),
            id="a MAAR's Relay-forward",
        ),
    ],
)
def test_original_bytes(name: str, data: bytes) -> None:
    ask = f'receive(bytes.fromhex("{data.hex()}"))'
    assert child(STOCK, WORKER, ask).stdout == "unparsable 1\n"
    mended = child(MENDED, WORKER, MENDED_WORKER, ask)
    assert mended.stdout == f"handled {name}Message True\nunparsable 0\n", mended.stderr


def test_original_bytes_of_bad_datagrams() -> None:
    looping = m.client(MessageType.SOLICIT)
    for hop in range(10):
        looping = m.forward(looping, link="2001:db8:1::", hop_count=hop)
    bad = [b"", b"\x01", b"\x0c" * 20, m.client(MessageType.REPLY), looping, b"\xff" * 65000]
    ask = "\n".join(f'receive(bytes.fromhex("{data.hex()}"))' for data in bad)
    mended = child(MENDED, WORKER, MENDED_WORKER, ask)
    assert mended.stdout.splitlines() == [f"unparsable {n + 1}" for n in range(len(bad))]
    assert mended.stderr == ""


def test_original_bytes_leaves_tcp_alone() -> None:
    ask = f'receive(bytes.fromhex("{m.client(MessageType.SOLICIT, m.ELAPSED).hex()}"), tcp=True)'
    mended = child(MENDED, WORKER, MENDED_WORKER, ask)
    assert mended.stdout == "handled SolicitMessage False\nunparsable 0\n", mended.stderr


HANDLERS = """
from dhcpkit.ipv6.duids import EnterpriseDUID
from dhcpkit.ipv6.server.handlers import Handler
from dhcpkit.ipv6.server.message_handler import MessageHandler

class Ours(Handler):
    def handle(self, bundle):
        print("seen", type(bundle.request).__name__, type(bundle.response).__name__)

duid = EnterpriseDUID(32473, b"cmd")
worker.current_message_handler = MessageHandler(duid, sub_handlers=[Ours()])
"""


@pytest.mark.parametrize(
    "associations",
    [pytest.param((), id="no IA"), pytest.param((m.ia_na(), m.ia_pd()), id="IAs without a lease")],
)
def test_confirm_is_decided(associations: tuple[tuple[int, bytes], ...]) -> None:
    # Relayed without our options, so that the stock worker gets as far as its chain of handlers.
    confirm = m.client(MessageType.CONFIRM, m.ELAPSED, *associations)
    ask = f'receive(bytes.fromhex("{m.forward(confirm, link="2001:db8:1::").hex()}"))'
    dropped, seen = "unparsable 0\n", "seen ConfirmMessage ReplyMessage\nunparsable 0\n"
    stock = child(STOCK, WORKER, HANDLERS, ask)
    assert (stock.stdout, stock.returncode) == (dropped, 0), stock.stderr
    all_but_this = "mends.confirm_is_decided = lambda: None"
    assert child(MENDED, all_but_this, WORKER, MENDED_WORKER, HANDLERS, ask).stdout == dropped
    mended = child(MENDED, WORKER, MENDED_WORKER, HANDLERS, ask)
    assert mended.stdout == seen, mended.stderr
