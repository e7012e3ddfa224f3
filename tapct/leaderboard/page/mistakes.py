"""What the page shows of mistakes: titles and words; the numbers are `tapct.leaderboard.mistakes`'."""

from itertools import groupby

from tapct.encoders.mistake_names import MISTAKE_WORDS
from tapct.leaderboard.board import Board
from tapct.leaderboard.mistakes import READ_AS, TITLE, Cost, MistakeTable

__all__ = ["READ_AS", "TITLE", "by_model", "task_title", "words"]


def words(mistake: str) -> str:
    """Returns what a mistake does; nothing of one of another release."""
    return {str(name): words for name, words in MISTAKE_WORDS.items()}.get(mistake, "")


def by_model(table: MistakeTable) -> list[tuple[str, list[Cost]]]:
    """Returns the costs of each model."""
    return [(model, list(costs)) for model, costs in groupby(table.costs, key=lambda cost: cost.model)]


def task_title(board: Board, table: MistakeTable) -> str:
    """Returns what a table's task is called on the page."""
    boards = [board, *(own.board for own in board.own)]
    titles = {task.name: task.title for each in boards for task in each.tasks}
    return titles.get(table.task, table.task)
