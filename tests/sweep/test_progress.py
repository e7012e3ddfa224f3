"""How far an experiment has come, as whoever sees its folder is told."""

import io
import json
import os
import time

import pytest

from tapct._utils import progress, terminal
from tapct.sweep import commands, matrix
from tapct.sweep.lock import attempt
from tapct.sweep.progress import PROGRESS_FILE, Reports, progress_of, span
from tapct.sweep.state import State, state_of
from tests.features.processes import Child


class Clock:
    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "results" / "amos22" / "curia"


@pytest.fixture
def clock() -> Clock:
    return Clock()


def reports(folder, clock, number: int = 1) -> Reports:
    return Reports(folder, number, {"trainer.init_args.max_steps": "10"}, clock=clock, now=lambda: 1e9 + clock.s)


def test_the_time_left_is_that_of_what_was_done_since_it_began(folder, clock):
    report = reports(folder, clock)
    report("step", 500, 1000)  # resumed
    assert progress_of(folder, 1).left_s is None
    clock.s += 30
    report("step", 600, 1000)
    found = progress_of(folder, 1)
    assert (found.count, found.left_s) == ("step 600/1000", pytest.approx(120))
    assert found.in_words(now=found.at + 5) == "step 600/1000, 2 min left of it (5 s ago)"
    report("testing, case", 0, 7)
    clock.s += 10
    report("testing, case", 7, 7)
    assert progress_of(folder, 1).in_words(now=0) == "testing, case 7/7 (0 s ago)", "a clock that is behind is no age"
    report("testing, case", 0, 7)  # of another run
    clock.s += 2
    report("testing, case", 1, 7)
    assert progress_of(folder, 1).left_s == pytest.approx(12)


def test_it_is_written_once_a_second_and_at_the_beginning_and_end_of_each_work(folder, clock):
    report, seen = reports(folder, clock), []
    for done in range(6):
        report("step", done, 5)
        seen.append(progress_of(folder, 1).done)
        clock.s += 0.4
    assert seen == [0, 0, 0, 3, 3, 5]
    report("extracting", 0, 9)
    assert progress_of(folder, 1).count == "extracting 0/9"


def test_a_folder_that_cannot_be_written_is_said_once_and_ends_nothing(folder, clock, capsys):
    folder.parent.mkdir(parents=True)
    folder.write_text("a file")
    report = reports(folder, clock)
    report("step", 0, 5)
    report("step", 5, 5)
    assert capsys.readouterr().out.count("progress is not shown") == 1


def test_whatever_shows_a_bar_reports(capsys):
    told = []
    with progress.told_to(lambda *one: told.append(one)):
        assert list(terminal.track(iter("abc"), "checking", total=3)) == ["a", "b", "c"]
    assert told[0] == ("checking", 0, 3)
    assert told[-1] == ("checking", 3, 3)
    assert list(terminal.track("abc", "checking", total=3)) == ["a", "b", "c"]
    assert told[-1] == ("checking", 3, 3), "nobody listens any more"


def test_status_shows_it_with_its_age_while_the_attempt_runs(folder, clock):
    with attempt(folder) as held:
        assert state_of(folder).progress is None
        reports(folder, clock, held.number + 1)("step", 3, 10)
        assert state_of(folder).progress.done == 3
        reports(folder, clock, held.number - 1)("step", 3, 10)
        assert state_of(folder).progress is None, "of an attempt before this one"
        report = Reports(folder, held.number, {})
        report("extracting", 12, 180)
        state = state_of(folder)
        assert state.detail.startswith("extracting 12/180 (0 s ago); attempt 1 on ")
        for text in ("", "[]", '{"done": 1}', json.dumps({**vars(state.progress), "total": "many"})):
            (folder / PROGRESS_FILE).write_text(text)
            assert state_of(folder).progress is None


def test_what_a_killed_attempt_left_is_no_longer_taken_for_a_run(folder):
    def run(send):
        with attempt(folder) as held:
            Reports(folder, held.number, {})("step", 300, 1000)
            send(os.getpid())
            time.sleep(60)

    child = Child(run)
    child.receive()
    assert state_of(folder).status == "running"
    Child.kill_all()
    state = state_of(folder)
    assert state.status == "failed"
    assert state.detail.endswith("went down (it had come to step 300/1000)")


def test_the_whole_experiment_is_estimated_by_those_that_are_done(folder, clock):
    with attempt(folder) as held:
        Reports(folder, held.number, {"trainer.init_args.max_steps": "10"})("step", 1, 10)
        running = state_of(folder)

    def shown(steps: str) -> str:
        settings = {"trainer.init_args.max_steps": steps}
        done = State(label="ct-fm", task="amos22", status="done", wall_s=7200, settings=settings)
        return "".join(str(part) for part in matrix.table([done, running]).renderables[1:])

    assert "; about 2.0 h left in all, by what experiments like it took" in shown("10")
    assert "left in all" not in shown("20")


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (99, "99 s"), (100, "2 min"), (5999, "100 min"), (9000, "2.5 h")]
)
def test_spans_in_words(seconds, words):
    assert span(seconds) == words


def test_a_watched_table_that_is_taller_than_the_terminal_is_not_cut(tmp_path, monkeypatch):
    screen = terminal._Whole(file=io.StringIO(), force_terminal=True, width=80, height=6)
    monkeypatch.setattr(terminal, "output", lambda: screen)
    seen = []

    def wait(seconds: float) -> None:
        seen.append(screen.file.getvalue())
        if len(seen) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(commands.time, "sleep", wait)
    encoders = ("astra", "body-size", "chance", "colipri", "ct-clip", "ct-fm", "curia", "fmcib", "merlin", "voco-b")
    assert commands.status(results=str(tmp_path), encoders=",".join(encoders), tasks="amos22", watch=True) == 0
    assert all(f"{name} " in seen[1] for name in encoders)
    assert "10 to do" in seen[1]
