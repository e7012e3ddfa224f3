"""What encoders have in common, as `tapct compare --results` left it next to the records of a task."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tapct.errors import RecordError
from tapct.leaderboard.text import LONGEST_NAME, plain
from tapct.similarity import found
from tapct.similarity.found import Similarity

FILE = "similarity.csv"


def found_in(results: Sequence[Path], tasks: Sequence[str]) -> tuple[dict[str, Similarity], list[str]]:
    """Returns what there is of the tasks of a board, and what cannot be shown, with the reason.

    Args:
        results: The results folders.
        tasks: Names of the board's tasks.
    """
    there: dict[str, Similarity] = {}
    left_out = []
    for path in sorted(path for folder in dict.fromkeys(results) for path in folder.glob(f"*/{found.FILE}")):
        shown = plain("/".join(path.parts[-3:]))
        try:
            one = found.read(path)
        except RecordError as error:
            left_out.append(plain(str(error).replace(str(path), shown)))
            continue
        if one.task not in tasks:
            left_out.append(f"{shown}: the task has no comparable record")
        elif one.task in there:
            left_out.append(f"{shown}: another folder has one of the same task")
        else:
            there[one.task] = one
    return there, left_out


def as_rows(alike: Mapping[str, Similarity]) -> list[dict[str, Any]]:
    """Returns a line a task and pair of encoders, for CSV."""
    rows = []
    for task, one in sorted(alike.items()):
        titles = {each.label: plain(each.title, LONGEST_NAME) for each in one.encoders}
        rows += [
            {
                "task": task,
                "first": titles[pair.first],
                "second": titles[pair.second],
                "cka": pair.cka,
                "cka_biased": pair.cka_biased,
                "neighbours_in_common": pair.neighbours,
                "neighbours": one.neighbours,
                "by_chance": one.by_chance,
                "same_model": pair.is_same,
                "cases": one.cases,
                "patients": one.patients,
            }
            for pair in one.pairs
        ]
    return rows
