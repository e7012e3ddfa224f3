"""Feature packs: the stored features of a task in one file, so that others can probe without the scans."""
