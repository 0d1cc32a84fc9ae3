"""Kea's perfdhcp: how it is called, and what it reports, read strictly.

Its "drops" are of one message pair each, and a client whose Advertise is lost sends no Request: what counts is how many
of the exchanges that were begun came to their end. Its own rate includes the time it waits at the end.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench import search
from lab import netns

PATIENCE = 0.5
"""Seconds that it waits for answers after the last request."""
SKIPPED = 0.25
"""The part of a run whose latencies do not count."""
CLIENTS = 4_000_000
"""Different clients; each run makes them up anew."""

SOLICIT = "SOLICIT-ADVERTISE"
REQUEST = "REQUEST-REPLY"
RENEW = "RENEW-REPLY"

_COUNTS = (
    "sent packets",
    "received packets",
    "drops",
    "orphans",
    "rejected leases",
    "non unique addresses",
)
_HEADING = re.compile(r"\*\*\*(?:(Statistics|Timestamps) for(?: packets)?: )?(.+?)\*\*\*")
# A whole second has no fraction.
_STAMPS = re.compile(r"sent / received: (\d+(?:\.\d{6})?) / (\d+(?:\.\d{6})?)")
# Where nothing was received, it begins a line twice: "avg delay: min delay: n/a".
_FIGURE = re.compile(
    r"(?:avg delay: )?([a-z ]+): ([0-9.]+(?:e[+-]\d+)?|inf|-?nan|n/a)(?: (?:ms|%))?"
)
_PASSED_OVER = (
    "Running: ",
    "Scenario: ",
    "Multi-thread mode enabled.",
    "Single-thread mode enabled.",
    "Rate: ",
    "Malformed packets: ",
    "Delay summary unavailable!",
    "Unable to calculate",
    "Short waits for packets: ",
)
_KNOWN_FIGURES = {*_COUNTS, "drops ratio", "min delay", "avg delay", "max delay", "std deviation"}
_KNOWN_FIGURES.add("collected packets")
_NO_STAMPS = "Unavailable! No packets received."


class PerfdhcpError(netns.LabError):
    """perfdhcp failed, or said what nobody expected."""


@dataclass(frozen=True, slots=True)
class Options:
    """What clients ask for (`prefix-only` or `address-only`), whether through a relay agent, and whether for each
    exchange there is a Renew, too.
    """

    lease: str
    relayed: bool
    renew: bool = False

    def command(self, rate: int, seconds: int, interface: str, server: str) -> list[str]:
        """The command line for so many exchanges per second."""
        command = ["perfdhcp", "-6", "-l", interface, "-e", self.lease, "-R", str(CLIENTS)]
        command += ["-r", str(rate), "-p", str(seconds), "-W", str(int(PATIENCE * 1e6))]
        if self.relayed:
            command += ["-A", "1"]
        if self.renew:
            command += ["-f", str(rate)]
        # A direct client sends to All_DHCP_Relay_Agents_and_Servers.
        return [*command, *([server] if self.relayed else [])]


@dataclass(slots=True)
class Exchange:
    """The report on one pair of messages."""

    figures: dict[str, float] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    """Seconds, if timestamps were asked for."""

    def count(self, name: str) -> int:
        """One of the counts."""
        return int(self.figures[name])


def parse(text: str, skipped: float = 0.0) -> dict[str, Exchange]:
    """The report, by pair of messages. Raises PerfdhcpError for an unknown line and for a figure that is not there.

    Latencies of messages that were sent in the first `skipped` seconds are left out: perfdhcp needs a while to be at
    its full speed.
    """
    exchanges: dict[str, Exchange] = {}
    section, kind = "", ""
    for line in text.splitlines():
        heading = _HEADING.fullmatch(line)
        if heading:
            kind, section = heading[1] or "", heading[2]
            if kind == "Statistics":
                exchanges[section] = Exchange()
        elif not line.strip() or line.startswith(_PASSED_OVER):
            continue
        elif kind == "Timestamps" and section in exchanges:
            _read_stamp(line, exchanges[section], skipped)
        elif kind == "Statistics":
            figure = _FIGURE.fullmatch(line)
            if figure is None or figure[1] not in _KNOWN_FIGURES:
                raise PerfdhcpError(f"perfdhcp: {section}: not understood: {line!r}")
            exchanges[section].figures[figure[1]] = _number(figure[2])
        else:
            raise PerfdhcpError(f"perfdhcp: not understood: {line!r}")
    for name, exchange in exchanges.items():
        missing = [each for each in _COUNTS if each not in exchange.figures]
        if missing:
            raise PerfdhcpError(f"perfdhcp: {name}: no {', '.join(missing)}")
    return exchanges


def _number(text: str) -> float:
    return float("nan" if text == "n/a" else text)


def _read_stamp(line: str, exchange: Exchange, skipped: float) -> None:
    stamp = _STAMPS.fullmatch(line)
    if stamp is not None:
        sent, received = float(stamp[1]), float(stamp[2])
        if sent >= skipped:
            exchange.latencies.append(received - sent)
    elif line != _NO_STAMPS:
        raise PerfdhcpError(f"perfdhcp: no timestamps: {line!r}")


def trial_of(exchanges: dict[str, Exchange], seconds: float, renew: bool) -> search.Trial:
    """What it comes to. With `renew`, a Renew and its Reply is an exchange, too. Raises PerfdhcpError where counts
    contradict each other.
    """
    if SOLICIT not in exchanges or REQUEST not in exchanges or (renew and RENEW not in exchanges):
        raise PerfdhcpError(f"perfdhcp: reports on {', '.join(exchanges) or 'nothing'} only")
    for name, exchange in exchanges.items():
        sent, received = exchange.count("sent packets"), exchange.count("received packets")
        if received > sent or exchange.count("non unique addresses"):
            raise PerfdhcpError(f"perfdhcp: {name}: {exchange.figures}")
    solicit, request = exchanges[SOLICIT], exchanges[REQUEST]
    if request.count("sent packets") > solicit.count("received packets"):
        raise PerfdhcpError("perfdhcp: more Requests than Advertises")
    begun, completed = solicit.count("sent packets"), request.count("received packets")
    # A Reply without a lease is an answer, but completes nothing.
    completed -= request.count("rejected leases")
    parts = [solicit, request]
    if renew:
        begun += exchanges[RENEW].count("sent packets")
        completed += exchanges[RENEW].count("received packets")
        parts.append(exchanges[RENEW])
    received = sum(part.count("received packets") for part in parts)
    delays = sum(
        part.count("received packets") * part.figures["avg delay"] / 1000
        for part in parts
        if part.count("received packets")
    )
    return search.Trial(
        seconds=seconds,
        begun=begun,
        completed=max(completed, 0),
        latencies=tuple(sorted(latency for part in parts for latency in part.latencies)),
        mean_latency=delays / received if received else None,
    )


def run(
    options: Options,
    *,
    namespace: str,
    interface: str,
    server: str,
    rate: float,
    seconds: int,
    timings: bool = False,
) -> search.Trial:
    """Offer so many exchanges per second; with `timings`, the latency of each message is taken down.

    Raises PerfdhcpError.
    """
    exchanges_per_second = rate / 2 if options.renew else rate
    command = options.command(max(1, round(exchanges_per_second)), seconds, interface, server)
    if timings:
        command[1:1] = ["-x", "t"]
    process = netns.start(namespace, command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        out, err = process.communicate(timeout=seconds + 60)
    except subprocess.TimeoutExpired:
        raise PerfdhcpError(f"perfdhcp does not end: {' '.join(command)}") from None
    finally:
        netns.kill(process)
    # 3: some exchanges were not completed, which is ours to judge.
    if process.returncode not in (0, 3):
        raise PerfdhcpError(f"{' '.join(command)}: {_last_line(err) or process.returncode}")
    return trial_of(parse(out.decode(), seconds * SKIPPED), seconds, options.renew)


def _last_line(err: bytes) -> str:
    lines: Sequence[str] = [line for line in err.decode(errors="replace").splitlines() if line]
    return lines[-1] if lines else ""
