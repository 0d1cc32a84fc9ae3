from __future__ import annotations

import pytest

from bench import perfdhcp
from bench.perfdhcp import Options, PerfdhcpError, parse, trial_of

HEAD = """\
Running: perfdhcp -6 -l eth0 -A 1 -e prefix-only -r 5 -R 4000000 -p 1 -W 500000 2001:db8:1::1
Scenario: basic.
Multi-thread mode enabled.
***Rate statistics***
Rate: 2.66556 4-way exchanges/second, expected rate: 5

***Malformed Packets***
Malformed packets: 0
"""

STAMPS = """\
***Timestamps for packets: SOLICIT-ADVERTISE***
sent / received: 000000.000074 / 000000.000508
sent / received: 000001 / 000001.000418

***Timestamps for packets: REQUEST-REPLY***
sent / received: 000000.000541 / 000000.000849
sent / received: 000000.400709 / 000000.401071

"""


def section(name: str, sent: int, received: int, rejected: int = 0, delay: float = 0.5) -> str:
    figures = (
        f"min delay: 0.418 ms\navg delay: {delay} ms\nmax delay: 1.655 ms\nstd deviation: 1.07e-05 ms\n"
        if received
        else "min delay: inf ms\navg delay: min delay: n/a\navg delay: n/a\nmax delay: n/a\nstd deviation: n/a\n"
    )
    return (
        f"***Statistics for: {name}***\nsent packets: {sent}\nreceived packets: {received}\n"
        f"drops: {sent - received}\ndrops ratio: {'-nan' if not sent else 71.4037} %\norphans: 3\n"
        f"rejected leases: {rejected}\nnon unique addresses: 0\n\n{figures}collected packets: 0\n\n"
    )


def report(solicit: tuple[int, int], request: tuple[int, int]) -> str:
    return HEAD + section(perfdhcp.SOLICIT, *solicit) + section(perfdhcp.REQUEST, *request)


def test_the_whole_exchange_counts_not_each_half() -> None:
    # 2 % lost of each pair: perfdhcp reports drops of 2 %, but 4 % of the clients got nothing.
    trial = trial_of(parse(report((1000, 980), (980, 960))), 10, renew=False)
    assert (trial.begun, trial.completed, trial.offered) == (1000, 960, 100)
    assert trial.lost == pytest.approx(0.04)
    assert trial.mean_latency == pytest.approx(0.0005)


def test_nothing_received() -> None:
    trial = trial_of(parse(report((4, 0), (0, 0))), 1, renew=False)
    assert (trial.begun, trial.completed, trial.mean_latency) == (4, 0, None)


def test_a_reply_without_a_lease_completes_nothing() -> None:
    text = HEAD + section(perfdhcp.SOLICIT, 10, 10) + section(perfdhcp.REQUEST, 10, 10, rejected=4)
    assert trial_of(parse(text), 1, renew=False).completed == 6


def test_renews_are_exchanges_too() -> None:
    text = report((100, 100), (100, 99)) + section(perfdhcp.RENEW, 100, 98)
    trial = trial_of(parse(text), 10, renew=True)
    assert (trial.begun, trial.completed) == (200, 197)
    with pytest.raises(PerfdhcpError, match="reports on"):
        trial_of(parse(report((100, 100), (100, 99))), 10, renew=True)


def test_latencies_of_the_first_part_are_left_out() -> None:
    text = report((2, 2), (2, 2)) + STAMPS
    assert len(trial_of(parse(text), 1, renew=False).latencies) == 4
    late = trial_of(parse(text, skipped=0.25), 1, renew=False)
    assert late.latencies == pytest.approx([0.000362, 0.000418], abs=1e-9)


def test_no_timestamps_where_nothing_came() -> None:
    text = report((2, 0), (0, 0)) + (
        "***Timestamps for packets: SOLICIT-ADVERTISE***\nUnavailable! No packets received.\n"
    )
    assert trial_of(parse(text), 1, renew=False).latencies == ()


@pytest.mark.parametrize(
    "line",
    ["sent packets: many", "sent pakets: 7", "Segmentation fault", "drops 7", "sent packets: -1"],
)
def test_what_is_not_understood_is_not_passed_over(line: str) -> None:
    with pytest.raises(PerfdhcpError, match="not understood"):
        parse(report((1, 1), (1, 1)) + line + "\n")


def test_a_report_that_is_cut_short() -> None:
    whole = report((1, 1), (1, 1))
    with pytest.raises(PerfdhcpError, match=r"REQUEST-REPLY: no .*orphans"):
        parse(whole[: whole.rindex("orphans")])
    with pytest.raises(PerfdhcpError, match="nothing"):
        trial_of(parse(HEAD), 1, renew=False)


@pytest.mark.parametrize(
    ("solicit", "request_"), [((10, 11), (10, 10)), ((10, 9), (10, 9)), ((10, 10), (9, 10))]
)
def test_counts_that_contradict_each_other(
    solicit: tuple[int, int], request_: tuple[int, int]
) -> None:
    with pytest.raises(PerfdhcpError):
        trial_of(parse(report(solicit, request_)), 1, renew=False)


def test_the_same_address_for_two_clients_is_an_error() -> None:
    text = report((1, 1), (1, 1)).replace("non unique addresses: 0", "non unique addresses: 1")
    with pytest.raises(PerfdhcpError):
        trial_of(parse(text), 1, renew=False)


def test_commands() -> None:
    relayed = Options("prefix-only", relayed=True, renew=True).command(50, 4, "eth0", "2001:db8::1")
    assert relayed[:6] == ["perfdhcp", "-6", "-l", "eth0", "-e", "prefix-only"]
    assert relayed[-5:] == ["-A", "1", "-f", "50", "2001:db8::1"]
    direct = Options("address-only", relayed=False).command(50, 4, "eth0", "2001:db8::1")
    assert direct[-2:] == ["-W", "500000"]  # to all servers, by multicast
