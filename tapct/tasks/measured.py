"""What is measured of the masks of a case once, and remembered: places and volumes of organs.

A target that comes from masks is asked for at every training step, and reading the 25 vertebrae of a scan takes
seconds. An answer hangs on what is in the files and on the code that reads them, as stored features do.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tapct._utils.content_hashes import ContentHashes
from tapct._utils.files import cache_folder, write_atomically
from tapct.errors import TaskError
from tapct.tasks.dataset import CTDataset


def measured(dataset: CTDataset, case: str, what: str, paths: Sequence[Path], measure: Callable[[], Any]) -> Any:
    """Returns what was measured of a case, from the cache folder where it is there, else measured and kept.

    Args:
        dataset: Its dataset, whose class, code and options are part of the key.
        case: The case.
        what: What is measured, of the several things that a dataset may ask for.
        paths: The files that it is measured of.
        measure: Measures it; what it gives is kept as JSON, and comes back as JSON gives it.

    Raises:
        TaskError: If a file cannot be read; or whatever `measure` raises.
    """
    try:
        reading = dataset.reading
    except TaskError:  # its code is in no file, so that a change of it could not be told
        return json.loads(json.dumps(measure()))
    try:
        content = ContentHashes().of_files(paths)
    except OSError as error:
        raise TaskError(f"{error.filename} cannot be read ({error.strerror}). Fetch it again") from error
    key = hashlib.sha256(json.dumps([reading, case, what, content], sort_keys=True).encode()).hexdigest()
    memory = cache_folder() / "measured" / dataset.spec.name / f"{key}.json"
    with contextlib.suppress(OSError, ValueError):  # it is not there, or damaged
        return json.loads(memory.read_text(encoding="utf-8"))
    found = json.dumps(measure())
    with contextlib.suppress(OSError):  # a cache that cannot be written: it is measured again the next time
        write_atomically(memory, found)
    return json.loads(found)
