"""Scripts that made the labels and splits that ship with the tasks, run from the repository's root: `python -m`."""

from importlib.resources import files
from pathlib import Path

TASKS = Path(str(files("tapct.tasks")))
"""The folder of what ships."""
