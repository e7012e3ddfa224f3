"""Keeping the folders of somebody's machine out of records: what a file is called is told, where it lies is not."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

_FOLDERS = re.compile(
    r"""(?<![\w.:/~\\-])                   # where a path begins, and no address or fraction continues
    (?: (?:file://)? ~?/ (?:[^\s/'"<>|:;,()]+/)+    # /home/somebody/, ~/weights/
      | [A-Za-z]:[\\/] (?:[^\s\\/'"<>|:;,()]+[\\/])*  # C:\\Users\\somebody\\
      | \\\\ (?:[^\s\\'"<>|:;,()]+\\)+              # \\\\server\\share\\
    )""",
    re.VERBOSE,
)


def base_name(path: str) -> str:
    """Returns the last part of a path of any system; of other text that text."""
    return PureWindowsPath(PurePosixPath(path).name or path).name or path


def without_folders(value: Any) -> Any:
    """Returns a text, or settings at any depth, in which absolute paths are names of files alone."""
    if isinstance(value, str):
        return _FOLDERS.sub("", value)
    if isinstance(value, Mapping):
        return {without_folders(key): without_folders(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(each) for each in value]
    return value
