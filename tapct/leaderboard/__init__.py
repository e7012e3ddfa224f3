"""The page of all results: which records compare, what is shown beside what, and in which forms."""

from tapct.leaderboard.paper import PAPER, PaperRow, read_paper

__all__ = ["PAPER", "PaperRow", "read_paper"]
