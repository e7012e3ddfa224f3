"""Scripts that made the labels and lists that ship with the tasks; nothing imports them, anyone can run them again."""
