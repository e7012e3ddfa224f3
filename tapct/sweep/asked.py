"""What a sweep was asked for, and the cells that this makes."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tapct.encoders import list_encoders
from tapct.names import SHIPPED_SPLITS
from tapct.sweep import adaptors, bags, mistakes, said, suites
from tapct.sweep.cell import (
    SHIPPED_CONFIGS,
    VARIABLES,
    Cell,
    SweepError,
    absolute,
    choose_tasks,
    runnable,
    weights_by_encoder,
)
from tapct.sweep.variants import Variant, require_options, variants
from tapct.sweep.varied import TaskConfig


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What was asked for.

    Attributes:
        encoders: Names by comma, or "all"; `@random` behind one is that encoder with random weights, and
            `+in_plane_size=512` with that option; where none is named, those of the variable ENCODER_OPTIONS. Beside a
            suite: those of its encoders that are meant, None being all.
        tasks: Names by comma, or "all": the ten of the benchmark. Beside a suite: likewise.
        suite: Name of a shipped suite, or the path of one.
        weights: One value for all, or ENCODER=VALUE by comma; None is the variable ENCODER_WEIGHTS, else the config's.
        results: Folder of the results.
        configs: Folder of the configs; None is the project's own.
        overrides: Further configs.
        max_steps: Optimizer steps; None is the variable MAX_STEPS, else the config's.
        runs: Runs; likewise, of N_RUNS.
        accelerator: Likewise, of ACCELERATOR.
        adaptors: Names by comma, or "all"; None is the variable ADAPTOR, else each task's own.
        bags: Names by comma, of what attention looks at; None is the variable BAG, else each task's own.
        fractions: Shares of the training patients, each a cell of its own; empty is all patients.
        draws: How often patients are drawn for each share below 1.
        perturbations: Of the test scans, by comma, or "all": each a cell beside the unperturbed one.
        mistakes: With the encoders' input, by comma, or "all": each a cell beside the right one.
    """

    encoders: str | None = None
    tasks: str | None = None
    suite: str | None = None
    weights: str | None = None
    results: str | None = None
    configs: str | None = None
    overrides: Sequence[str] = ()
    max_steps: int | None = None
    runs: int | None = None
    accelerator: str | None = None
    adaptors: str | None = None
    bags: str | None = None
    fractions: Sequence[float] = ()
    draws: int = 1
    perturbations: str | None = None
    mistakes: str | None = None

    def cells(self) -> list[Cell]:
        """Returns the cells, task by task: scans that were just read need no disk.

        Raises:
            SweepError: If an encoder, a task, a suite, a config or an override does not exist.
        """
        folder = Path(absolute(self.configs)) if self.configs else SHIPPED_CONFIGS
        configs = runnable(folder if self.configs else None)
        overrides = tuple(Path(absolute(path)) for path in self.overrides)
        for path in overrides:
            if not path.is_file():
                raise SweepError(f"there is no override {path}")
        varied: dict[str, dict[str, Variant]] = {}
        blocks = self._blocks()
        with said.once():
            for block in blocks:
                with suites.told_of(block):
                    for task in choose_tasks(block.tasks, configs, folder):
                        found = self._variants(TaskConfig(task, configs[task], overrides), block)
                        varied.setdefault(task, {}).update({one.label: one for one in found})
        if self.suite is not None:
            varied = suites.narrowed(varied, Path(self.suite).stem, self.encoders, self.tasks)
        cells = self._cells(varied, configs, overrides)
        if not cells:
            asked = [block.adaptors for block in blocks] + [block.bags and f"the bag {block.bags}" for block in blocks]
            words = ", ".join(dict.fromkeys(filter(None, asked)))
            raise SweepError(f"no task or encoder that was asked for has what {words} needs: nothing runs")
        return cells

    def _blocks(self) -> Sequence[suites.Block]:
        """Returns what is asked for: the suite's blocks, or the one of the command line."""
        if self.suite is None:
            if self.encoders is None or self.tasks is None:
                raise SweepError("name encoders and tasks (-e and -t), or a suite (--suite; `tapct list suites`)")
            on = {"adaptors": self.adaptors or os.environ.get("ADAPTOR"), "bags": self.bags or os.environ.get("BAG")}
            options = os.environ.get("ENCODER_OPTIONS")
            return [suites.Block(encoders=self.encoders, tasks=self.tasks, options=options, **on)]
        for option, value in {"--adaptors": self.adaptors, "--bags": self.bags}.items():
            if value is not None:
                raise SweepError(f"{option}: a suite says itself what stands on the features; leave it out, or --suite")
        suite = suites.read_suite(self.suite)
        for name in ("ADAPTOR", "BAG", "ENCODER_OPTIONS"):
            if name in os.environ:
                said.say(f"the variable {name} is not used: the suite {suite.name} says itself what its cells are")
        if not suite.blocks:
            raise SweepError(f"the suite {suite.name} names no cells: others include it")
        return suite.blocks

    def _variants(self, of: TaskConfig, block: suites.Block) -> list[Variant]:
        """Returns what a block has of a task, without what cannot be pooled."""
        varied = variants(
            block.encoders,
            list_encoders(),
            adaptors=adaptors.of_task(of, adaptors.parse(block.adaptors)),
            bags=bags.of_task(of, bags.parse(block.bags)).of,
            fractions=self.fractions,
            draws=self.draws,
            perturbations=self.perturbations,
            mistakes=mistakes.of_task(of, self.mistakes),
            options=block.options,
        )
        require_options(of.config, of.overrides, varied)
        return [variant for variant in varied if adaptors.fits(variant)]

    def _cells(
        self, varied: Mapping[str, Mapping[str, Variant]], configs: Mapping[str, Path], overrides: tuple[Path, ...]
    ) -> list[Cell]:
        names = list(dict.fromkeys(one.encoder for of_task in varied.values() for one in of_task.values()))
        weights = weights_by_encoder(self.weights or os.environ.get("ENCODER_WEIGHTS"), names)
        results = results_folder(self.results)
        return [
            Cell(
                task=task,
                encoder=variant.encoder,
                label=variant.label,
                folder=results / task / variant.label,
                config=configs[task],
                overrides=overrides,
                variables={**self._variables(weights.get(variant.encoder)), **variant.variables},
            )
            for task, of_task in varied.items()
            for variant in of_task.values()
        ]

    def _variables(self, weights: str | None) -> dict[str, str]:
        own = {"ENCODER_WEIGHTS": weights, "MAX_STEPS": self.max_steps, "N_RUNS": self.runs}
        asked: Mapping[str, object] = {**own, "ACCELERATOR": self.accelerator}
        varied = {"ENCODER_WEIGHTS", "ENCODER_OPTIONS", "ADAPTOR", "BAG"}
        kept = set(VARIABLES) - {"ENCODER", "OUTPUT_ROOT"} - varied
        found = {name: os.environ[name] for name in kept if name in os.environ}
        paths: list[str] = [
            name for name in ("DATA_ROOT", "SPLIT_FILE") if name in found and found[name] not in SHIPPED_SPLITS
        ]
        readers = (name for name in ("READER_WEIGHTS", "READER_BACKBONE", "LANGUAGE_MODEL") if name in found)
        paths += [name for name in readers if Path(found[name]).expanduser().exists()]  # else it is a repository's name
        found |= {name: absolute(found[name]) for name in paths}
        return found | {name: str(value) for name, value in asked.items() if value is not None}


def results_folder(results: str | None) -> Path:
    """Returns the folder of the results: the one named, else the variable RESULTS_ROOT, else `results`."""
    return Path(absolute(results or os.environ.get("RESULTS_ROOT") or "results"))
