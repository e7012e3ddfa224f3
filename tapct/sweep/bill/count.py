"""The bill: what each experiment that would run takes, and all of them together."""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tapct import kinds
from tapct._utils.files import features_folder
from tapct.errors import TapctError
from tapct.features.nbytes import entry_nbytes
from tapct.names import Keep
from tapct.sweep.bill.cards import UTILISATION, Card
from tapct.sweep.bill.cost import SHIPPED, Costs
from tapct.sweep.bill.encoding import Encoded, Encodings
from tapct.sweep.bill.folder import Folder, MissingEntry
from tapct.sweep.bill.memory import head_nbytes
from tapct.sweep.bill.remembered import Remembered
from tapct.sweep.bill.settings import Data, Encoding, Wanted, wanted
from tapct.sweep.bill.sizes import BilledScan, Scans, scans_of
from tapct.sweep.bill.stored import FolderEntries
from tapct.sweep.experiment import Experiment
from tapct.tasks import task_class
from tapct.volumes import Size
from tapct.volumes.perturb import perturbation


@dataclass(frozen=True)
class BillRow:
    """What an experiment takes; None is what is not known, and `why` says why.

    Attributes:
        label: Names the experiment among those of its task.
        task: Name of the task.
        scans: How many scans it encodes.
        windows: How many windows these have.
        tflop: 10^12 operations of the encoder on them.
        hours: What encoding those takes that are not stored.
        disk_bytes: Of their features and labels, stored.
        stored_scans: Scans whose features are stored.
        stored_bytes: What of `disk_bytes` is stored.
        guessed_bytes: What of `disk_bytes` is a guess: labels, where none of this task is stored. How well they
            compress is not known before.
        head_bytes: Peak memory of the heads, about.
        typical: Of what size the scans are taken to be, and from where; None where their headers were read.
        why: What is not known, and why.
    """

    label: str
    task: str
    scans: int | None = None
    windows: int | None = None
    tflop: float | None = None
    hours: float | None = None
    disk_bytes: int | None = None
    stored_scans: int = 0
    stored_bytes: int = 0
    guessed_bytes: int = 0
    head_bytes: int | None = None
    typical: str | None = None
    why: str = ""


@dataclass(frozen=True)
class Bill:
    """What a sweep takes.

    Attributes:
        rows: An experiment each.
        encoded: Scans that are encoded, each once for each encoder: what experiments share is counted once.
        windows: Their windows.
        tflop: Their operations; None where those of an encoder are not known.
        hours: What encoding takes of those that are not stored; None where that of an encoder is not known.
        hours_on: On what, and how that is known.
        folders: Where features are stored.
        wanted: What the experiments want, by name; none for those that are not known.
    """

    rows: Sequence[BillRow]
    encoded: int
    windows: int
    tflop: float | None
    hours: float | None
    hours_on: str
    folders: Sequence[Folder]
    wanted: Mapping[str, Wanted]


def bill_of(
    experiments: Sequence[Experiment],
    *,
    card: Card | None = None,
    measure: bool = False,
    accelerator: str | None = None,
    keep: Keep = "all",
    arithmetic: bool = True,
) -> Bill:
    """Returns the bill of experiments.

    Args:
        experiments: The experiments, in the order in which they run.
        card: The card that hours are estimated for; None for what was measured on the device at hand.
        measure: Whether what was not measured on the device at hand is measured now.
        accelerator: As the configs have it; "cpu" uses no device.
        keep: What stays of features once no experiment needs them.
        arithmetic: Whether operations and hours are counted, which takes seconds an encoder that was never counted.
    """
    counting = _Counting(card, measure, keep, _device(accelerator), arithmetic)
    rows = [counting.row(number, experiment) for number, experiment in enumerate(experiments)]
    return counting.bill(rows)


def _device(accelerator: str | None) -> torch.device:
    return torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class _Job:
    """A scan that is encoded: what it takes, and whether that is stored."""

    encoded: Encoded
    tflop: float | None
    hours: float | None
    is_stored: bool


class _Counting:
    """Counts experiment after experiment, each scan of each encoder once."""

    def __init__(self, card: Card | None, measure: bool, keep: Keep, device: torch.device, arithmetic: bool) -> None:
        self._card, self._measure, self._keep, self._device = card, measure, keep, device
        self._arithmetic = arithmetic
        self._answers, self._sizes = Remembered("costs", SHIPPED), Remembered("sizes")
        self._costs = Costs(self._answers, device)
        self._encodings = Encodings(self._costs)
        self._scans: dict[Data, Scans] = {}
        self._folders: dict[Path, Folder] = {}
        self._jobs: dict[Hashable, _Job] = {}
        self._windows: dict[tuple[Encoding, Size], tuple[float | None, float | None]] = {}
        self._wanted: dict[str, Wanted] = {}

    def bill(self, rows: Sequence[BillRow]) -> Bill:
        self._answers.keep()
        self._sizes.keep()
        jobs = self._jobs.values()
        return Bill(
            rows=rows,
            encoded=len(jobs),
            windows=sum(job.encoded.windows for job in jobs),
            tflop=_sum(job.tflop for job in jobs),
            hours=_sum(job.hours for job in jobs if not job.is_stored),
            hours_on=self._hours_on(),
            folders=list(self._folders.values()),
            wanted=self._wanted,
        )

    def row(self, number: int, experiment: Experiment) -> BillRow:
        try:
            asked = self._wanted[experiment.name] = wanted(experiment)
            if asked.data not in self._scans:
                self._scans[asked.data] = scans_of(asked.data, self._sizes)
            return self._counted(number, experiment, asked, self._scans[asked.data])
        except TapctError as error:
            return BillRow(experiment.label, experiment.task, why=str(error))

    def _counted(self, number: int, experiment: Experiment, asked: Wanted, scans: Scans) -> BillRow:
        folder = self._folder(asked)
        anew = asked.mode == "refresh"
        stored = [(0, 0)] * len(scans.scans) if anew else folder.stored.of(asked.encoding, scans.scans)
        jobs = [self._job(asked, scan, bool(there[0])) for scan, there in zip(scans.scans, stored, strict=True)]
        disk, missing, guessed = self._store(number, folder, asked, scans, [job.encoded for job in jobs], stored)
        unknown = next((job for job in jobs if job.tflop is None), None) if self._arithmetic else None
        uncounted = "" if unknown is None else self._why(asked, unknown.encoded)
        return BillRow(
            label=experiment.label,
            task=experiment.task,
            scans=len(jobs),
            windows=sum(job.encoded.windows for job in jobs),
            tflop=_sum(job.tflop for job in jobs),
            hours=_sum(job.hours for job in jobs if not job.is_stored),
            disk_bytes=disk,
            stored_scans=sum(job.is_stored for job in jobs),
            stored_bytes=disk - missing,
            guessed_bytes=guessed,
            head_bytes=self._head_nbytes(asked, [job.encoded for job in jobs]),
            typical=scans.typical,
            why=uncounted,
        )

    def _job(self, asked: Wanted, scan: BilledScan, is_stored: bool) -> _Job:
        key = (asked.encoding, *_place(asked.data), scan.case, scan.perturbation)
        if key not in self._jobs:
            encoded = self._encodings.of(asked.encoding, scan)
            tflop, seconds = self._per_window(asked.encoding, encoded.window)
            self._jobs[key] = _Job(
                encoded,
                None if tflop is None else tflop * encoded.windows,
                None if seconds is None else seconds * encoded.windows / 3600,
                is_stored,
            )
        return self._jobs[key]

    def _per_window(self, encoding: Encoding, window: Size) -> tuple[float | None, float | None]:
        """Returns the 10^12 operations and the seconds that a window takes."""
        if (encoding, window) not in self._windows:
            self._windows[encoding, window] = self._worked_out(encoding, window) if self._arithmetic else (None, None)
        return self._windows[encoding, window]

    def _worked_out(self, encoding: Encoding, window: Size) -> tuple[float | None, float | None]:
        tflop = self._costs.count(encoding, window).tflop
        if self._card is not None:
            return tflop, None if tflop is None else tflop / (self._card.peak_tflops * UTILISATION)
        if self._measure:
            self._costs.measure(encoding, window)
        return tflop, self._costs.seconds(encoding, window)

    def _why(self, asked: Wanted, encoded: Encoded) -> str:
        return f"its operations cannot be counted: {self._costs.count(asked.encoding, encoded.window).why}"

    def _hours_on(self) -> str:
        if self._card is None:
            return f"{self._costs.device_name}, measured"
        return f"{self._card.display_name}, estimated at {UTILISATION:.0%} of its {self._card.peak_tflops:g} TFLOPS"

    def _folder(self, asked: Wanted) -> Folder:
        path = Path(asked.folder).expanduser() if asked.folder else features_folder()
        if path not in self._folders:
            self._folders[path] = Folder(path, FolderEntries(path, self._device))
        folder = self._folders[path]
        folder.budget_gb = min((b for b in (folder.budget_gb, asked.budget_gb) if b is not None), default=None)
        return folder

    def _store(
        self,
        number: int,
        folder: Folder,
        asked: Wanted,
        scans: Scans,
        encoded: Sequence[Encoded],
        stored: Sequence[tuple[int, int]],
    ) -> tuple[int, int, int]:
        """Notes what would be stored; returns what an experiment takes, what of it is not there, and what is a guess.

        What is there takes what its files take, and labels that are not compress as those that are.
        """
        if asked.mode == "off":
            return 0, 0, 0
        seen = sum(takes.labels_bytes for takes, there in zip(encoded, stored, strict=True) if there[1])
        taken = sum(there[1] for there in stored)
        of_guess = taken / seen if seen else 1.0
        total = missing = guessed = 0
        group = (asked.encoding, *_place(asked.data))
        folder.last[group] = number
        for scan, takes, there in zip(scans.scans, encoded, stored, strict=True):
            for key, nbytes, stays, is_there in self._entries(asked, scan, takes, there, of_guess):
                total += nbytes
                if not is_there:
                    missing += nbytes
                    guessed += nbytes if key[0] == "labels" and not seen else 0
                    folder.entries.setdefault(key, MissingEntry(nbytes, stays, group, number))
        folder.exact &= scans.typical is None
        folder.largest = max(folder.largest, total)
        return total, missing, guessed

    def _entries(
        self, asked: Wanted, scan: BilledScan, takes: Encoded, there: tuple[int, int], of_guess: float
    ) -> Iterable[tuple[tuple[Hashable, ...], int, int, bool]]:
        """Yields the entries of a scan: what makes it one, its bytes, those that stay, and whether it is there."""
        place, nbytes = _place(asked.data), there[0] or takes.features_bytes
        features = ("features", asked.encoding, *place, scan.case, scan.perturbation)
        yield features, nbytes, self._staying(asked.encoding, takes), bool(there[0])
        if kinds.kind(asked.kind).dense:
            encoder, changed = self._costs.encoder(asked.encoding), scan.perturbation
            if changed is not None and not perturbation(changed).changes_labels:
                changed = None
            # Encoders of one grid share the labels.
            grid = (encoder.card.spacing_mm, encoder.card.in_plane_size, encoder.way.regrids and encoder.mistake)
            labels = there[1] or round(takes.labels_bytes * of_guess)  # they are small, and stay
            yield ("labels", grid, *place, scan.case, changed), labels, labels, bool(there[1])

    def _staying(self, encoding: Encoding, takes: Encoded) -> int:
        if self._keep == "embeddings":
            shape = (takes.windows, self._costs.encoder(encoding).card.embedding_dim)
            return entry_nbytes((), shape, encoding.dtype) + self._encodings.header_bytes(encoding)
        return takes.features_bytes if self._keep == "all" else 0

    def _head_nbytes(self, asked: Wanted, encoded: Sequence[Encoded]) -> int | None:
        if not encoded:
            return None
        card, classes = self._costs.encoder(asked.encoding).card, len(task_class(asked.data.task).spec.classes)
        return head_nbytes(asked, card, encoded, classes, self._device.type)


def _place(data: Data) -> tuple[Hashable, ...]:
    return data.task, data.root, data.options


def _sum(values: Iterable[float | None]) -> float | None:
    """Returns a sum; None where one of the values is not known."""
    found = list(values)
    known = [value for value in found if value is not None]
    return math.fsum(known) if len(known) == len(found) else None
