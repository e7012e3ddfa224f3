"""A submitted result goes round; each kind of lie about it is found, by the check that should find it."""

import functools
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import yaml

from tapct.checks import Check
from tapct.encoders import registry
from tapct.encoders.weights import content_sha256
from tapct.errors import RecordError
from tapct.kinds import kind
from tapct.probes.predictions import LocatedRecord
from tapct.records import CASES_FILE, RECORD_FILE, CaseResult, parquet, read_record, read_records, write_record
from tapct.submission import built, commands, rules
from tapct.submission.folder import README_FILE, Submission, submissions_below, submit
from tapct.submission.rules import expected_metrics
from tests.records.test_hostile import HOSTILE, ODD, hostile
from tests.submission.made import CLASSIFICATION, ENTRY_POINTS, SEGMENTATION, lie, session


@pytest.fixture(scope="module", autouse=True)
def _encoders():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "entry_points", lambda group: ENTRY_POINTS)
        yield


@pytest.fixture(scope="module")
def made_once(tmp_path_factory) -> Callable[[str], Path]:
    """Makes a session on a task and the submission of it, once for all tests, in whatever order they come."""

    @functools.cache
    def make(task: str) -> Path:
        folder = tmp_path_factory.mktemp(task)
        return submit(LocatedRecord.at(session(folder / "session", task)), folder / "results", demonstration=False)

    return make


@pytest.fixture(params=[SEGMENTATION, CLASSIFICATION])
def made(request, made_once) -> Path:
    """A submission on either kind of task, next to its session; no test changes it."""
    return made_once(request.param)


@pytest.fixture
def submission(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / made.parent.name / made.name))


def looked_at(folder: Path, check: str) -> Check:
    """What one check says, by itself."""
    try:
        submission = Submission.read(folder)
    except RecordError as error:
        return Check("fail", "record", str(error), "fix it")
    if check == "encoder":
        return next(built.checks(submission.record))
    rule = next(rule for rule in rules.RULES if rule.name == check)
    return rule.check(submission)


def found(folder: Path, capsys) -> dict[str, str]:
    """The status of each check, by its name."""
    status = commands.verify([str(folder)], json=True)
    (checks,) = json.loads(capsys.readouterr().out).values()
    assert status == int(any(check["status"] == "fail" for check in checks))
    assert all(check["fix"] for check in checks if check["status"] == "fail")
    return {check["name"]: check["status"] for check in checks}


def test_a_submission_goes_round(made, capsys):
    assert set(found(made, capsys).values()) == {"ok"}
    results = made.parents[1]
    assert list(read_records(results).valid) == [made / RECORD_FILE], "a board is made of it as it is"
    assert commands.verify([str(results), str(made)]) == 0
    assert "1 of 1 submissions hold" in capsys.readouterr().out


def test_a_wrong_input_is_not_submitted(made, tmp_path):
    found = LocatedRecord.at(made.parents[2] / "session" / RECORD_FILE)
    encoder = found.record.encoder.model_copy(update={"options": {"mistake": "mirrored"}})
    wrong = replace(found, record=found.record.model_copy(update={"encoder": encoder}))
    with pytest.raises(RecordError, match="wrong input on purpose"):
        submit(wrong, tmp_path, demonstration=True)


def test_what_is_submitted_is_what_was_recorded(made):
    assert read_record(made / RECORD_FILE).runs == read_record(made.parents[2] / "session" / RECORD_FILE).runs
    names = sorted(p.relative_to(made).as_posix() for p in made.rglob("*") if p.is_file())
    assert names == [README_FILE, CASES_FILE, RECORD_FILE, *(f"run_{k}/head.safetensors" for k in range(3))]
    assert "75,648" in (made / README_FILE).read_text()


# -- Lies --------------------------------------------------------------------------------------------------


def _first(content, run=0):
    return content["runs"][run]["cases"]["test"][0]


def _number(content):
    """Changes what is ranked of one case, and nothing that follows from it."""
    case = _first(content)
    if case.get("dice"):
        name = next(name for name, value in case["dice"]["native"].items() if value)
        case["dice"]["native"][name] = 0.5 * case["dice"]["native"][name] + 0.5
    else:
        name = next(iter(case["logits"]))
        case["logits"][name], case["probabilities"][name] = 0.0, 0.5


def _metric(content):
    metrics = content["runs"][1]["metrics"]["test"]
    name = next(name for name in ("dice_native", "MicroAUROC") if name in metrics)
    metrics[name] += 0.01


def _metric_that_is_gone(content):
    metrics = content["runs"][2]["metrics"]["test"]
    metrics.pop("hd95_mm_native_one_sided", None) or metrics.pop("MacroAP", None)


def _swapped_in_a_run(content):
    cases = content["runs"][1]["cases"]["test"]
    for key in ("case", "patient"):
        cases[0][key], cases[-1][key] = cases[-1][key], cases[0][key]


def _swapped_names(content):
    for run in content["runs"]:
        cases = run["cases"]["test"]
        cases[0]["case"], cases[-1]["case"] = cases[-1]["case"], cases[0]["case"]


def _other_case(content):
    for run in content["runs"]:
        run["cases"]["test"][0]["case"] = "a case of mine"


def _fewer_cases(content):
    for run in content["runs"]:
        del run["cases"]["test"][0]


def _reference(content):
    case = _first(content, run=2)
    of = case.get("target") or case["reference_voxels"]
    name = next(iter(of))
    of[name] = 1 - of[name] if case.get("target") else of[name] + 1


def _without_the_last_run(content):
    del content["runs"][2]
    content["runs_planned"] = 2


def _without_a_middle_run(content):
    del content["runs"][1]
    content["runs_planned"] = 2


def _card(**changes):
    return lambda content: content["encoder"]["card"].update(changes)


def _another_name(content):
    content["encoder"]["card"]["name"] = "mine"


def _another_name_and_class(content):
    content["encoder"]["card"] |= {"name": "mine", "display_name": "Mine"}
    content["encoder"]["identity"]["class"] = "mine.Mine"


def _a_known_name(content):
    content["encoder"]["card"]["display_name"] = "Another"


def _pack(content):
    content["feature_pack"] = {"sha256": "0" * 64, "made_with": "1", "has_targets": True}


def _mistake(content):
    content["encoder"]["options"] = {"mistake": "mirrored"}


def _hidden_mistake(content):
    content["encoder"]["identity"]["settings"]["mistake"] = "mirrored"


LIES = {
    "a wrong input": (_mistake, "input"),
    "a wrong input that its options hide": (_hidden_mistake, "input"),
    "a number of a case": (_number, "metrics"),
    "a metric": (_metric, "metrics"),
    "a metric that is left out": (_metric_that_is_gone, "metrics"),
    "cases swapped in one run": (_swapped_in_a_run, "cases"),
    "cases swapped in all runs": (_swapped_names, "task"),
    "a case of another split": (_other_case, "task"),
    "a case left out": (_fewer_cases, "task"),
    "another reference in one run": (_reference, "cases"),
    "another split": (lambda c: c["task"].update(split_sha256="0" * 64), "task"),
    "another version of the task": (lambda c: c["task"].update(version=7), "task"),
    "the last run deleted": (_without_the_last_run, "protocol"),
    "a middle run deleted": (_without_a_middle_run, "runs"),
    "a run left out of the plan": (lambda c: c["runs"].pop(), "runs"),
    "another seed": (lambda c: c["runs"][1].update(seed=99), "runs"),
    "parameters of the card": (_card(num_params=1000), "encoder"),
    "parameters that were counted": (lambda c: c["encoder"].update(parameters=1000), "encoder"),
    "channels": (_card(feature_dim=768), "encoder"),
    "stride": (_card(feature_stride=[2, 8, 8]), "encoder"),
    "no class token": (_card(has_cls=False), "encoder"),
    "length of the embedding": (_card(embedding_dim=12), "encoder"),
    "a window that cannot be": (_card(window_size=[7, 64, 64]), "encoder"),
    "what it was pretrained on": (_card(pretraining_data=[]), "encoder"),
    "another name": (_another_name, "encoder"),
    "the display name of another": (_a_known_name, "encoder"),
    "a place on a machine": (lambda c: c["encoder"].update(weights="/home/me/weights.pt"), "paths"),
    "a range": (lambda c: _first(c).update(loss=None), "record"),
    "a flag that was taken off": (_pack, "flags"),
}


ABOUT_THE_ENCODER = [what for what, (_, check) in LIES.items() if check == "encoder"]


ABOUT_A_KIND = ("a number of a case", "a metric", "a metric that is left out", "another reference in one run")


def of_each_kind(names: Sequence[str]) -> list:
    """Each name on either kind of task; by default on both where what it changes is of a kind."""
    of_any = [
        pytest.param(CLASSIFICATION, name, marks=() if name in ABOUT_A_KIND else pytest.mark.thorough) for name in names
    ]
    return [*((SEGMENTATION, name) for name in names), *of_any]


@pytest.mark.parametrize(
    ("made", "what"), of_each_kind([what for what in LIES if what not in ABOUT_THE_ENCODER]), indirect=["made"]
)
def test_a_lie_in_the_record_is_found_also_where_it_is_signed(what, submission):
    answer = told(submission, what)
    assert (answer.name, answer.status) == (LIES[what][1], "fail"), answer
    assert answer.fix


@pytest.mark.parametrize("made", [SEGMENTATION], indirect=True)
@pytest.mark.parametrize("what", ABOUT_THE_ENCODER)
def test_a_lie_about_the_encoder_is_found_in_the_network(what, submission):
    answer = told(submission, what)
    assert (answer.name, answer.status) == ("encoder", "fail"), answer
    assert answer.fix


def told(submission: Path, what: str) -> Check:
    """Tells a lie, and returns what the check that should find it says."""
    change, check = LIES[what]
    lie(submission, change)
    return looked_at(submission, check)


def _edited_record(folder):
    path = folder / RECORD_FILE
    path.write_text(path.read_text().replace('"loss": ', '"loss": 1', 1))


def _edited_table(folder):
    path = folder / CASES_FILE
    table = pq.read_table(path)
    place = table.column_names.index("loss")
    pq.write_table(table.set_column(place, table.schema.field("loss"), pc.multiply(table["loss"], 0.5)), path)


def _table_of_another(folder):
    table = pq.read_table(folder / CASES_FILE)
    pq.write_table(table.replace_schema_metadata({"tapct.fingerprint": "0" * 64}), folder / CASES_FILE)


def _table_that_says_another_name(folder):
    """The board reads what the table says of the record; a liar signs it as well."""
    record = read_record(folder / RECORD_FILE)
    header = parquet.header_content(record)
    header["encoder"]["card"]["display_name"] = "Another"
    sha256 = hashlib.sha256((folder / RECORD_FILE).read_bytes()).hexdigest()
    (folder / CASES_FILE).write_bytes(parquet.packed(record.table(), header, sha256))


def _head_of_another_run(folder):
    shutil.copyfile(folder / "run_1" / "head.safetensors", folder / "run_0" / "head.safetensors")


def _head_of_another_task(folder):
    path = folder / "run_0" / "head.safetensors"
    state = safetensors.torch.load_file(path)
    other = {"weight": state["weight"][:, :10].contiguous(), "bias": state["bias"]}
    path.unlink()
    safetensors.torch.save_file(other, path)
    lie(folder, lambda content: content["runs"][0].update(probe_sha256=content_sha256(other)))


def _link(folder):
    (folder / "run_0" / "head.safetensors").unlink()
    (folder / "run_0" / "head.safetensors").symlink_to("/etc/hostname")


FILES = {
    "a record that was edited": (_edited_record, "record"),
    "no record that can be read": (lambda f: (f / RECORD_FILE).write_text("{}"), "record"),
    "a table that was edited": (_edited_table, "table"),
    "the table of another record": (_table_of_another, "table"),
    "a table that says another name": (_table_that_says_another_name, "table"),
    "no table": (lambda f: (f / CASES_FILE).write_text("hello"), "table"),
    "a page that was edited": (lambda f: (f / README_FILE).write_text("# State of the art"), "page"),
    "the head of another run": (_head_of_another_run, "heads"),
    "no head": (lambda f: (f / "run_2" / "head.safetensors").unlink(), "files"),
    "a head that is none": (lambda f: (f / "run_2" / "head.safetensors").write_text("hello"), "heads"),
    "one more file": (lambda f: (f / "run_2" / "notes.txt").write_text("hello"), "files"),
    "a link": (_link, "files"),
}


@pytest.mark.parametrize(("made", "what"), of_each_kind(list(FILES)), indirect=["made"])
def test_a_file_that_is_not_what_the_record_says_is_found(what, submission):
    spoil, check = FILES[what]
    spoil(submission)
    answer = looked_at(submission, check)
    assert (answer.name, answer.status) == (check, "fail"), answer


def test_a_head_of_other_channels_is_found(submission):
    if submission.parent.name == SEGMENTATION:
        _head_of_another_task(submission)
        assert "48 channels" in looked_at(submission, "heads").message


def test_what_is_no_lie_but_should_be_known_is_a_warning(submission):
    lie(submission, _another_name_and_class)
    answer = looked_at(submission, "encoder")
    assert answer.status == "warn"
    assert "not checked: mine is not installed" in answer.message
    lie(submission, _pack)
    assert "come from a pack" in looked_at(submission, "notice").message


def test_a_consistent_lie_about_cases_holds_until_scans_are_encoded_again(submission, capsys):
    """The fingerprint is not a signature: whoever can change a number can compute it anew."""

    def better(content):
        for run in content["runs"]:
            for case in run["cases"]["test"]:
                if case.get("dice"):
                    for row in (*case["dice"].values(), case["nsd"]):
                        row |= {name: value and value**0.5 for name, value in row.items()}
            cases = [CaseResult.model_validate(case) for case in run["cases"]["test"]]
            run["metrics"]["test"] |= expected_metrics(kind(content["task"]["kind"]), cases)

    before = read_record(submission / RECORD_FILE).runs[0].metrics["test"]
    lie(submission, better)
    assert set(found(submission, capsys).values()) == {"ok"}
    after = read_record(submission / RECORD_FILE).runs[0].metrics["test"]
    if submission.parent.name == SEGMENTATION:
        assert after["dice_native"] > before["dice_native"] + 0.1


@pytest.mark.parametrize("name", [*HOSTILE, *ODD])
def test_whatever_a_third_party_sends_is_answered(name, tmp_path, capsys):
    (tmp_path / RECORD_FILE).write_bytes(ODD[name]() if name in ODD else hostile(name))
    statuses = found(tmp_path, capsys)
    assert "fail" in statuses.values()
    assert name in ODD or statuses["record"] == "fail"


# -- Submitting --------------------------------------------------------------------------------------------


def test_what_cannot_be_submitted_is_refused_and_leaves_nothing(tmp_path):
    path = session(tmp_path / "session", SEGMENTATION)
    record = read_record(path)
    shutil.copytree(tmp_path / "session", tmp_path / "half")
    (tmp_path / "half" / RECORD_FILE).unlink()
    write_record(record.model_copy(update={"runs_planned": 5}), tmp_path / "half")
    with pytest.raises(RecordError, match="3 of 5 runs"):
        submit(LocatedRecord.at(tmp_path / "half"), tmp_path / "out", demonstration=False)
    shutil.copytree(tmp_path / "session", tmp_path / "shown")
    (tmp_path / "shown" / RECORD_FILE).unlink()
    write_record(record.model_copy(update={"notice": "A demonstration."}), tmp_path / "shown")
    with pytest.raises(RecordError, match="not a result for a board: A demonstration"):
        submit(LocatedRecord.at(tmp_path / "shown"), tmp_path / "out", demonstration=False)
    (tmp_path / "session" / "run_1" / "head.safetensors").unlink()
    with pytest.raises(RecordError, match="head of run 1 is not at"):
        submit(LocatedRecord.at(path), tmp_path / "out", demonstration=False)
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]


def test_a_result_that_verify_would_refuse_is_not_put_together(tmp_path, capsys):
    path = session(tmp_path / "session", SEGMENTATION)
    record = read_record(path)
    path.unlink()
    foreign = record.task.model_copy(update={"split_sha256": "0" * 64})
    write_record(record.model_copy(update={"task": foreign}), path.parent)
    assert commands.submit(str(path), out=str(tmp_path / "out")) == 1
    assert "Nothing was written" in capsys.readouterr().out
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]


def test_submit_says_what_to_do_next_and_takes_places_of_a_machine_out(tmp_path, capsys):
    path = session(tmp_path / "session", SEGMENTATION)
    record = read_record(path)
    path.unlink()
    somewhere = record.encoder.model_copy(update={"weights": "/home/me/checkpoints/best.pt"})
    write_record(record.model_copy(update={"encoder": somewhere}), path.parent)
    assert commands.submit(str(path), out=str(tmp_path / "out")) == 0
    (place,) = submissions_below(tmp_path / "out")
    assert "/home" not in (place / RECORD_FILE).read_text() + (place / README_FILE).read_text()
    assert "best.pt" in (place / README_FILE).read_text()
    assert "tapct verify" in capsys.readouterr().out


def test_a_submission_of_evas_backbone_has_a_folder_that_every_file_system_takes(tmp_path):
    path = session(tmp_path / "session", SEGMENTATION)
    record = read_record(path)
    path.unlink()
    card = record.encoder.card.model_copy(update={"name": "eva:radiology/voco_l"})
    encoder = record.encoder.model_copy(update={"card": card})
    write_record(record.model_copy(update={"encoder": encoder}), path.parent)
    place = submit(LocatedRecord.at(path), tmp_path / "out", demonstration=False)
    assert place.relative_to(tmp_path / "out" / record.task.name).parts == (f"eva~radiology~voco_l-{place.name[-12:]}",)


def test_a_folder_without_submissions_is_an_error(tmp_path):
    with pytest.raises(RecordError, match="no submission"):
        commands.verify([str(tmp_path)])


def test_the_workflow_verifies_what_a_pull_request_changes_and_needs_no_right(tmp_path):
    workflow = yaml.safe_load((Path(__file__).parents[2] / "docs" / "verify-submission.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    assert "pull_request" in workflow[True], "and not pull_request_target, which has secrets"  # YAML reads on as true
    script = workflow["jobs"]["verify"]["steps"][-1]["run"]

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout.strip()

    def changed(*names: str) -> str:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(name)
        git("add", "-A")
        git("commit", "-q", "--allow-empty", "-m", "m")
        return git("rev-parse", "HEAD")

    def run(base: str) -> subprocess.CompletedProcess:
        environment = {**os.environ, "BASE": base, "TAPCT": "echo"}
        return subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", check=False
        )

    git("init", "-q")
    base = changed("results/a/old/record.json", "results/a/gone/record.json")
    assert "only removed" in run(base).stdout
    git("rm", "-q", "-r", "results/a/gone")
    changed("results/a/it is new/record.json", "results/a/it is new/run_0/head.safetensors")
    assert run(base).stdout.strip() == "verify results/a/it is new"
    changed("results/record.json")
    stray = run(base)
    assert stray.returncode == 1
    assert "is in no folder" in stray.stdout
