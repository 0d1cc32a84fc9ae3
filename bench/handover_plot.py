"""The distributions of handovers as a picture."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Final

from bench.attach_clock import Step
from bench.attaching import INTERRUPTION, TITLES, Attach, Attaches, Trigger

_PARTS: Final = (
    ("node's first frame", None, Step.FRAME),
    ("CMD's answer", Step.FRAME, Step.ANSWER),
    ("tunnel at both ends", Step.ANSWER, Step.SET),
    ("first packets through", Step.SET, Step.OPEN),
)
_SIZE: Final = (11.0, 4.6)
_DOTS: Final = 110


def draw(attaches: Attaches, path: Path) -> None:
    """On the left which part of the moves was over after how long, on the right what the time went to: a PNG."""
    from matplotlib.figure import Figure  # no pyplot: nothing is shown, and no state is kept

    figure = Figure(figsize=_SIZE, dpi=_DOTS, layout="constrained")
    whole, parts = figure.subplots(1, 2)
    longest = 0.0
    for trigger in attaches.triggers():
        times = sorted(_times(attaches, trigger))
        if not times:
            continue
        longest = max(longest, times[max(0, int(len(times) * 0.99) - 1)])
        whole.ecdf(times, label=f"{TITLES[trigger]} ({len(times)})", linewidth=1.6)
    whole.axvline(INTERRUPTION[0] * 1000, color="grey", linestyle=":", linewidth=1)
    whole.set_xlim(0, max(1.2 * longest, 1.1 * INTERRUPTION[0] * 1000))
    whole.set_xlabel("ms until the node's flows go on, both ways")
    whole.set_ylabel("part of the moves")
    whole.grid(alpha=0.3)

    names = [TITLES[trigger] for trigger in attaches.triggers()]
    left = [0.0] * len(names)
    for title, begin, end in _PARTS:
        widths = [_part(attaches.of(trigger), begin, end) for trigger in attaches.triggers()]
        parts.barh(names, widths, left=left, label=title, height=0.6)
        left = [sum(each) for each in zip(left, widths, strict=True)]
    parts.invert_yaxis()
    parts.set_xlabel("ms, median of each part")
    parts.grid(alpha=0.3, axis="x")
    parts.set_axisbelow(True)
    for axes in (whole, parts):
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize="small")
    figure.savefig(path, format="png", metadata={"Software": None})


def _times(attaches: Attaches, trigger: Trigger) -> list[float]:
    return [
        each.seconds[Step.OPEN] * 1000 for each in attaches.of(trigger) if Step.OPEN in each.seconds
    ]


def _part(attaches: list[Attach], begin: Step | None, end: Step) -> float:
    """The median of what lies between two steps, ms; 0 where a packet was ahead of a kernel's word."""
    found = [
        (each.seconds[end] - (each.seconds[begin] if begin else 0.0)) * 1000
        for each in attaches
        if end in each.seconds and (begin is None or begin in each.seconds)
    ]
    return max(0.0, median(found)) if found else 0.0
