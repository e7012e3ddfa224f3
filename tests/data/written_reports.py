"""Tiny scans with planted findings, reports that name them, a reader of the words, and a model that can write them."""

import hashlib
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from typing_extensions import override

from tapct.language_models.batches import Prompt, report_tokens, tokens
from tapct.probes.generated import PROMPT
from tapct.report_texts.reader import Reader
from tapct.tasks import TaskData
from tapct.tasks.report import ReportDataset
from tapct.tasks.spec import TaskSpec
from tapct.tasks.splits import SplitTable
from tests.language_models import tiny

FINDINGS = {"emphysema": -950.0, "calcification": 700.0}
"""By name, the HU of what is planted."""

CASES = {"train": 40, "val": 8, "test": 24}

SHAPE, AFFINE = (8, 32, 32), np.diag([3.0, 3.0, 3.0, 1.0])


def has(case: str) -> tuple[int, ...]:
    """Which findings a case has: by its name, each with even odds."""
    digest = hashlib.sha256(case.encode()).digest()
    return tuple(byte % 2 for byte in digest[: len(FINDINGS)])


def report(found: tuple[int, ...]) -> str:
    """The report of such a scan."""
    return " ".join(
        f"{name.capitalize()} is seen." if on else f"No {name}." for name, on in zip(FINDINGS, found, strict=True)
    )


class Written(ReportDataset):
    """Soft tissue, in which each finding of a case is four blocks of its HU, anywhere."""

    spec = TaskSpec(
        name="written",
        display_name="Written reports",
        kind="report",
        adaptor="nearest",
        version=1,
        classes=tuple(FINDINGS),
        metric="MacroF1",
        licence="ours",
        source="drawn",
    )
    split_rule = "by name"

    @override
    def derive_split(self) -> SplitTable:
        rows = [(f"{split}{n}", f"{split}{n}", split) for split, number in CASES.items() for n in range(number)]
        return SplitTable.of(rows, "by name", where=str(self.root))

    @override
    def ct_path(self, case: str) -> Path:
        return self.root / f"{case}.nii"

    @override
    def target_paths(self, case: str) -> list[Path]:
        return []

    @override
    def targets(self, case: str) -> tuple[int, ...]:
        return has(case)

    @override
    def report(self, case: str) -> str:
        return report(has(case))


class WrittenData(TaskData):
    """These scans as eva has them."""

    def _datasets(self, task, data_root, split_file, options):
        return {split: Written(data_root, split) for split in CASES}


def write(root: Path) -> Path:
    """Writes the scans; returns their folder."""
    root.mkdir(parents=True)
    for split, number in CASES.items():
        for case in (f"{split}{n}" for n in range(number)):
            rng = np.random.default_rng(list(case.encode()))
            noise = rng.normal(0, 10, SHAPE)
            hu = np.full(SHAPE, 50.0)
            patches = rng.permutation(2 * 4 * 4).reshape(-1, 4)  # of 4 x 8 x 8 voxels
            for value, on, places in zip(FINDINGS.values(), has(case), patches, strict=False):
                for z, y, x in zip(*np.unravel_index(places, (2, 4, 4)), strict=True):
                    if on:
                        hu[4 * z : 4 * z + 4, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = value
            nib.save(nib.Nifti1Image((hu + noise).transpose(2, 1, 0).astype(np.int16), AFFINE), root / f"{case}.nii")
    return root


class Words(Reader):
    """Reads "X is seen"."""

    findings = tuple(FINDINGS)

    def __init__(self, *_):
        pass

    @override
    def describe(self):
        sha256 = hashlib.sha256(b"words").hexdigest()
        return {
            "name": "words",
            "weights_sha256": sha256,
            "tokenizer_sha256": sha256,
            "threshold": 0.5,
            "most_tokens": 512,
        }

    @override
    def probabilities(self, texts):
        return np.array([[float(f"{name} is seen" in text.lower()) for name in FINDINGS] for text in texts])


def language_model(folder: Path, steps: int = 100) -> Path:
    """Writes a model that was taught to write the report of findings that stand in the prompt where a scan does."""
    every = [tuple(int(bit) for bit in np.binary_repr(n, len(FINDINGS))) for n in range(2 ** len(FINDINGS))]
    words = [name if on else "none" for found in every for name, on in zip(FINDINGS, found, strict=True)]
    tiny.write(folder, texts=[PROMPT, " ".join(words), *(report(found) for found in every)] * 3)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModelForCausalLM.from_pretrained(folder)
    prompt, optimizer = Prompt.of(PROMPT, tokenizer), torch.optim.AdamW(network.parameters(), lr=3e-3)
    rng = np.random.default_rng(0)
    for _ in range(steps):
        rows = []
        for found in (every[n] for n in rng.integers(len(every), size=16)):
            named = " ".join(name if on else "none" for name, on in zip(FINDINGS, found, strict=True))
            asked = [*prompt.before, *tokens(named, tokenizer), *prompt.after]
            rows.append((asked, report_tokens(report(found), tokenizer, 99)))
        given = nn.utils.rnn.pad_sequence([torch.tensor(a + r) for a, r in rows], batch_first=True)
        labels = [torch.tensor([-100] * len(a) + r) for a, r in rows]
        labels = nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)
        optimizer.zero_grad()
        network(input_ids=given, labels=labels).loss.backward()
        optimizer.step()
    network.save_pretrained(folder)
    return folder
