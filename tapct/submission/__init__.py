"""Contributing a result: one folder that a pull request can carry, and what a maintainer's CI asks of it."""
