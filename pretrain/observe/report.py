"""A run as one page: curves, GPU hours and energy, sessions, alarms."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from pretrain.errors import PretrainError
from pretrain.observe.monitor import duration, read_events

POWER_W = 700
"""Draw of one GPU in the energy of Table 6, an H100 SXM's; a convention, not a measurement."""

_CURVES = (
    ("Losses", ("loss", "dino", "ibot", "koleo")),
    ("Teacher entropy, 0 is collapse to one prototype, 1 is uniform", ("entropy",)),
    ("Effective rank of the class tokens", ("effective_rank",)),
    ("Norm of the centres", ("centre_norm",)),
    ("Gradient norms before clipping", ("grad_norm",)),
    ("Learning rate", ("lr", "last_layer_lr")),
    ("Weight decay", ("weight_decay",)),
    ("Teacher temperature", ("teacher_temperature",)),
    ("Teacher momentum", ("momentum",)),
    ("Samples a second", ("samples_per_s",)),
    ("Share of the time that waits for data", ("data_wait",)),
    ("Model FLOP utilisation", ("mfu",)),
)
"""Titles of the pictures, and how the names of the scalars begin that each shows."""


@dataclass(frozen=True)
class Session:
    """One start of a run's processes.

    Attributes:
        events: What it left, from its start on.
    """

    events: Sequence[Mapping[str, Any]]

    @property
    def start(self) -> Mapping[str, Any]:
        """The event it began with."""
        return self.events[0]

    @property
    def last(self) -> Mapping[str, Any]:
        """The last event it left."""
        return self.events[-1]

    @property
    def hours(self) -> float:
        """Time in hours, from its first event to its last, by a clock that only goes forward.

        Runs of before there was one are told by the clock on the wall, without the steps between events in which that
        was set back: at least so many.
        """
        if all("elapsed_s" in event for event in (self.start, self.last)):
            return (self.last["elapsed_s"] - self.start["elapsed_s"]) / 3600
        return sum(max(0.0, after["time_s"] - before["time_s"]) for before, after in pairwise(self.events)) / 3600

    @property
    def device_hours(self) -> float:
        """Hours of all its processes together; one process has one device."""
        return self.hours * int(self.start["processes"])

    @property
    def ended(self) -> str:
        """Why it ended, as far as it could say."""
        return str(self.last["reason"]) if self.last["event"] == "end" else "no word: killed, or still running"


def sessions_of(events: Sequence[Mapping[str, Any]]) -> list[Session]:
    """Splits the events of a run at its starts."""
    starts = [i for i, event in enumerate(events) if event["event"] == "start"]
    return [Session(events[first:after]) for first, after in zip(starts, [*starts[1:], len(events)], strict=True)]


def energy_mwh(gpu_hours: float) -> float:
    """Returns the energy of GPU hours as Table 6 has it: 700 W each."""
    return gpu_hours * POWER_W / 1e6


def series_of(events: Sequence[Mapping[str, Any]], kind: str) -> dict[str, list[tuple[int, float]]]:
    """Returns the scalars of one kind of event as (step, value) by name; of a step that came twice, the last."""
    by_step = {event["step"]: event for event in events if event["event"] == kind}
    series: dict[str, list[tuple[int, float]]] = {}
    for step in sorted(by_step):
        for name, value in by_step[step].items():
            if name not in ("event", "step", "time_s", "elapsed_s") and isinstance(value, int | float):
                series.setdefault(name, []).append((step, float(value)))
    return series


def render(run: Path) -> str:
    """Returns the page of a run.

    Raises:
        PretrainError: If the folder holds no run.
    """
    events = read_events(run)
    sessions = sessions_of(events)
    if not sessions:
        raise PretrainError(f"{run}: metrics.jsonl has no start of a run")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parents[1] / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    on_gpu = [s for s in sessions if s.start["device_type"] == "cuda"]
    gpu_hours = sum(s.device_hours for s in on_gpu)
    config = run / "config.yaml"
    last = max((event["step"] for event in events if event["event"] in ("metrics", "checkpoint", "end")), default=0)
    return environment.get_template("report.html").render(
        name=run.resolve().name,
        start=sessions[-1].start,
        step=last,
        samples=last * int(sessions[-1].start["samples_per_step"]),
        wall=duration(sum(s.hours for s in sessions) * 3600),
        gpu_hours=gpu_hours if on_gpu else None,
        energy_mwh=energy_mwh(gpu_hours),
        power_w=POWER_W,
        sessions=[
            {
                "began": _utc(s.start["time_s"]),
                "hours": s.hours,
                "first": s.start["step"],
                "last": s.last["step"],
                "processes": s.start["processes"],
                "device": s.start["device"],
                "ended": s.ended,
            }
            for s in sessions
        ],
        warnings=[e for e in events if e["event"] in ("alarm", "skipped", "store", "plain", "phase", "init")],
        pictures=_pictures(events),
        config=config.read_text(encoding="utf-8") if config.is_file() else None,
    )


def _pictures(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    scalars = series_of(events, "metrics")
    pictures: list[dict[str, Any]] = []
    shown: set[str] = set()
    for title, beginnings in _CURVES:
        lines = {n: points for n, points in scalars.items() if n not in shown and n.startswith(beginnings)}
        shown |= lines.keys()
        if lines:
            pictures.append({"title": title, "svg": _svg(lines)})
    probe = {n: points for n, points in series_of(events, "probe").items() if n.startswith(("accuracy", "chance"))}
    if probe:
        pictures.append({"title": "Online k-NN: organ of a patch, from the other scans", "svg": _svg(probe)})
    return pictures


def _svg(lines: Mapping[str, Sequence[tuple[int, float]]]) -> Markup:
    figure = Figure(figsize=(5.6, 2.6), layout="constrained")
    axes = figure.add_subplot()
    for name, points in lines.items():
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, linewidth=1.0, label=name, marker="o" if len(points) < 3 else None, markersize=3)
    axes.set_xlabel("step")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", linewidth=0.3)
    if len(lines) > 1:
        axes.legend(fontsize="x-small", frameon=False)
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "pretrain", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    drawing = text.getvalue()
    return Markup(drawing[drawing.index("<svg") :])  # matplotlib escapes the names


def _utc(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
