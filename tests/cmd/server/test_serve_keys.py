"""`dhcp-cmd serve` and `dhcp-cmd signal` as processes with keys: what they refuse at the start, and at a reload."""

from __future__ import annotations

import grp
import os
import pwd
import re
import signal
import subprocess
from pathlib import Path

import pytest

from dhcp_cmd.plugin.compile import read_plan
from dhcp_cmd.plugin.config import ConfigError
from dhcp_cmd.server.plan import Plan
from tests.cmd.plugin.network import SERVER, SERVER_NAMESPACE, inside
from tests.cmd.plugin.server import environment, make_configuration, make_database, user
from tests.cmd.plugin.waiting import wait_for
from tests.cmd.server.serving import COMMAND, log_lines, refused, serving
from tests.wire import secret_files

pytestmark = pytest.mark.root


@pytest.fixture
def key(state: Path) -> Path:
    """A file of root's that the server's group may read."""
    path = secret_files.make(state)
    os.chown(path, 0, pwd.getpwnam(user()).pw_gid)
    path.chmod(0o640)
    return path


@pytest.fixture
def configuration(state: Path, link: None, key: Path) -> Path:
    make_database(state)
    section = (
        f"<pmip-security>\n<pmip-key>\nspi 1001\nsecret-file {key}\n</pmip-key>\n</pmip-security>"
    )
    here = f"    mode proxy\n    endpoint {SERVER}\n{section}\n"
    return make_configuration(state, address=SERVER, changes=[("    # mode direct\n", here)])


def test_a_secret_that_others_may_read_is_refused_at_the_start(
    configuration: Path, key: Path
) -> None:
    key.chmod(0o644)
    assert secret_files.is_open(key, 0o644) in refused(configuration)
    done = subprocess.run(
        ["ip", "netns", "exec", SERVER_NAMESPACE, *COMMAND, "signal", str(configuration)],
        env=environment(configuration.parent),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert secret_files.is_open(key, 0o644) in done.stderr


def test_a_reload_goes_on_with_the_old_keys_where_the_new_ones_are_of_no_use(
    configuration: Path, key: Path
) -> None:
    with serving(configuration) as server:
        key.write_text("no secret\n")
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: log_lines(server, "not reloading"))
        (line,) = log_lines(server, "not reloading")
        assert f"{key}: a secret must be hexadecimal digits" in line
        key.write_text(f"{'5a' * 32}\n")
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: log_lines(server, "was read again"))
        assert server.stop() == 0
    assert secret_files.SECRET not in server.log.read_text()


def test_the_server_reads_it_as_its_own_user(configuration: Path, key: Path) -> None:
    """At the start it could as root, and then not at a reload."""
    nobody = pwd.getpwnam("nobody")
    text = configuration.read_text()
    for word, name in (("user", "nobody"), ("group", grp.getgrgid(nobody.pw_gid).gr_name)):
        text = re.sub(rf"^{word} .*$", f"{word} {name}", text, flags=re.MULTILINE)
    configuration.write_text(text)
    state = configuration.parent
    (state / "status").mkdir()
    for path in (state, *state.glob("cmd.sqlite*"), state / "status"):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    os.chown(key, 0, nobody.pw_gid)

    def read() -> Plan:
        return inside(SERVER_NAMESPACE, lambda: read_plan(str(configuration), starting=False))

    assert read().security.keys
    key.chmod(0o600)
    with pytest.raises(ConfigError, match=f"{key}: Permission denied"):
        read()
