"""The page of all results: which records compare, what is shown next to what, and in which forms."""

from tapct.leaderboard.paper import PAPER, PaperRow, read_paper

__all__ = ["PAPER", "PaperRow", "read_paper"]
