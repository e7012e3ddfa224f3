"""What features depend on, and the keys made of it."""

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tapct._utils import content_hashes
from tapct.encoders.identity import HARNESS
from tapct.errors import FeatureError
from tapct.features.store import FORMAT
from tapct.source_code import code_of, version_of
from tapct.volumes import files_of
from tapct.volumes.dicom import DECODERS

READING = "tapct.volumes.read"
EXTRACTION = "tapct.features.extract"


def key_of(parts: Mapping[str, Any]) -> str:
    """Returns the key of an entry: a hash of everything that it depends on.

    Args:
        parts: What is the entry's own. The store's format, the code that reads, resamples, tiles and stitches, and the
            versions of the libraries that it uses are added.
    """
    content = json.dumps({"format": FORMAT, "code": shared_code(), **parts}, sort_keys=True, default=list)
    return hashlib.sha256(content.encode()).hexdigest()


@functools.cache
def shared_code() -> dict[str, Any]:
    """Returns the code between a scan on disk and its features that is not an encoder's own.

    Asked once: a process continues with the code that it began with.
    """
    code = code_of(EXTRACTION, READING, HARNESS)
    decoders = {name: version_of(name) for name in DECODERS}
    return {"sha256": code.sha256, "libraries": code.libraries | decoders}


class ScanHashes(content_hashes.ContentHashes):
    """SHA-256 of what a task reads, remembered while its files stay the same."""

    def of(self, paths: Sequence[Path]) -> str:
        """Returns a hash of the content of every file that is read for these paths, in this order.

        Args:
            paths: Scans (files, or folders of DICOM slices), labels, tables.

        Raises:
            FeatureError: If one cannot be read.
        """
        try:
            found = [self.of_files(files_of(path)) for path in paths]
        except OSError as error:
            raise FeatureError(
                f"cannot read {error.filename} to see whether its features are stored: {error.strerror}. "
                "`tapct doctor --task TASK --root DIR` lists what is missing"
            ) from error
        return _together(found)

    def known(self, paths: Sequence[Path]) -> str | None:
        """Returns what `of` remembers of these paths; None where it would read a file."""
        try:
            found = [self.remembered(files_of(path)) for path in paths]
        except OSError:
            return None
        return None if None in found else _together(found)


def _together(hashes: Sequence[str | None]) -> str:
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()
