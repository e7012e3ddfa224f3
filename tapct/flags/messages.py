"""The flags: their ids, what each means, and what to check."""

from collections.abc import Iterator

from tapct.records import CaseResult, Flag, RunRecord

ONE_PATIENT = (
    "all cases are of one patient, and what is said of a patient stays together: there is nobody to deal it to"
)
"""Why a record cannot be told from chance."""

MESSAGES = {
    "chance-level": "What knows nothing of the cases does as well. Check the labels, the learning rates "
    "and that the encoder sees what it was trained on (unit, orientation, window)",
    "too-few-to-tell": "The number fits guessing and a weak model alike: there are too few patients, or too few of a "
    "class. Read it with its interval",
    "constant-features": "Channels that are the same everywhere tell nothing. Check the encoder's preprocessing and "
    "that its weights were loaded",
    "repeated-features": "Different cases have the same features, to the bit. Check that the encoder reads its input, "
    "and the data for copies",
    "non-finite-features": "The head saw NaN or infinite values. Check the encoder's precision and its preprocessing",
    "cases-missing": "The reported numbers are of fewer cases than the split has, and do not compare. Check what was "
    "left out",
    "metric-on-fewer-cases": "A metric is undefined for some cases and is the mean of the others only. Read it with "
    "the number of cases next to it",
    "undefined-labels": "Labels without both a positive and a negative case are left out of the means over labels. "
    "Check the split",
    "constant-predictions": "The same is predicted of every case. Check the features, and that the penalty or the "
    "training leaves anything of them",
    "another-reader": "The reader of reports finds others in them than the labels of the release say, which its own "
    "reader made. Check the file of its weights, and its tokenizer",
    "seeds-without-effect": "Runs of different seeds gave the same numbers, to the bit. Check that the seed reaches "
    "the head, and that the head trains",
    "loss-never-fell": "The training loss ended no lower than it began. Check the learning rates and the features",
    "not-converged": "The training loss was still falling at the end, or a head was not solved: more steps would "
    "change the numbers. Raise max_steps, or the learning rates",
    "head-unchanged": "The head that is reported has the weights that it started from. Check the learning rates, and "
    "that there were steps",
    "zero-head": "All weights of the head are zero: it predicts from its bias alone. Check the weight decay and the "
    "features",
    "best-at-first-look": "Every run did best at the first evaluation at the selection cases, so that training on made "
    "it worse. Check the learning rates",
    "learning-rate-at-edge": "Every run chose the lowest or the highest learning rate of the grid, so that the best "
    "one may lie beyond it. Widen the grid",
    "penalty-at-edge": "Every run chose the weakest or the strongest penalty of the grid. At the strongest, the head "
    "says nothing of the features. Check that they hold anything that carries over from patient to patient",
    "equal-to-another-encoder": "Another encoder's experiment has the same numbers or the same head, to the bit. Check "
    "that the experiment ran the encoder that it names",
    "setting-without-effect": "An experiment of other settings has the same numbers or the same head, to the bit, "
    "though the settings must matter. Check that they reached the run",
    "features-from-pack": "Nobody extracted these features from scans here: what the record says of encoder and cases "
    "is what the pack's maker says. Check who made it, and compare with an experiment that was run on the scans",
    "no-better-than-random-weights": "The same network with random weights cannot be told from it, or is better. Check "
    "that the weights were loaded, and the preprocessing",
    "check-failed": "A check could not be made, and says nothing of the record. Please report it with the record",
}
"""Every flag: its id, which stays the same, and what it means and what to check."""

CROSS = frozenset({"equal-to-another-encoder", "setting-without-effect", "no-better-than-random-weights"})
"""Flags that show only next to other experiments."""

RaisedFlags = Iterator[tuple[str, str]]
"""Ids of flags, and what was found."""


def flag(name: str, detail: str) -> Flag:
    """Returns a flag."""
    return Flag(id=name, message=MESSAGES[name], detail=detail)


def reported(run: RunRecord) -> list[CaseResult]:
    """Returns the cases that a run reports."""
    return run.cases.get("test") or run.cases.get("val") or []
