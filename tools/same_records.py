"""Says whether two revisions give the same records, to the bit: `python -m tools.same_records BEFORE [AFTER]`.

The quickstart and four tasks in miniature (segmentation, classification, regression of two kinds) run from file to
score in a checkout of each revision, with the same interpreter. What a record says of the machine, the time and the
hashes of source files is left out; every other key must be equal: scales, heads, predictions, metrics.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ENCODERS = "tap-t-3d,intensity"
MINIATURES = ("amos22", "luna25", "osic_fvc", "totalsegmentator_age")
LEFT_OUT = {"execution", "flags", "fingerprint", "code_sha256"}
"""What a change of structure may change: by key, wherever in a record it is."""

WRITE = (
    f"import pathlib, sys; from tests.data import miniatures; miniatures.write(pathlib.Path(sys.argv[1]), {MINIATURES})"
)


def main() -> None:
    """Prints what differs between the records of two revisions; ends with status 1 if anything does."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("before", help="revision to compare with, such as HEAD~3")
    parser.add_argument("after", nargs="?", default="HEAD", help="revision that is compared (default: HEAD)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        before, after = (records_of(revision, folder / side) for side, revision in vars(given).items())
    if set(before) != set(after):
        sys.exit(f"not the same records: {sorted(set(before) ^ set(after))}")
    differing = {name: list(differences(before[name], after[name])) for name in sorted(before)}
    for name, found in differing.items():
        print(f"{name}: {'the same' if not found else f'{len(found)} values differ'}")
        print("".join(f"  {line}\n" for line in found[:20]), end="")
    sys.exit(any(differing.values()))


def records_of(revision: str, folder: Path) -> dict[str, Any]:
    """Returns the records of a revision by the name of their folder, run in a checkout below `folder`."""
    checkout, data = folder / "main", folder / "data"
    subprocess.run(
        ["git", "-C", str(ROOT), "worktree", "add", "--quiet", "--detach", str(checkout), revision], check=True
    )
    try:
        (folder / "shared").symlink_to(ROOT.parent / "shared")  # scans that the miniatures are cut from
        _python(checkout, "-c", "from setuptools import setup; setup()", "--quiet", "egg_info")
        _python(checkout, "-c", WRITE, str(data))
        run = ("-m", "tapct.cli", "run", "--results", str(folder / "results"), "--accelerator", "cpu")
        small = ("--max-steps", "20", "--runs", "2", "-e", ENCODERS)
        _python(checkout, *run, *small, "-t", "quickstart,quickstart_organs")
        _python(
            checkout, *run, *small, "-t", ",".join(MINIATURES), "--configs", str(data / "configs"), DATA_ROOT=str(data)
        )
    finally:
        subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(checkout)], check=True)
    found = sorted((folder / "results").glob("*/*/record.json"))
    return {path.parent.relative_to(folder / "results").as_posix(): json.loads(path.read_bytes()) for path in found}


def _python(checkout: Path, *arguments: str, **variables: str) -> None:
    """Runs this interpreter on the modules of a checkout, with stored features of its own and one thread."""
    inherited = {name: value for name, value in os.environ.items() if name != "DATA_ROOT"}
    own = {"PYTHONPATH": str(checkout), "TAPCT_CACHE": str(checkout.parent / "cache"), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *arguments], cwd=checkout, env=inherited | own | variables, check=True)


def differences(before: Any, after: Any, place: str = "") -> Iterator[str]:
    """Yields where two parsed JSON values differ; numbers must be equal to the bit."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted((before.keys() | after.keys()) - LEFT_OUT):
            if key in before and key in after:
                yield from differences(before[key], after[key], f"{place}.{key}")
            else:
                yield f"{place}.{key} is only in the record {'before' if key in before else 'after'}"
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, pair in enumerate(zip(before, after, strict=True)):
            yield from differences(*pair, f"{place}[{index}]")
    elif json.dumps(before) != json.dumps(after):
        yield f"{place}: {json.dumps(before)[:80]} before, {json.dumps(after)[:80]} after"


if __name__ == "__main__":
    main()
