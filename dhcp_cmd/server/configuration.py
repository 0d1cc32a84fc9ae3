"""The configuration file while the server runs, and whom it runs as."""

from __future__ import annotations

import gc
import os

from dhcp_cmd.plugin.compile import read_plan
from dhcp_cmd.plugin.config import ConfigError
from dhcp_cmd.server.plan import Account, Plan


def reread(path: str, before: Plan) -> Plan:
    """The file as it is now. Raises ConfigError, also for what cannot change while the server runs."""
    plan = read_plan(path, starting=False)
    if plan.status_directory != before.status_directory:
        raise ConfigError(f"{path}: status-directory: a new one needs a restart")
    if plan.account != before.account:
        raise ConfigError(f"{path}: user, group: new ones need a restart")
    if (plan.settings.mode, plan.pmip) != (before.settings.mode, before.pmip):
        raise ConfigError(f"{path}: mode, endpoint, pacing: new ones need a restart")
    if (plan.processes() > 1) != (before.processes() > 1):
        raise ConfigError(f"{path}: workers: from one to several, or back, needs a restart")
    return plan


def become(account: Account) -> None:
    """Give up root for good; does nothing for who is not root. Raises ConfigError."""
    os.umask(0o077)
    if os.geteuid() != 0 or account.uid == 0:
        return
    try:
        os.setgroups([])
        os.setgid(account.gid)
        os.setuid(account.uid)
    except OSError as error:
        raise ConfigError(f"user: cannot become {account.name}: {error.strerror}") from error


def settle() -> None:
    """What is there now stays, and what a batch makes has no cycles to speak of: looking for them again and again would
    only cost answers their time. Nor would workers go on sharing memory that is looked through."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)
