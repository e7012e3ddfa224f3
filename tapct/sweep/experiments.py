"""The experiments that a sweep makes of what was asked for."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tapct.encoders import list_encoders
from tapct.names import SHIPPED_SPLITS
from tapct.sweep import adaptors, bags, mistakes, said, suites
from tapct.sweep.asked import Sweep, results_folder
from tapct.sweep.experiment import (
    SHIPPED_CONFIGS,
    VARIABLES,
    Experiment,
    SweepError,
    absolute,
    choose_tasks,
    runnable,
    weights_by_encoder,
)
from tapct.sweep.variants import Variant, require_options, variants
from tapct.sweep.varied import TaskConfig


def experiments_of(asked: Sweep) -> list[Experiment]:
    """Returns the experiments, task by task: scans that were just read need no disk.

    Raises:
        SweepError: If an encoder, a task, a suite, a config or an override does not exist.
    """
    folder = Path(absolute(asked.configs)) if asked.configs else SHIPPED_CONFIGS
    configs = runnable(folder if asked.configs else None)
    overrides = tuple(Path(absolute(path)) for path in asked.overrides)
    for path in overrides:
        if not path.is_file():
            raise SweepError(f"there is no override {path}")
    varied: dict[str, dict[str, Variant]] = {}
    blocks = _blocks(asked)
    with said.once():
        for block in blocks:
            with suites.told_of(block):
                for task in choose_tasks(block.tasks, configs, folder):
                    found = _variants(asked, TaskConfig(task, configs[task], overrides), block)
                    varied.setdefault(task, {}).update({one.label: one for one in found})
    if asked.suite is not None:
        varied = suites.narrowed(varied, Path(asked.suite).stem, asked.encoders, asked.tasks)
    experiments = _experiments(asked, varied, configs, overrides)
    if not experiments:
        named = [block.adaptors for block in blocks] + [block.bags and f"the bag {block.bags}" for block in blocks]
        words = ", ".join(dict.fromkeys(filter(None, named)))
        raise SweepError(f"no task or encoder that was asked for has what {words} needs: nothing runs")
    return experiments


def _blocks(asked: Sweep) -> Sequence[suites.SuiteBlock]:
    """Returns what is asked for: the suite's blocks, or the one of the command line."""
    if asked.suite is None:
        if asked.encoders is None or asked.tasks is None:
            raise SweepError("name encoders and tasks (-e and -t), or a suite (--suite; `tapct list suites`)")
        on = {"adaptors": asked.adaptors or os.environ.get("ADAPTOR"), "bags": asked.bags or os.environ.get("BAG")}
        options = os.environ.get("ENCODER_OPTIONS")
        return [suites.SuiteBlock(encoders=asked.encoders, tasks=asked.tasks, options=options, **on)]
    for option, value in {"--adaptors": asked.adaptors, "--bags": asked.bags}.items():
        if value is not None:
            raise SweepError(f"{option}: a suite says itself what stands on the features; leave it out, or --suite")
    suite = suites.read_suite(asked.suite)
    for name in ("ADAPTOR", "BAG", "ENCODER_OPTIONS"):
        if name in os.environ:
            said.say(f"the variable {name} is not used: the suite {suite.name} says itself what its experiments are")
    if not suite.blocks:
        raise SweepError(f"the suite {suite.name} names no experiments: others include it")
    return suite.blocks


def _variants(asked: Sweep, of: TaskConfig, block: suites.SuiteBlock) -> list[Variant]:
    """Returns what a block has of a task, without what cannot be pooled."""
    varied = variants(
        block.encoders,
        list_encoders(),
        adaptors=adaptors.of_task(of, adaptors.parse(block.adaptors)),
        bags=bags.of_task(of, bags.parse(block.bags)).of,
        fractions=asked.fractions,
        draws=asked.draws,
        perturbations=asked.perturbations,
        mistakes=mistakes.of_task(of, asked.mistakes),
        options=block.options,
    )
    require_options(of.config, of.overrides, varied)
    return [variant for variant in varied if adaptors.fits(variant)]


def _experiments(
    asked: Sweep, varied: Mapping[str, Mapping[str, Variant]], configs: Mapping[str, Path], overrides: tuple[Path, ...]
) -> list[Experiment]:
    names = list(dict.fromkeys(one.encoder for of_task in varied.values() for one in of_task.values()))
    weights = weights_by_encoder(asked.weights or os.environ.get("ENCODER_WEIGHTS"), names)
    results = results_folder(asked.results)
    return [
        Experiment(
            task=task,
            encoder=variant.encoder,
            label=variant.label,
            folder=results / task / variant.label,
            config=configs[task],
            overrides=overrides,
            variables={**_variables(asked, weights.get(variant.encoder)), **variant.variables},
        )
        for task, of_task in varied.items()
        for variant in of_task.values()
    ]


def _variables(asked: Sweep, weights: str | None) -> dict[str, str]:
    own = {"ENCODER_WEIGHTS": weights, "MAX_STEPS": asked.max_steps, "N_RUNS": asked.runs}
    given: Mapping[str, object] = {**own, "ACCELERATOR": asked.accelerator}
    varied = {"ENCODER_WEIGHTS", "ENCODER_OPTIONS", "ADAPTOR", "BAG"}
    kept = set(VARIABLES) - {"ENCODER", "OUTPUT_ROOT"} - varied
    found = {name: os.environ[name] for name in kept if name in os.environ}
    paths: list[str] = [
        name for name in ("DATA_ROOT", "SPLIT_FILE") if name in found and found[name] not in SHIPPED_SPLITS
    ]
    readers = (name for name in ("READER_WEIGHTS", "READER_BACKBONE", "LANGUAGE_MODEL") if name in found)
    paths += [name for name in readers if Path(found[name]).expanduser().exists()]  # else it is a repository's name
    found |= {name: absolute(found[name]) for name in paths}
    return found | {name: str(value) for name, value in given.items() if value is not None}
