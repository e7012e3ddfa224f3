"""Programs for those who work on the repository: what a user needs is in `tapct`."""
