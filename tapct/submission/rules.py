"""What a submission must hold: each rule looks at one thing, and yields what is wrong with it."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from tapct import flags, kinds, numeric
from tapct.checks import Check, CheckStatus
from tapct.encoders.mistake_names import OPTION
from tapct.errors import RecordError, TapctError
from tapct.kinds import Kind
from tapct.leaderboard.official import why_own
from tapct.records import CASES_FILE, RECORD_FILE, CaseResult, Record, parquet, read_cases, to_table
from tapct.records.case import as_cases
from tapct.records.paths import without_folders
from tapct.submission import built
from tapct.submission.folder import README_FILE, Submission, files_of, head_name, plain_files, readme
from tapct.tasks import SPLITS, list_tasks, task_class

LOSS = "AverageLoss"
LOSS_TOLERANCE = 1e-5
"""Of a loss, which is summed in float32, as a share of it."""


@dataclass(frozen=True)
class Rule:
    """A rule.

    Attributes:
        name: What it looks at.
        look: Yields what is wrong with it.
        valid: What is so where nothing is wrong.
        fix: What to do about it.
        otherwise: What it is where something is wrong.
    """

    name: str
    look: Callable[[Submission], Iterator[str]]
    valid: str
    fix: str
    otherwise: CheckStatus = "fail"

    def check(self, submission: Submission) -> Check:
        """Returns what was found, the first of it and how much more there is."""
        try:
            wrong = list(self.look(submission))
        except TapctError as error:
            wrong = [str(error)]
        except Exception as error:  # noqa: BLE001 whatever a third-party record makes of a rule, it does not hold
            wrong = [f"it cannot be looked at ({type(error).__name__}: {error})"]
        if not wrong:
            return Check("ok", self.name, self.valid)
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        return Check(self.otherwise, self.name, f"{wrong[0]}{more}", self.fix)


def verify(submission: Submission, places: Mapping[str, str] | None = None) -> Iterator[Check]:
    """Yields the checks of a submission whose record could be read.

    Args:
        submission: The submission.
        places: Where encoders are that are not installed, by the names of their cards.
    """
    for rule in RULES:
        yield rule.check(submission)
    yield from built.checks(submission.record, places)
    known = submission.record.encoder.verification
    if known is not None and known.status != "none":
        yield Check("ok", "authors' code", f"by the word of who ran it: {known.text}")


# -- The folder --------------------------------------------------------------------------------------------


def _files(submission: Submission) -> Iterator[str]:
    there, wanted = dict(plain_files(submission.folder)), files_of(submission.record)
    yield from (f"{name!r} is not there" for name in sorted(wanted - set(there)))
    yield from (f"{name!r} is not part of a submission" for name in sorted(set(there) - wanted))


def _runs(submission: Submission) -> Iterator[str]:
    record = submission.record
    if not record.complete:
        yield f"it holds {len(record.runs)} of {record.runs_planned} runs"
    if record.older_protocol is not None:
        yield f"it is of an older protocol: {record.older_protocol}"
    for place, run in enumerate(record.runs):
        if run.run != place:
            yield f"run {place} is missing"
        if record.probe.seed is not None and run.seed != record.probe.seed + run.run:
            yield f"run {run.run} has the seed {run.seed}, and should have {record.probe.seed + run.run}"
        if "test" not in run.cases:
            yield f"run {run.run} reports no test cases"


def _standing(submission: Submission) -> Iterator[str]:
    record = submission.record
    if (why := why_own(record)) is not None:
        yield f"it is not comparable with the shipped protocol: {why}"


def _input(submission: Submission) -> Iterator[str]:
    if (mistake := submission.record.encoder.mistake) is not None:
        yield f"its encoder was given a wrong input on purpose ({OPTION}={mistake}), which is never ranked"


def _notice(submission: Submission) -> Iterator[str]:
    record = submission.record
    if record.notice is not None:
        yield record.notice
    if record.feature_pack is not None:
        yield f"its features come from a pack ({record.feature_pack.sha256[:12]}), and not from scans"


def _table(submission: Submission) -> Iterator[str]:
    table, wanted = read_cases(submission.record, submission.folder), to_table(submission.record)
    if table.schema != wanted.schema:
        yield f"{CASES_FILE} has other columns than a table of cases"
    elif table.num_rows != wanted.num_rows:
        yield f"{CASES_FILE} has {table.num_rows:,} rows, and the record {wanted.num_rows:,}"
    else:
        names = [name for name in wanted.column_names if not table[name].equals(wanted[name])]
        yield from (f"{CASES_FILE} has another {name} than the record" for name in names)
    if submission.record.older_protocol is None:
        header = parquet.read_header(submission.folder / CASES_FILE, submission.folder / RECORD_FILE)
        if header is None:
            yield f"{CASES_FILE} was not made of this {RECORD_FILE}, or was written by an older release"
        elif header != (parquet.header_content(submission.record), submission.record.fingerprint):
            yield f"{CASES_FILE} says something else in its metadata than {RECORD_FILE}"


def _readme(submission: Submission) -> Iterator[str]:
    path = submission.folder / README_FILE
    if path.is_file() and path.read_text(encoding="utf-8", errors="replace") != readme(submission.record):
        yield f"{README_FILE} is not what the record says"


def _places(submission: Submission) -> Iterator[str]:
    content = submission.record.content()
    if without_folders(content) != content:
        yield "the record names a folder of somebody's machine"


# -- The numbers -------------------------------------------------------------------------------------------


def _metrics(submission: Submission) -> Iterator[str]:
    kind = _kind(submission.record)
    for run in submission.record.runs:
        for split, cases in run.cases.items():
            there, made = run.metrics.get(split, {}), expected_metrics(kind, cases)
            for name in [*made, *(name for name in there if name not in made)]:
                found, wanted = there.get(name), made.get(name)
                where = f"run {run.run}, {split}/{name}"
                if found is None or wanted is None:
                    if wanted is not None:
                        yield f"{where} is not there, and is {wanted:.6g} by its cases"
                    if found is not None:
                        yield f"{where} is {found:.6g}, which its cases do not give"
                elif not _agree(name, found, wanted):
                    yield f"{where} is {found:.6g}, and {wanted:.6g} by its cases"


def _agree(name: str, found: float, wanted: float) -> bool:
    if name == LOSS:
        return abs(found - wanted) <= LOSS_TOLERANCE * max(1, abs(wanted))
    return bool(numeric.equal(found, wanted))


def expected_metrics(kind: Kind, cases: Sequence[CaseResult]) -> dict[str, float]:
    """Returns the metrics of a split by its cases, as a run logs them: those that are defined."""
    return {LOSS: math.fsum(case.loss for case in cases) / len(cases), **kind.numbers(as_cases(kind, cases))}


def _kind(record: Record) -> Kind:
    if record.task.kind is None:
        raise RecordError("the record does not say of what kind its task is")
    return kinds.kind(record.task.kind)


def _cases(submission: Submission) -> Iterator[str]:
    """Yields what cannot be of a case by itself, and what differs between runs though no seed decides it."""
    record, kind = submission.record, _kind(submission.record)
    first = {(split, case.case): case for split, cases in record.runs[0].cases.items() for case in cases}
    for run in record.runs:
        seen = {(split, case.case): case for split, cases in run.cases.items() for case in cases}
        if list(seen) != list(first):
            yield f"runs 0 and {run.run} are of other cases, or in another order"
        for (split, name), case in seen.items():
            where = f"run {run.run}, {split} case {name}"
            yield from (f"{where}: {wrong}" for wrong in _wrong_with(case, kind, record.task.classes))
            if (other := first.get((split, name))) is not None and _given(case, kind) != _given(other, kind):
                yield f"{where} has another patient, reference or size than in run 0"


def _given(case: CaseResult, kind: Kind) -> tuple[object, ...]:
    given = tuple((case.outcome or {}).get(field.name) for field in kind.given)
    return case.patient, case.target, case.reference_voxels, case.voxels, case.padding_voxels, given


def _wrong_with(case: CaseResult, kind: Kind, classes: Sequence[str]) -> Iterator[str]:
    doubts = list(kind.doubts(case, classes))
    yield from doubts
    if not doubts and kind.loss is not None:
        loss = kind.loss(case.by_field)
        if abs(case.loss - loss) > LOSS_TOLERANCE * max(1, case.loss):
            yield f"its loss is {case.loss:.6g}, and {loss:.6g} by its {'outcome' if kind.outcome else 'logits'}"


def _task(submission: Submission) -> Iterator[str]:
    of = submission.record.task
    if of.name not in list_tasks():
        yield f"there is no task '{of.name}' here"
        return
    dataset = task_class(of.name)
    spec = dataset.spec
    table = dataset.shipped_split()
    pairs = {
        "version": (of.version, spec.version),
        "kind": (of.kind, spec.kind),
        "unit": (of.unit, spec.unit),
        "metric": (of.metric, spec.metric),
        "classes": (tuple(of.classes), tuple(spec.classes)),
        "split": (of.split, dataset.split_rule)
        if dataset.split_rule is not None
        else (of.split_sha256, dataset.shipped_split_sha256()),
        "notice": (submission.record.notice, spec.notice),
    }
    for what, (found, wanted) in pairs.items():
        if found != wanted:
            yield f"its {what} is {_shown(found)}, and that of {of.name} {_shown(wanted)}"
    known = dataset.split_counts()
    counts: dict[str, int] = {**of.cases} if known is None else dict(zip(SPLITS, known, strict=True))
    cases_of: dict[str, dict[str, str]] = {split: dict(cases) for split, cases in table.cases.items()} if table else {}
    for run in submission.record.runs:
        for split, cases in run.cases.items():
            if len(cases) != counts[split]:
                yield f"run {run.run} reports {len(cases)} '{split}' cases, and the split has {counts[split]}"
            elif table is not None and {c.case: c.patient for c in cases} != cases_of[split]:
                yield f"run {run.run} reports other '{split}' cases or patients than the split has"


def _shown(value: object) -> str:
    text = str(value)
    return f"{text[:60]}..." if len(text) > 60 else text


def _heads(submission: Submission) -> Iterator[str]:
    record = submission.record
    for run in record.runs:
        try:
            state = submission.head(run)
        except RecordError as error:
            yield str(error)
            continue
        if not all(bool(torch.isfinite(tensor.double()).all()) for tensor in state.values()):
            yield f"{head_name(run)} holds values that are not finite"
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if wrong := _kind(record).head_fault(shapes, len(record.task.classes), record.encoder.card.feature_dim):
            yield f"{head_name(run)} {wrong}"


def _flags(submission: Submission) -> Iterator[str]:
    there = {flag.id for flag in submission.record.flags}
    missing = dict.fromkeys(flag.id for flag in flags.own_flags(submission.record) if flag.id not in there)
    yield from (f"the flag {flag} was taken off" for flag in missing)


_AGAIN = "put the submission together again: `tapct submit RECORD -o DIR`"
_EXPERIMENT = "run the experiment again with the shipped config, and submit its record as it is"

RULES = (
    Rule("files", _files, "record, table, heads and page, nothing else", _AGAIN),
    Rule("runs", _runs, "every planned run is there, with its seed", _EXPERIMENT),
    Rule("protocol", _standing, "comparable with the shipped protocol", _EXPERIMENT),
    Rule("input", _input, "no mistake was made with the input on purpose", "run the experiment without --mistakes"),
    Rule("notice", _notice, "no demonstration, own features", "it is never ranked among others", "warn"),
    Rule("table", _table, "the cases are those of the record", _AGAIN),
    Rule("metrics", _metrics, "every metric is that of its cases", _EXPERIMENT),
    Rule("cases", _cases, "what each case says can be true", _EXPERIMENT),
    Rule("task", _task, "task, split and cases are the shipped ones", _EXPERIMENT),
    Rule("heads", _heads, "each head is the one that its run reports", _AGAIN),
    Rule("flags", _flags, "no flag was taken off", _AGAIN),
    Rule("paths", _places, "no folder of a machine is named", _AGAIN),
    Rule("page", _readme, "it says what the record says", _AGAIN),
)
