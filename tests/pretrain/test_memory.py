import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import numpy as np
from pretrain.training.memory import keep_freed_memory

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(20_000_000)  # 160 MB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

counts = []
for keep in (False, True, False):
    if not keep_freed_memory(keep):
        sys.exit("no glibc")
    pages()
    counts.append(pages())
print(*counts)
"""


def test_freed_pages_are_found_again_without_the_system():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, encoding="utf-8")
    if done.stderr.strip() == "no glibc":
        pytest.skip("the C library is not glibc")
    assert done.returncode == 0, done.stderr
    handed_back, kept, handed_back_again = map(int, done.stdout.split())
    assert kept < 0.1 * handed_back
    assert handed_back_again > 0.5 * handed_back
