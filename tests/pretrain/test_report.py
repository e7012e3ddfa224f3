"""The page of a run, and its cost as the paper's Table 6 counts."""

import json
import subprocess
from html.parser import HTMLParser

import pytest
import torch

from pretrain.errors import PretrainError
from pretrain.observe import report
from pretrain.observe.monitor import Monitor, Pace, console_line, duration, effective_rank, read_events
from pretrain.report import main
from pretrain.training.run_folder import versions
from tapct.records import provenance
from tests.pretrain.runs import run_here

START = {
    "processes": 8,
    "device": "NVIDIA H100 80GB HBM3",
    "device_type": "cuda",
    "model": "ViT-b",
    "parameters": 87_083_520,
    "steps": 125_000,
    "samples_per_step": 2048,
    "volumes": 104_405,
}


def write(run, *lines: dict) -> None:
    run.mkdir(exist_ok=True)
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


class Checker(HTMLParser):
    """Collects the text, and the tags that could run something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.active, self.pictures = "", [], 0
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.pictures += tag == "svg"
        if tag == "script" or any(name.startswith("on") for name, _ in attrs):
            self.active.append(tag)

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize(
    ("hours", "mwh"), [(96, 0.067), (136, 0.095), (384, 0.269), (864, 0.605), (1152, 0.806), (3648, 2.550)]
)
def test_energy_is_that_of_table_6(hours, mwh):
    assert report.energy_mwh(hours) == pytest.approx(mwh, rel=0.006)  # the paper rounds


def test_gpu_hours_are_those_of_all_sessions_and_processes(tmp_path):
    write(
        tmp_path / "run",
        {"event": "start", "time_s": 0.0, "step": 0, **START},
        {"event": "metrics", "time_s": 3600.0, "step": 10, "loss": 9.0},
        {"event": "start", "time_s": 90_000.0, "step": 5, **START, "processes": 4},  # killed, and resumed with fewer
        {"event": "metrics", "time_s": 91_800.0, "step": 10, "loss": 8.0},
        {"event": "end", "time_s": 93_600.0, "step": 20, "reason": "finished"},
    )
    first, second = report.sessions_of(read_events(tmp_path / "run"))
    assert (first.device_hours, second.device_hours) == (8.0, 4.0)
    assert (first.ended, second.ended) == ("no word: killed, or still running", "finished")
    page = Checker(report.render(tmp_path / "run"))
    assert "12.00" in page.text
    assert "0.0084" in page.text
    assert "700 W" in page.text
    assert "not a measurement" in " ".join(page.text.split()).replace("not ameasurement", "not a measurement")
    assert "40,960 samples" in page.text


def test_a_clock_that_is_set_back_takes_no_hours(tmp_path):
    """An hour into each session the clock is set back. The first is of before there was another one."""
    write(
        tmp_path / "run",
        {"event": "start", "time_s": 100_000.0, "step": 0, **START},
        {"event": "metrics", "time_s": 103_600.0, "step": 1, "loss": 9.0},
        {"event": "metrics", "time_s": 50_000.0, "step": 2, "loss": 9.0},
        {"event": "metrics", "time_s": 51_800.0, "step": 3, "loss": 9.0},
        {"event": "start", "time_s": 36_000.0, "elapsed_s": 5.0, "step": 0, **START},
        {"event": "metrics", "time_s": 39_600.0, "elapsed_s": 3605.0, "step": 1, "loss": 9.0},
        {"event": "end", "time_s": 3_600.0, "elapsed_s": 7205.0, "step": 2, "reason": "finished"},
    )
    before, now = report.sessions_of(read_events(tmp_path / "run"))
    assert before.hours == pytest.approx(1.5), "at least so many"
    assert now.device_hours == pytest.approx(16.0)
    assert "28.00" in Checker(report.render(tmp_path / "run")).text


def test_events_tell_the_time_by_a_clock_that_only_goes_forward(tmp_path, monkeypatch):
    wall, steady = [1e9], [50.0]
    monkeypatch.setattr("time.time", lambda: wall[0])
    monkeypatch.setattr("time.monotonic", lambda: steady[0])
    monitor = Monitor(tmp_path)
    monitor.event("start", 0, **START)
    wall[0], steady[0] = 1e9 - 60_000, 50.0 + 1800
    monitor.event("end", 1, reason="finished")
    monkeypatch.undo()
    monitor.close()
    (session,) = report.sessions_of(read_events(tmp_path))
    assert session.hours == pytest.approx(0.5)


def test_of_a_step_that_came_twice_the_last_counts():
    events = [
        {"event": "metrics", "time_s": 0, "step": 1, "loss": 3.0},
        {"event": "metrics", "time_s": 1, "step": 2, "loss": 2.0},
        {"event": "metrics", "time_s": 2, "step": 2, "loss": 2.5, "mfu": None},
    ]
    assert report.series_of(events, "metrics") == {"loss": [(1, 3.0), (2, 2.5)]}


def test_the_page_of_a_real_run(store, tmp_path, capsys):
    assert run_here(store, tmp_path / "run", "--run.steps=4", "--run.micro_batches=1") == 0
    assert main([str(tmp_path / "run")]) == 0
    page = Checker((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    assert page.pictures >= 9
    assert page.active == []
    for words in ("Teacher entropy", "Effective rank", "Norm of the centres", "none: ran on a CPU", "base_lr:"):
        assert words in page.text
    assert "finished" in page.text


def test_what_a_run_says_cannot_run_in_the_page(tmp_path):
    evil = "<script>alert(1)</script>"
    write(
        tmp_path / "run",
        {"event": "start", "time_s": 0.0, "step": 0, **START, "device": evil, "model": evil},
        {"event": "metrics", "time_s": 1.0, "step": 1, "loss": 1.0, f"ibot{evil}": 1.0},
        {"event": "alarm", "time_s": 1.0, "step": 1, "message": evil},
        {"event": "end", "time_s": 2.0, "step": 1, "reason": evil},
    )
    (tmp_path / "run" / "config.yaml").write_text(evil, encoding="utf-8")
    assert Checker(report.render(tmp_path / "run")).active == []


def test_a_folder_without_a_run_is_named(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "is not the folder of a run" in capsys.readouterr().err


def test_half_a_line_is_left_out_and_then_removed(tmp_path):
    monitor = Monitor(tmp_path)
    monitor.event("start", 0, device="CPU")
    monitor.close()
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"event": "metrics", "st')
    assert [event["event"] for event in read_events(tmp_path)] == ["start"]
    monitor = Monitor(tmp_path)
    monitor.scalars("metrics", 1, {"loss": float("nan")})
    monitor.close()
    assert [(event["event"], event.get("loss")) for event in read_events(tmp_path)] == [
        ("start", None),
        ("metrics", None),
    ]


def test_a_line_in_the_middle_that_is_no_json_is_named(tmp_path):
    write(tmp_path, {"event": "start", "time_s": 0, "step": 0})
    content = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8")
    (tmp_path / "metrics.jsonl").write_text("{broken\n" + content, encoding="utf-8")
    with pytest.raises(PretrainError, match="line 1 is not JSON"):
        read_events(tmp_path)


def test_the_effective_rank_is_that_of_the_singular_values():
    tokens = torch.randn(40, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    tokens *= torch.linspace(0.01, 2, 12).double()
    share = torch.linalg.svdvals(tokens) / torch.linalg.svdvals(tokens).sum()
    assert effective_rank(tokens.T @ tokens) == pytest.approx(float(torch.exp(-(share * share.log()).sum())), rel=1e-6)
    assert effective_rank(torch.full((3, 3), torch.nan, dtype=torch.float64)) == 1.0


def test_pace_is_what_the_clock_says(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    pace = Pace(samples_per_step=2048, flops_per_step=11.9e15, peak_flops=8 * 989e12)
    for _ in range(10):
        pace.waited(0.1)
        pace.stepped()
    now[0] += 131.3  # the paper's 13.13 s a step
    taken = pace.take(steps_left=1000)
    assert taken["samples_per_s"] == pytest.approx(156, rel=0.001)
    assert taken["mfu"] == pytest.approx(0.1145, rel=0.001)
    assert taken["data_wait"] == pytest.approx(1 / 131.3)
    assert taken["eta_s"] == pytest.approx(13130)
    line = console_line(10, 125_000, {"loss": 11.2, **taken})
    for words in ("step 10/125,000", "loss 11.2", "156 samples/s", "data wait 1%", "MFU 11.", "ETA 3 h 38 min"):
        assert words in line


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (59.2, "1 min"), (63, "1 min 3 s"), (7500, "2 h 5 min"), (1_641_600, "19 d")]
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words


def test_a_wheel_in_somebodys_repository_does_not_say_that_it_is_of_their_commit(tmp_path, monkeypatch):
    """git looks for a repository above as well: there an environment in a project's folder found the project's."""
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    module = tmp_path / "env" / "site-packages" / "tapct" / "records" / "provenance.py"
    monkeypatch.setattr(provenance, "__file__", str(module))
    provenance.git_state.cache_clear()
    try:
        assert versions()["commit"] == "not in a checkout"
    finally:
        provenance.git_state.cache_clear()
