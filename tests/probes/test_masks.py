"""Features pooled over masks: what a task declares, what is stored, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import tapct
from baselines.ibsi import NAMES
from baselines.radiomics import Radiomics
from tapct.errors import TaskError, VolumeError
from tapct.features import CaseFeatures, FeatureBank, TensorStore
from tapct.probes import derived
from tapct.probes.adaptors import pooled
from tapct.probes.settings import ProbeSettings
from tapct.probes.source import CaseSource
from tapct.tasks import SplitTable, list_tasks, task_class
from tapct.tasks.classification import ClassificationDataset
from tapct.tasks.luna16 import COLUMNS, LIST
from tapct.tasks.nodules import read_nodules
from tapct.tasks.quickstart import Quickstart
from tapct.volumes import Grid, Mask, Size, read_labels
from tests.data.abdomen import block, save
from tests.probes.test_classification import run
from tests.small import CubicMillimetres, Small3D, small_encoder

LIVER = 5


class Liver(ClassificationDataset):
    """Scans with a table of answers, and the liver in each."""

    spec = replace(
        Quickstart.spec,
        name="liver",
        kind="classification",
        classes=("ill",),
        metric="MicroAUROC",
        mask="the liver, as it was outlined",
    )

    def ct_path(self, case):
        return self.root / case / "ct.nii.gz"

    def target_paths(self, case):
        return [self.root / "ill.json"]

    def targets(self, case):
        return json.loads((self.root / "ill.json").read_text(encoding="utf-8"))[case]

    def mask_paths(self, case):
        return [self.root / case / "organs.nii.gz"]

    def read_mask(self, case, scan):
        return Mask.of_labels(read_labels(*self.mask_paths(case)), scan, {LIVER})


@pytest.fixture
def part(tmp_path) -> Liver:
    root, cases = tmp_path / "liver", ["c0", "c1"]
    for number, case in enumerate(cases):
        slab = block(88 + 8 * number, 16)
        save(root / case / "ct.nii.gz", slab.hu, slab.affine)
        save(root / case / "organs.nii.gz", slab.organs, slab.affine)
    (root / "ill.json").write_text(json.dumps({case: [number] for number, case in enumerate(cases)}))
    (root / "split.csv").write_text("case,patient,split\n" + "".join(f"{case},{case},train\n" for case in cases))
    return Liver(root, "train", root / "split.csv")


def filled(folder, part, encoder=None) -> CaseSource:
    """A source as a new process has it, its store filled."""
    encoder, store = encoder or CubicMillimetres("random"), TensorStore(folder)
    found = CaseSource(encoder, ProbeSettings(feature_folder=str(folder), feature_dtype="fp32"))
    found.bank = FeatureBank(encoder, store, dtype="fp32")
    found.bank.fill([part])
    return found


def vectors(of: CaseSource, part) -> list[float]:
    return [float(of.vector(part, of.bank.case(part, index), "mask")[0]) for index in range(len(part))]


def test_the_mean_over_a_mask_is_stored_and_follows_its_file(part, tmp_path, monkeypatch):
    computed = []
    monkeypatch.setattr(derived, "pooled", lambda *of: computed.append(of[1]) or pooled(*of))
    monkeypatch.setattr(derived.pooled, "__module__", pooled.__module__)
    first = vectors(filled(tmp_path / "f", part), part)
    for index, value in enumerate(first):  # patches hold the mean HU of 8 mm: near that of the liver's own voxels
        ct, _ = part.read(part.cases[index])
        liver = part.mask(part.cases[index], ct.grid)
        assert abs(value - ct.hu[liver.inside].mean()) < 25
        assert abs(ct.hu.mean() - ct.hu[liver.inside].mean()) > 100
    assert vectors(filled(tmp_path / "f", part), part) == first
    assert len(computed) == 2, "the second process reads them"
    slab = block(88, 16)
    save(part.root / "c0" / "organs.nii.gz", np.where(slab.organs == 6, LIVER, 0).astype(np.uint8), slab.affine)
    changed = vectors(filled(tmp_path / "f", part), part)
    assert changed[0] != first[0]
    assert changed[1] == first[1]
    assert len(computed) == 3, "of the case alone whose mask is another"


def test_an_encoder_of_regions_measures_the_mask_itself_and_stores_that_unrounded(part, tmp_path):
    pytest.importorskip("mirp", reason="the extra 'radiomics' is not installed")
    part = part.only({"c0"})
    encoder = tapct.load_encoder("radiomics", spacing_mm=(3, 3, 3))
    of = filled(tmp_path / "f", part, encoder)
    assert of.dtype == of.bank.dtype == "fp32"
    case = of.bank.case(part, 0)
    assert case.features.embeddings.dtype == torch.float32
    body, liver = (of.vector(part, case, how) for how in ("mean", "mask"))
    assert body.tolist() == case.features.embeddings[0].double().tolist()
    ct, _ = part.read("c0")
    inside = part.mask("c0", ct.grid).inside
    assert 10 ** float(liver[0]) == pytest.approx(inside.sum() * np.prod(ct.spacing_mm), rel=0.02)
    assert 1000 * float(liver[NAMES.index("stat_mean")]) == pytest.approx(ct.hu[inside].mean(), abs=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Radiomics, "measure", lambda *_: pytest.fail("it is stored"))
        assert filled(tmp_path / "f", part, encoder).vector(part, case, "mask").equal(liver)


def test_a_case_without_a_mask_is_named_and_nothing_stands_in_for_it(part, tmp_path):
    slab = block(88, 16)
    save(part.root / "c0" / "organs.nii.gz", np.where(slab.organs == LIVER, 0, slab.organs), slab.affine)
    of = filled(tmp_path / "f", part)
    with pytest.raises(TaskError, match=r"liver, case c0: its mask is empty.*HEAD:mean.*the mask is the answer"):
        vectors(of, part)
    affine = slab.affine.copy()
    affine[0, 3] += 20
    save(part.root / "c0" / "organs.nii.gz", slab.organs, affine)
    with pytest.raises(VolumeError, match=r"liver, case c0: .* does not lie on the grid of its scan"):
        vectors(of, part)


def test_masks_that_are_not_there_are_asked_for_before_anything_is_encoded(part):
    part.require_masks()
    (part.root / "c1" / "organs.nii.gz").unlink()
    with pytest.raises(TaskError, match=r"liver: 1 masks of the split 'train' are not there, such as .*c1.organs"):
        part.require_masks()
    part.spec = replace(Liver.spec, mask=None)
    with pytest.raises(TaskError, match="liver has no masks to pool features over"):
        part.require_masks()


def test_a_dataset_without_masks_is_refused_before_anything_is_encoded(tmp_path, monkeypatch):
    monkeypatch.setattr(Small3D, "_encode", lambda *of: pytest.fail("a case was encoded"))
    with pytest.raises(TaskError, match="linear:mask pools over masks, and Slabs has none"):
        run(tmp_path, small_encoder(), None, {"adaptor": "linear:mask"}, max_steps=1)


def test_tasks_that_have_masks():
    """RSNA's are of a few scans, LUNA25 has no sizes, and the lesions of FDG-PET-CT are the answer (docs/tasks.md)."""
    masked = [name for name in list_tasks() if task_class(name).spec.mask is not None]
    assert masked == [
        *("quickstart_organs", "luna16", "lung1_survival"),
        *("c4kc_kits_retrieval", "nsclc_radiogenomics_retrieval"),
    ]


def test_what_the_size_of_a_nodule_alone_knows_of_luna16_and_that_a_mask_tells_it():
    """The figures of docs/tasks.md: patches that know nothing but where they lie, pooled over the nodules' spheres."""
    nodules = read_nodules(LIST, COLUMNS)
    cases = [nodules[case] for case in SplitTable.read(LIST.parents[1] / "splits" / "luna16.csv").cases["test"]]
    malignant = [nodule.malignant for nodule in cases]
    assert roc_auc_score(malignant, [nodule.diameter_mm for nodule in cases]) == pytest.approx(0.964, abs=5e-4)
    scan = Grid.of((48, 48, 48), np.diag([1.0, -1.0, -1.0, 1.0])[[2, 1, 0, 3]])
    centre_mm = (scan.affine @ [23.5, 23.5, 23.5, 1])[:3]
    for edge, expected in ((4, 0.959), (8, 0.741)):
        axis = np.square((np.arange(48 // edge) - (48 // edge - 1) / 2) * edge)
        apart = torch.from_numpy(axis[:, None, None] + axis[:, None] + axis)[None]
        features = CaseFeatures(apart, torch.zeros(1, 1), scan, scan, scan.patches((edge,) * 3), Size(0, 0, 0))
        spheres = [Mask.sphere(centre_mm, nodule.diameter_mm, scan) for nodule in cases]
        found = [float(pooled(features, "mask", sphere)) for sphere in spheres]
        assert roc_auc_score(malignant, found) == pytest.approx(expected, abs=5e-4)
