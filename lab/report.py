"""The demo's words: what a person reads while it happens."""

from __future__ import annotations

import re

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dmm_wire.address import Prefix
from lab import expect, expect_signalling, figures, ladder, paths
from lab.checks import Check
from lab.daemons import DIRECT, DLIF, Cmd
from lab.host import SlaacNode
from lab.lab import Lab
from lab.messages import Message
from lab.scenario import Listener, MainJob, Step
from lab.topology import CARRIER_GAP, CMD, CN1, CN2, MAAR_PLANS, MN_LINK_LAYER, MaarPlan

WIDTH = 100

_PICTURE = """\
   CMD          CN1          CN2
    │            │            │           2001:db8:0:{cmd}::/64, {cn1}, {cn2}: the core has ::1, the node ::2
 ┌──┴────────────┴────────────┴──┐
 │             core              │        routes each T and each pool to its MAAR
 └──┬────────────┬────────────┬──┘
    │            │            │           2001:db8:0:1::/64, 2, 3
  MAAR1        MAAR2        MAAR3         T1, T2, T3 = 2001:db8:ff::1, 2, 3: tunnels and signalling
    │            │            │           access links: {routers}
    └─ ─ ─ ─ ─ ─ ┴ ─ ─ ─ ─ ─ ─┘
                MN                        one interface, {client}, re-plugged: {gap:g} s without carrier"""


_MODES = {
    "direct": "the CMD names the anchors to the S-MAAR, which sends them PBUs",
    "proxy": "the CMD answers the S-MAAR and sends the PBUs in parallel (RFC 8885 section 3.4)",
    "locator": "the CMD sends the PBUs, the anchors answer it and the S-MAAR (RFC 8885 section 3.3)",
    "relay": "the CMD answers the S-MAAR when the anchors have acknowledged (RFC 8885 section 3.2)",
}

# By whether MAARs register the node: how the parts of an interruption are called.
_SHARES = {False: ("unseen", "network", "dhcpcd"), True: ("unseen", "network", "then")}
_LAST_SHARE = {False: "dhcpcd and DAD", True: "until the next ping"}


def _server(lab: Lab) -> str:
    if not lab.stock:
        return "`dhcp-cmd serve`" + (
            ": ipv6-dhcpd cannot hold an answer back" if lab.mode == "relay" else ""
        )
    beside = ", with `dhcp-cmd signal` beside it" if lab.mode != DIRECT else ""
    return f"dhcpkit's ipv6-dhcpd with our extension{beside}"


class Report(Listener):
    """Tells the scenario to a console as it happens. `job` is set before the first step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._ladder = ladder.Ladder(0, WIDTH)
        self._step: Step | None = None
        self._plugged_told = False
        self.job: MainJob

    # --- the scenario's own calls ---

    def began(self, step: Step) -> None:
        """The head of a step."""
        self._step = step
        self._plugged_told = False
        self._ladder = ladder.Ladder(step.began, WIDTH)
        self._console.print()
        self._console.rule(f"[bold]{step.number}. {step.title}", align="left", style="blue")
        self._lines(ladder.head())
        if step.left is not None:
            self._lines(ladder.note(f"carrier lost at {step.left.name.upper()}", 0.0))

    def message(self, found: list[Message]) -> None:
        """The next lines of the ladder."""
        for message in found:
            self._tell_plugged(message.at)
            self._lines(*self._ladder.feed([message]))

    def settled(self, step: Step) -> None:
        """Paths, interruption and routes of a step."""
        self._tell_plugged(step.ready)
        self._lines(*self._ladder.flush())
        self._figure(step)
        names = self.job.names
        self._console.print()
        for flow in self.job.flows.values():
            for direction in ("up", "down"):
                for way, count in step.ways[flow.name, direction].items():
                    self._lines(
                        Text.assemble(
                            (f"{flow.name} {direction:4} ", "bold"),
                            (f"{count:4} packets ", "dim"),
                            paths.text(way, names),
                        )
                    )
        if step.interruption is not None:
            pause = step.interruption
            self._console.print(
                f"[bold]interruption[/] of the ping stream: [bold]{pause.milliseconds:.0f} ms[/], "
                f"{pause.lost} pings lost"
            )
        if (shares := step.shares) is not None:
            rest = _LAST_SHARE[self.job.lab.registers]
            self._console.print(
                f"  {shares.carrier:.0f} ms without carrier, {shares.unseen:.0f} ms until it is seen, "
                f"[bold]{shares.network:.0f} ms for the network[/], {shares.node:.0f} ms {rest}"
            )
        self._routes(step)

    # --- the rest of the demo ---

    def introduction(self, lab: Lab) -> None:
        """What will be seen."""
        self._console.rule("[bold]Distributed mobility: one node, three moves", style="blue")
        values = {"cmd": CMD.subnet, "cn1": CN1.subnet, "cn2": CN2.subnet, "gap": CARRIER_GAP}
        values["routers"] = (
            "a router for each anchor (RFC 8885 section 3.7)"
            if lab.router == DLIF
            else "the same router identity on each (RFC 6543)"
        )
        values["client"] = "SLAAC" if lab.registers else "dhcpcd"
        self._lines(Text(_PICTURE.format(**values)))
        self._console.print(
            "\nMAAR1 gives the node Pref1, a /64 out of 2001:db8:100::/40; likewise MAAR2 (200), MAAR3 (300)."
            "\nThe MAARs speak only PMIPv6: they register the node by PBU, and it makes its addresses itself."
            "\nMAAR1 and MAAR2 choose its prefixes themselves (RFC 8885 section 3.1), MAAR3 leaves it to the CMD."
            if lab.registers
            else "\nMAAR1 gives the node Pref1, a /64 out of 2001:db8:100::/40, and delegates Del1, a /56 out of"
            "\n2001:db8:d100::/40; likewise MAAR2 (200, d200) and MAAR3 (300, d300)."
        )
        self._console.print(
            f"MN is {MN_LINK_LAYER}. Tunnel driver: {lab.daemons.driver}. All times are those of captured packets."
            f"\n\nMode [bold]{lab.mode}[/]: {_MODES[lab.mode]}."
            f"\nThe CMD is {_server(lab)}."
        )

    def check(self, check: Check) -> None:
        """One assertion: a tick or a cross."""
        mark = ("✔ ", "green") if check.held else ("✘ ", "bold red")
        self._lines(Text.assemble(mark, (check.what, "" if check.held else "bold red")))
        if check.found:
            self._lines(Text(f"    {check.found}", style="red"))

    def database(self, cmd: Cmd, mn: SlaacNode) -> None:
        """The CMD's tables and the node's trail, by `dhcp-cmd` and by plain SQL."""
        self._console.print()
        self._console.rule("[bold]The CMD's tables", align="left", style="blue")
        for name, prefix in sorted(self.job.names.given.items()):
            self._lines(Text(f"{name} = {prefix}"))
        identity = f"eui48:{MN_LINK_LAYER}"
        sql = "SELECT prefix, kind, state, anchor, serving, valid_until FROM bindings"
        self._lines(Text(f"\n$ sqlite3 cmd.sqlite '{sql}'", style="bold"))
        self._rows(cmd.query(sql))
        old = mn.address_of(MAAR_PLANS[1])
        questions = [
            (("trace", identity), "at event from_maar to_maar prefix cause"),
            (("anchors", MAAR_PLANS[1].name), "prefix kind state serving valid_until"),
            (("handovers",), "from_maar to_maar handovers first last"),
        ]
        if old is not None:
            questions.append((("who-had", str(old)), "prefix since until event anchor serving"))
        for arguments, columns in questions:
            self._lines(Text(f"\n$ dhcp-cmd audit {' '.join(arguments)}", style="bold"))
            self._rows(cmd.rows("audit", *arguments), columns.split())

    def summary(self, made: list[Check], moves: list[Step], seconds: float) -> None:
        """The result."""
        failed = [check for check in made if not check.held]
        self._console.print()
        self._console.rule("[bold]Result", align="left", style="blue")
        table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
        table.add_column("move")
        columns = ("interruption, ms", "no carrier", *_SHARES[self.job.lab.registers], "pings lost")
        for column in columns:
            table.add_column(column, justify="right")
        for step in moves:
            if step.left is None or step.interruption is None or (shares := step.shares) is None:
                continue
            parts = (shares.carrier, shares.unseen, shares.network, shares.node)
            table.add_row(
                f"{step.left.name.upper()} → {step.plan.name.upper()}",
                f"{step.interruption.milliseconds:.0f}",
                *(f"{part:.0f}" for part in parts),
                str(step.interruption.lost),
            )
        self._console.print(table)
        for check in failed:
            self.check(check)
        held = len(made) - len(failed)
        style = "bold red" if failed else "bold green"
        self._console.print(
            Text(f"{held} of {len(made)} assertions held; {seconds:.0f} s in all", style=style)
        )

    # --- parts ---

    def _lines(self, *lines: Text) -> None:
        for line in lines:
            self._console.print(line, soft_wrap=True)

    def _tell_plugged(self, at: int) -> None:
        step = self._step
        if step is not None and not self._plugged_told and step.plugged and at >= step.plugged:
            self._plugged_told = True
            self._lines(*self._ladder.flush())
            when = (step.plugged - step.began) / 1e6
            self._lines(ladder.note(f"plugged in at {step.plan.name.upper()}", when))

    def _figure(self, step: Step) -> None:
        """The figure of RFC 8885, and when its messages were seen."""
        figure, seen = expect_signalling.figure(self.job, step)
        self._console.print()
        self._lines(Text.assemble((figure.name, "bold"), f" ({figure.title})"))
        table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
        table.add_column("ms", justify="right")
        for column in ("in the figure (* a new option)", "on the wire", "options of RFC 8885"):
            table.add_column(column, no_wrap=True)
        first, later = figures.by_turns(seen)
        for each in (*first, *later):
            message = each.message
            place = "beside it" if each.beside else "not in it"
            table.add_row(
                f"{(message.at - seen[0].message.at) / 1e6:.1f}",
                "later" if each in later else str(each.arrow or place),
                f"{message.sender} → {message.receiver} {message.name}",
                ", ".join(figures.new_options(message)),
            )
        self._console.print(table)
        if any(figures.is_renewal(each.message) for each in later):
            self._console.print(
                "later: DHCPv6 granted longer lifetimes, and the anchors hear of them"
            )

    def _routes(self, step: Step) -> None:
        """What each MAAR's kernel does with the node's prefixes."""
        table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
        table.add_column("kernel, packets to")
        for plan in MAAR_PLANS:
            here = " (serving)" if plan == step.plan else ""
            table.add_column(f"at {plan.name.upper()}{here}")
        table.add_column(f"from it, at {step.plan.name.upper()}")
        names = self.job.names
        for prefixes in self.job.prefixes.values():
            for prefix in prefixes:
                up = step.decisions.get((step.plan, prefix, "up"))
                cells = [self._route(step, plan, prefix) for plan in MAAR_PLANS]
                table.add_row(names.prefix(prefix), *cells, up.text(names) if up else "")
        self._console.print(table)

    def _route(self, step: Step, plan: MaarPlan, prefix: Prefix) -> str:
        decision = step.decisions[plan, prefix, "down"]
        if decision.via == expect.mn_link_local():
            return "to the node"
        return decision.text(self.job.names)

    def _rows(self, rows: list[dict[str, object]], columns: list[str] | None = None) -> None:
        """A table of some columns; of times the date is left out, so that it fits."""
        names = columns or list(rows[0] if rows else {})
        texts = [["" if row[name] is None else _shown(row[name]) for name in names] for row in rows]
        widths = [max(map(len, column)) for column in zip(names, *texts, strict=True)]
        for number, line in enumerate((names, *texts)):
            cells = (text.ljust(width) for text, width in zip(line, widths, strict=True))
            self._lines(Text("  ".join(cells).rstrip(), style="" if number else "dim"))


def _shown(value: object) -> str:
    """A value; of an ISO 8601 time the time of day, down to milliseconds."""
    text = str(value)
    if found := re.fullmatch(r"\d{4}-\d\d-\d\dT(\d\d:\d\d:\d\d(\.\d{3})?)\d*Z", text):
        return found[1]
    return text
