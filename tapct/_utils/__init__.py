"""What packages share that is of no model, task or result: files, locks, the terminal, the operating system."""
