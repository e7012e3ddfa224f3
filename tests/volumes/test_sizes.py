"""What a header may claim, and what memory is free: on made-up machines, never on this one."""

import zlib

import pytest

from tapct.errors import VolumeError
from tapct.volumes import sizes

GB = 10**9


def machine(folder, files: dict[str, str]):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return sizes.available_memory(folder / "proc", folder / "cgroup")


MEMINFO = "MemTotal:       16000000 kB\nMemFree:         100000 kB\nMemAvailable:    8000000 kB\nHugePages_Total:  0\n"


def test_a_machine_without_limits(tmp_path):
    assert machine(tmp_path, {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/\n"}) == 8000000 * 1024


def test_a_batch_job_has_what_the_tightest_group_above_it_leaves(tmp_path):
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "0::/slurm/job_1/step_0\n",
        "cgroup/slurm/job_1/step_0/memory.max": "max\n",
        "cgroup/slurm/job_1/step_0/memory.current": "5\n",
        "cgroup/slurm/job_1/memory.max": f"{4 * GB}\n",
        "cgroup/slurm/job_1/memory.current": f"{3 * GB}\n",
        "cgroup/slurm/job_1/memory.stat": f"anon {GB}\nfile {2 * GB}\nactive_file {GB // 2}\ninactive_file {GB}\n",
    }
    assert machine(tmp_path, files) == 4 * GB - 3 * GB + GB // 2 + GB  # files in the cache give way


def test_a_container_of_the_first_version_whose_path_is_that_of_the_host(tmp_path):
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/docker/abc\n",
        "cgroup/memory/memory.limit_in_bytes": f"{2 * GB}\n",
        "cgroup/memory/memory.usage_in_bytes": f"{GB}\n",
    }
    assert machine(tmp_path, files) == GB


def test_a_group_above_its_limit_leaves_nothing(tmp_path):
    files = {"proc/self/cgroup": "0::/\n", "cgroup/memory.max": "5\n", "cgroup/memory.current": "9\n"}
    assert machine(tmp_path, {"proc/meminfo": MEMINFO, **files}) == 0


def test_without_linux_the_size_of_the_memory_stands_in(tmp_path, monkeypatch):
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}
    monkeypatch.setattr("os.sysconf", pages.__getitem__)
    assert machine(tmp_path, {}) == 4096 * 1000
    monkeypatch.delattr("os.sysconf")  # Windows
    assert machine(tmp_path, {}) is None


def test_what_cannot_be_known_stops_nothing(monkeypatch):
    monkeypatch.setattr(sizes, "available_memory", lambda: None)
    sizes.check_memory("ct.nii", (10**6, 10**6, 10**6), 8)


@pytest.mark.parametrize("shape", [(2**31, 2**31, 2**31), (2**62, 4, 4)])
def test_a_product_beyond_64_bits_is_still_too_large(shape):
    with pytest.raises(VolumeError, match=r"ct\.nii has a header of .* but the file can hold no more than 1,000"):
        sizes.check_claim("ct.nii", shape, 2, 1000)


def test_the_most_that_deflate_can_hold():
    """Nothing packs better than zeros; the constant is between what zlib reaches and a little more."""
    packed = len(zlib.compress(bytes(10**7), level=9))
    assert 10**7 <= sizes.deflated(packed) < 1.01 * 10**7
