"""CT-RATE: two reconstructions of one acquisition, whose features should agree (arXiv:2403.17834)."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cached_property

from typing_extensions import override

from tapct.errors import TaskError
from tapct.tasks.ct_rate_release import SHORTCUTS, VolumeName
from tapct.tasks.ct_rate_scans import CITATION, LICENCE, RELEASE, SOURCE, SOURCE_DATA, CTRATEScans
from tapct.tasks.dataset import DoctorFinding
from tapct.tasks.reliability import ReliabilityDataset
from tapct.tasks.spec import TaskSpec
from tapct.tasks.splits import SplitTable, uniform

PATIENTS = 200
"""So many are reported. An intraclass correlation of 0.8 of 200 pairs has a standard error of 0.026, which is less than
what tells encoders apart; all of `valid` would be six times as many scans to encode."""

SEED = "ct_rate_reconstructions v1"

SPEC = TaskSpec(
    name="ct_rate_reconstructions",
    display_name="CT-RATE, reconstruction pairs",
    kind="reliability",
    adaptor="cosine",
    version=1,
    classes=("scan",),
    metric="MedianICC",
    licence=LICENCE,
    source=SOURCE,
    source_data=SOURCE_DATA,
    release=RELEASE,
    shortcuts=SHORTCUTS,
    citation=CITATION,
)


class CTRATEReconstructions(CTRATEScans, ReliabilityDataset):
    """A case is a reconstruction: valid_12_b is the volume that stands for the scan, valid_12_b_2 the next one.

    So the first of each pair is the scan of the other tasks of the release, whose stored features serve here too. Of
    each patient of the official part `valid` the first scan with two reconstructions that are a chest counts, and of
    the patients those 200 whose names come first in the order of their SHA-256.
    """

    spec = SPEC
    parts = ("valid",)
    scan_patterns: tuple[str, ...] = ()  # most scans of the part are no case here
    split_rule = f"of official valid, the {PATIENTS} patients with a pair whose names come first by hash, seed '{SEED}'"

    @cached_property
    def _chests(self) -> Mapping[str, tuple[VolumeName, ...]]:
        """The reconstructions of each scan that are a chest, in their order."""
        found: dict[str, list[VolumeName]] = defaultdict(list)
        for part in self.parts:
            for name, _ in self.release.rows(part).values():
                if name.volume not in self.release.heads:
                    found[name.scan].append(name)
        return {scan: tuple(sorted(names, key=lambda name: name.reconstruction)) for scan, names in found.items()}

    @cached_property
    def _pairs(self) -> Mapping[str, tuple[VolumeName, VolumeName]]:
        """The two reconstructions of each patient who has them, in the order of the label file."""
        found: dict[str, tuple[VolumeName, VolumeName]] = {}
        for scan, names in self._chests.items():
            if len(names) > 1 and self.release.scans[scan].left_out is None:
                found.setdefault(names[0].patient, names[:2])  # type: ignore[arg-type]
        return found

    @override
    def left_out(self) -> dict[str, str]:
        return {}

    @override
    def derive_split(self) -> SplitTable:
        if not self._pairs:
            raise TaskError(
                f"no label file of CT-RATE under {self.root} has a scan with two reconstructions. Fetch its tables"
            )
        chosen = sorted(self._pairs, key=lambda patient: uniform(f"{SEED}:{patient}"))[:PATIENTS]
        rows = [
            (case, patient, "test")
            for patient, (first, second) in self._pairs.items()
            if patient in set(chosen)
            for case in (first.scan, second.volume)
        ]
        return SplitTable.of(rows, self.split_rule, where=str(self.release.root))

    @override
    def volume_of(self, case: str) -> VolumeName:
        if case in self.release.scans:
            return self.release.scans[case].name
        name = VolumeName.parse(case, f"{self.spec.name}, the split")
        if name not in self._chests.get(name.scan, ()):
            raise TaskError(
                f"no label file of CT-RATE under {self.root} has the volume {case}, or it is a head. Leave the case out"
            )
        return name

    @override
    def occasion(self, case: str) -> int:
        return 1 if case in self.release.scans else 2

    @override
    def slice_mm(self, case: str) -> float | None:
        spacing = self.release.spacings_mm.get(self.volume_of(case).volume, ())
        return spacing[-1] if len(spacing) == 3 else None

    @override
    def release_findings(self) -> Iterator[DoctorFinding]:
        yield from super().release_findings()
        if (there := len(self._pairs)) < PATIENTS:
            yield "warn", f"{there} patients have a pair of reconstructions, and {PATIENTS} are reported", "fetch more"
        yield from self.pair_findings()
