"""How records of results folders become a board: what is comparable, what is apart, and the statistics of each."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from tapct._utils import terminal
from tapct.encoders.options import full_name
from tapct.errors import RecordError
from tapct.leaderboard.board import LONGEST_REASON, Board, Model, Own, Task, families
from tapct.leaderboard.compared import (
    PROTOCOLS,
    Contest,
    LeftOut,
    ListedRecord,
    NamedRecord,
    contest,
    usual_adaptor,
    why_no_number,
)
from tapct.leaderboard.official import ranked_adaptor, why_own
from tapct.leaderboard.paper import AVERAGE, read_paper
from tapct.leaderboard.reproduction import Known, reproduce
from tapct.leaderboard.suite import RankedSuite, core, declared
from tapct.leaderboard.text import LONGEST_NAME, plain
from tapct.records import Protocol, Recorded, RecordsFound
from tapct.statistics.inputs import adaptor_of, from_records, ranked_metrics
from tapct.statistics.models import names_of
from tapct.statistics.overall import OverallModel, summarise_tasks
from tapct.statistics.summary import RESAMPLES, TaskSummary, summarise_task
from tapct.tasks import core_tasks, list_tasks
from tapct.tasks.registry import spec_of


def assemble(found: Mapping[Path, RecordsFound], *, suite: Sequence[str] = (), resamples: int = RESAMPLES) -> Board:
    """Computes a board.

    Args:
        found: The records of each results folder. Files are named relative to theirs; with several, its name in front.
        suite: The tasks that mean ranks are over; by default the core (see `suite`).
        resamples: Resamples of the patients.

    Raises:
        RecordError: If there is no record to show, two are of the same model on the same task, or a task of the suite
            has no record.
    """
    every, left_out = _entries(found)
    entries = [entry for entry in every if entry.record.imported is None]  # `imported.references` shows the others
    main = [entry for entry in entries if not _is_side_experiment(entry.record)]
    if not main:
        raise RecordError(
            f"there is no finished record to show in {', '.join(map(str, found))}, where TASK/EXPERIMENT/record.json "
            f"was expected ({len(left_out)} cannot be used, {len(entries)} are of label efficiency, robustness or "
            f"mistakes alone, {len(every) - len(entries)} imported)"
        )
    by_task: dict[str, list[NamedRecord]] = defaultdict(list)
    named = zip(_names([entry.record for entry in main]), main, strict=True)
    for name, entry in terminal.track(named, "cases of records", len(main)):
        if (reason := why_no_number(name, entry.record)) is not None:
            left_out.append(LeftOut(entry.path, reason, name, entry.experiment))
            continue
        by_task[entry.record.task.name].append((name, entry))
    contests: dict[str, Contest] = {}
    own: list[tuple[str, str, Contest]] = []
    for task, of_task in sorted(by_task.items()):
        official, others = _by_standing(task, of_task)
        if official:
            contests[task] = contest(task, official, ranked_adaptor(task), resamples)
            others = _merged(others, contests[task].rest)
        while others:
            why = next(iter(others))
            third_parties = others.pop(why)
            own.append((task, why, contest(task, third_parties, usual_adaptor(third_parties), resamples)))
            others = _merged(others, own[-1][2].rest)
    left_out += [out for each in [*contests.values(), *(each for *_, each in own)] for out in each.left_out]
    anchors: set[str] = set()
    tasks = _tasks(contests, resamples, with_paper=True)
    of_ranks = declared(suite, tasks) if suite else core(tasks, core_tasks())
    known = Known(
        experiments={task: each.experiments for task, each in contests.items()},
        summaries={(task.name, of.metric): of for task in tasks for of in task.summaries.values()},
        resamples=resamples,
    )
    return Board(
        models=_models(contests, anchors),
        tasks=tasks,
        suite=of_ranks,
        overall=_overall(tasks, of_ranks),
        left_out=tuple(sorted(left_out, key=lambda out: out.path)),
        set_aside=len(entries) - len(main),
        reproduction=reproduce(by_task, known),
        own=tuple(_own(task, why, each, anchors, resamples) for task, why, each in own),
    )


def alone(record: Recorded, resamples: int = RESAMPLES) -> tuple[Task, Model]:
    """Returns the task and the model of one record, whatever it would compare with: for a report of it.

    Raises:
        RecordError: If it has no number.
    """
    name = record.task.name
    found = contest(name, [(_names([record])[0], ListedRecord(name, record))], adaptor_of(record), resamples)
    (task,), (model,) = _tasks({name: found}, resamples), _models({name: found}, set())
    return task, model


def _entries(found: Mapping[Path, RecordsFound]) -> tuple[list[ListedRecord], list[LeftOut]]:
    """Returns the records of all folders in the order of their names, and what cannot be used."""
    entries, left_out = [], []
    for name, (folder, of_folder) in zip(_folder_names([*found]), found.items(), strict=True):

        def shown(path: Path, name: Path = name, folder: Path = folder) -> tuple[str, str]:
            inside = path.relative_to(folder)
            return plain((name / inside).as_posix()), inside.parent.as_posix()

        for path, record in of_folder.valid.items():
            own, experiment = shown(path)
            entries.append(ListedRecord(own, record, experiment))
        for path, reason in of_folder.invalid.items():
            own, experiment = shown(path)
            left_out.append(
                LeftOut(own, plain(reason.replace(f"{folder}/", ""), LONGEST_REASON), experiment=experiment)
            )
    return sorted(entries, key=lambda entry: entry.path), left_out


def _folder_names(folders: Sequence[Path]) -> list[Path]:
    """Returns what results folders are called on the page: as few of their last parts as tell them apart."""
    if len(folders) == 1:
        return [Path()]
    parts = [folder.resolve().parts for folder in folders]
    most = max(map(len, parts))
    needed = next((n for n in range(1, most) if len({own[-n:] for own in parts}) == len(parts)), most)
    return [Path(*own[-needed:]) for own in parts]


def _by_standing(task: str, found: Sequence[NamedRecord]) -> tuple[list[NamedRecord], dict[str, list[NamedRecord]]]:
    """Returns the comparable records of a task, and the others by why they are not."""
    official: list[NamedRecord] = []
    others: dict[str, list[NamedRecord]] = defaultdict(list)
    for name, entry in found:
        why = why_own(entry.record)
        (official if why is None else others[why]).append((name, entry))
    ranked = ranked_adaptor(task)
    if official and all(adaptor_of(entry.record) != ranked for _, entry in official):
        others[f"the task is ranked on {ranked}, which no record has"] = official
        official = []
    return official, dict(others)


def _merged(
    one: Mapping[str, list[NamedRecord]], other: Mapping[str, list[NamedRecord]]
) -> dict[str, list[NamedRecord]]:
    return {why: [*one.get(why, []), *other.get(why, [])] for why in [*one, *(w for w in other if w not in one)]}


def _own(task: str, why: str, found: Contest, anchors: set[str], resamples: int) -> Own:
    """Returns a board of records that are compared with each other alone."""
    tasks, alone = _tasks({task: found}, resamples), RankedSuite((task,), declared=True)
    board = Board(
        models=_models({task: found}, anchors),
        tasks=tasks,
        suite=alone,
        overall=_overall(tasks, alone),
        left_out=(),
        set_aside=0,
    )
    return Own(why=plain(why, LONGEST_REASON), anchor=_anchor("own", task, anchors), board=board)


def _is_side_experiment(record: Recorded) -> bool:
    """Returns whether a record is of label efficiency, robustness or a mistake, which no ranking mixes in."""
    of_mistake = record.encoder.mistake is not None
    return record.task.train_fraction != 1 or bool(record.task.perturbation) or of_mistake


# -- Models --------------------------------------------------------------------------------------------


def _names(records: Sequence[Recorded]) -> list[str]:
    """Returns the name of each record's model: that of its card with what was set, and what tells it from others."""
    return names_of(records, [_full_name(record) for record in records])


def _full_name(record: Recorded) -> str:
    of = record.encoder
    name = full_name(plain(of.card.display_name, LONGEST_NAME) or "without a name", of.options or {})
    return plain(name, 2 * LONGEST_NAME) + (" (random weights)" if of.is_random else "")


def _models(contests: Mapping[str, Contest], taken: set[str]) -> tuple[Model, ...]:
    experiments = {task: found.experiments for task, found in contests.items()}
    names = {name for found in experiments.values() for name in found}
    models = []
    for name in sorted(names, key=lambda name: (name.casefold(), name)):
        entries = {task: found[name] for task, found in experiments.items() if name in found}
        card = next(iter(entries.values())).record.encoder.card
        models.append(Model(name=name, anchor=_anchor("model", name, taken), card=card, entries=entries))
    return tuple(models)


def _anchor(kind: str, name: str, taken: set[str]) -> str:
    """Returns an address that no other has, of letters, digits and hyphens."""
    base = f"{kind}-{re.sub(r'[^a-z0-9]+', '-', name.casefold()).strip('-') or 'x'}"
    anchor, number = base, 2
    while anchor in taken:
        anchor, number = f"{base}-{number}", number + 1
    taken.add(anchor)
    return anchor


# -- Tasks ---------------------------------------------------------------------------------------------


def _tasks(contests: Mapping[str, Contest], resamples: int, *, with_paper: bool = False) -> tuple[Task, ...]:
    """Returns the tasks that have records, or are in the paper: segmentation first, and with records first."""
    installed = list_tasks()
    in_paper = {row.task for row in read_paper() if row.task != AVERAGE} if with_paper else set()
    found = []
    names = {*contests, *in_paper}
    for name in terminal.track(names, "statistics of tasks", len(names)):
        of_task = contests.get(name)
        records = {model: entry.record for model, entry in of_task.experiments.items()} if of_task else {}
        spec = spec_of(name)
        one = next(iter(records.values())).task if records else spec
        assert one is not None  # it has records, or is in the paper
        summaries = _summaries(records, resamples)
        metric = summaries["native"].metric if summaries else one.metric
        assert one.kind is not None  # a record that does not say it, or has no metric, has no number
        assert metric is not None
        task = Task(
            name=name,
            title=spec.display_name if spec else plain(name, LONGEST_NAME),
            family=one.kind,
            metric=metric,
            target_unit=one.unit,
            licence=spec.licence if spec else None,
            summaries=summaries,
            adaptor=adaptor_of(next(iter(records.values()))) if records else None,
            grid=of_task.grid if of_task else None,
            crossed=of_task.crossed if of_task else {},
        )
        place = installed.index(name) if spec else len(installed)
        found.append(((families().index(task.family), not records, place, name), task))
    return tuple(task for _, task in sorted(found, key=lambda pair: pair[0]))


def _summaries(records: Mapping[str, Recorded], resamples: int) -> dict[Protocol, TaskSummary]:
    if not records:
        return {}
    done: dict[str, TaskSummary] = {}
    for metric in ranked_metrics(next(iter(records.values()))).values():
        if metric not in done:
            inputs = from_records(list(records.values()), metric, names=list(records))
            done[metric] = summarise_task(inputs, resamples)
    return {protocol: done[metric] for protocol, metric in ranked_metrics(next(iter(records.values()))).items()}


def _overall(tasks: Sequence[Task], suite: RankedSuite) -> dict[tuple[str, Protocol], Mapping[str, OverallModel]]:
    found: dict[tuple[str, Protocol], Mapping[str, OverallModel]] = {}
    for family in families():
        members = [task for task in tasks if task.summaries and family in ("all", task.family)]
        for protocol in PROTOCOLS:
            summaries = [task.summaries[protocol] for task in members if task.name in suite.tasks]
            names = dict.fromkeys(model.name for task in members for model in task.summaries[protocol].models)
            found[family, protocol] = {model.name: model for model in summarise_tasks(summaries, list(names))}
    return found
