"""What the page draws of the tasks of each kind, one module a kind: see `tapct.leaderboard.page.sections`."""
