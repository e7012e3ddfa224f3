"""The scans of CT-RATE and what stands next to them, for every task that is made of this release (arXiv:2403.17834)."""

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from tapct.errors import TaskError
from tapct.names import listed
from tapct.tasks.columns import Value
from tapct.tasks.ct_rate_release import NO_CHEST, PARTS, VOLUMES, CTRateRelease, CTRateScan, ReleasePart, VolumeName
from tapct.tasks.dataset import DoctorFinding
from tapct.tasks.release_scans import ReleaseScans
from tapct.tasks.splits import Split, SplitTable, uniform
from tapct.volumes import Grid, Volume, read_grid

RELEASE = "ct_rate"
LICENCE = "CC BY-NC-SA 4.0"
SOURCE = (
    "accept the terms of the data set ibrahimhamamci/CT-RATE on Hugging Face and fetch, into ct_rate/, of its folder "
    "dataset/: train_fixed/, valid_fixed/ (not train/ and valid/, whose headers lack HU and spacing), "
    "multi_abnormality_labels/, metadata/ and radiology_text_reports/"
)
SOURCE_DATA = ("ct[- ]?rate",)
CITATION = """@article{hamamci2026ctrate,
  title={Generalist foundation models from a multimodal dataset for 3D computed tomography},
  author={Hamamci, Ibrahim Ethem and Er, Sezgin and Wang, Chenyu and others},
  journal={Nature Biomedical Engineering},
  year={2026},
  doi={10.1038/s41551-025-01599-y},
  note={arXiv:2403.17834}
}"""

MACHINE_READ = "Its labels were read from radiology reports by a machine, not from the scans by a reader."

SEED = "ct_rate v1"

SELECTION = 0.1
"""Share of the training patients that select."""


class CTRATEScans(ReleaseScans):
    """A case is a scan, such as valid_12_b: one volume stands for its reconstructions, which have one report.

    The official part `valid` is reported. The patients of `train` select where the SHA-256 of their name, as a number
    in [0, 1), is below 0.1, and else train.
    """

    window = "lung"
    split_rule = f"official valid is reported; ours: a tenth of train selects, by hash of the patient, seed '{SEED}'"
    scan_patterns: tuple[str, ...] = ("*_fixed/*/*", "dataset/*_fixed/*/*")
    parts: ClassVar[tuple[ReleasePart, ...]] = PARTS
    """Parts of the release that the task is made of: no file of the other is needed."""

    @cached_property
    def release(self) -> CTRateRelease:
        """The files of the release."""
        return CTRateRelease(self.root, self.parts)

    @override
    def left_out(self) -> dict[str, str]:
        return {case: scan.left_out for case, scan in self.release.scans.items() if scan.left_out is not None}

    @override
    def derive_split(self) -> SplitTable:
        rows = [(case, of.name.patient, side(of.name)) for case, of in self.release.scans.items()]
        return SplitTable.of(rows, self.split_rule, where=str(self.release.root))

    @override
    def ct_path(self, case: str) -> Path:
        return self.release.volume(self.volume_of(case))

    @override
    def target_paths(self, case: str) -> list[Path]:
        return [self.release.labels(self.volume_of(case).part)]

    @override
    def value_paths(self, case: str, column: str) -> list[Path]:
        return [self.release.metadata(self.volume_of(case).part)]

    @override
    def read_value(self, case: str, column: str) -> Value:
        said = self.release.about.get(self.volume_of(case).volume)
        return None if said is None else said[column]

    @override
    def read_scan(self, case: str) -> Volume:
        ct, name = super().read_scan(case), self.volume_of(case)
        if all(abs(edge - 1) < 1e-6 for edge in ct.spacing_mm) and self.release.metadata(name.part).is_file():
            said = self.release.spacings_mm.get(name.volume, ())
            if any(abs(edge - 1) > 1e-6 for edge in said):
                raise TaskError(
                    f"{ct.source} has voxels of 1 mm along every axis, and the metadata give it others "
                    f"({', '.join(f'{edge:g}' for edge in said)} mm): it is of the first upload, whose headers lack "
                    "their spacing. Fetch train_fixed/ and valid_fixed/"
                )
        return ct

    @override
    def scan_grid(self, case: str) -> Grid:
        return read_grid(self.ct_path(case))

    def volume_of(self, case: str) -> VolumeName:
        """Returns the volume that is read of a case.

        Raises:
            TaskError: If the release has none of it.
        """
        return self.of_release(case).name

    def of_release(self, case: str) -> CTRateScan:
        """Returns what the release says of a case.

        Raises:
            TaskError: If it has none of that name.
        """
        if case not in self.release.scans:
            raise TaskError(f"no label file of CT-RATE under {self.root} has the scan {case}. Leave the case out")
        return self.release.scans[case]

    @override
    def validate(self) -> None:
        absent = [name for case in self.cases if not self.release.volume(name := self.volume_of(case)).exists()]
        if first := [path for name in absent if (path := self.release.first_upload(name)) is not None]:
            raise TaskError(
                f"{self.spec.name}: {len(first)} scans of the split '{self.split}' are there in the first upload "
                f"alone, such as {first[0].relative_to(self.root)}. Its headers lack rescale and spacing, so that "
                "its voxels are no HU and its sizes no mm. Fetch train_fixed/ and valid_fixed/ in its place"
            )
        super().validate()
        _ = self.release.about  # what is wrong with the metadata shows before anything is encoded

    @override
    def release_findings(self) -> Iterator[DoctorFinding]:
        for part in self.parts:
            yield from self._counts(part)
            yield from self._reports(part)

    def _counts(self, part: ReleasePart) -> Iterator[DoctorFinding]:
        rows, heads = self.release.rows(part), {name.volume for name in self.release.listed_heads(part)}
        for what, here, there in (
            ("volumes with labels", len(rows), VOLUMES[part]),
            ("volumes listed as no chest", len(heads), NO_CHEST[part]),
        ):
            if here == there:
                yield "ok", f"{part}: {here:,} {what}", ""
            else:
                yield "warn", f"{part}: {here:,} {what}, and the release has {there:,}", "fetch its tables again"
        if self.release.metadata(part).is_file() and (unknown := sorted(rows.keys() - self.release.about.keys())):
            yield (
                "warn",
                f"{part}: {len(unknown)} volumes with labels are not in {self.release.metadata(part).name}: "
                f"{listed(unknown)}",
                "what took them is not known then: fetch the tables of one release again",
            )
        if strange := sorted(heads - rows.keys()):
            yield "warn", f"no_chest_{part}.txt lists {listed(strange)}, without labels", "fetch both files again"

    def _reports(self, part: ReleasePart) -> Iterator[DoctorFinding]:
        path = self.release.reports(part)
        if not path.is_file():
            yield "ok", f"{part}: the reports are not there ({path.name}); this task needs none", ""
            return
        try:
            names = [name.volume for name in self.release.reported(part)]
        except TaskError as error:
            yield "warn", str(error), "fetch it again; this task does not need it"
            return
        labelled, reported = self.release.rows(part).keys(), set(names)
        twice = [name for name, times in Counter(names).items() if times > 1]
        for what, odd in (
            ("reports without labels and scan", sorted(reported - labelled)),
            ("volumes with labels and without a report", sorted(labelled - reported)),
            ("volumes with two reports", twice),
        ):
            if odd:
                yield (
                    "warn",
                    f"{part}: {len(odd)} {what}: {listed(odd)}",
                    "fetch the tables of one release again",
                )


def side(name: VolumeName) -> Split:
    """Returns the side of a volume's patient: who else is in the release changes nobody's."""
    if name.part == "valid":
        return "test"
    return "val" if uniform(f"{SEED}:{name.patient}") < SELECTION else "train"
