"""Text as a language model takes it: a prompt with room for the tokens of a scan, reports, and rows of any length."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from tapct.errors import TaskError

SCAN = "{scan}"
"""Where the tokens of the scan stand in a prompt."""


@dataclass(frozen=True)
class Prompt:
    """A prompt as tokens.

    Attributes:
        before: In front of the scan's, the begin-of-text token first where the tokenizer has one.
        after: Behind them.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]

    @classmethod
    def of(cls, text: str, tokenizer: Any) -> "Prompt":
        """Returns a prompt.

        Args:
            text: With `{scan}` in it, once. What stands behind it, or if nothing does the scan, is what the first
                token of a report is predicted from.
            tokenizer: Of the language model.

        Raises:
            TaskError: If `{scan}` is not there, or more than once.
        """
        if text.count(SCAN) != 1:
            raise TaskError(f"the prompt {text!r} must have {SCAN} in it once, where the tokens of the scan stand")
        before, after = (tokens(part, tokenizer) for part in text.split(SCAN))
        begin = () if tokenizer.bos_token_id is None else (int(tokenizer.bos_token_id),)
        return cls((*begin, *before), tuple(after))


def tokens(text: str, tokenizer: Any) -> list[int]:
    """Returns the tokens of a text alone: a special token that happens to be written in it is text like any other."""
    if not text:
        return []
    return list(tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids)


def report_tokens(text: str, tokenizer: Any, most: int) -> list[int]:
    """Returns the tokens of a report and the end-of-text token behind them.

    One that does not fit is cut, and has no end then: what is read of it does not end there.

    Args:
        text: The report.
        tokenizer: Of the language model.
        most: Tokens that there may be, the end among them.
    """
    whole = [*tokens(text, tokenizer), int(tokenizer.eos_token_id)]
    return whole[:most]


def padded(rows: Sequence[torch.Tensor], side: Literal["left", "right"]) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns rows of any lengths as one batch, (B, n, E), and (B, n) int64 which of it is no padding.

    Args:
        rows: (n, E) each.
        side: On which side the padding, zeros, is put.
    """
    longest = max(map(len, rows))
    batch = rows[0].new_zeros((len(rows), longest, rows[0].shape[1]))
    mask = torch.zeros((len(rows), longest), dtype=torch.int64, device=batch.device)
    filled = []
    for place, row in enumerate(rows):
        own = slice(longest - len(row), longest) if side == "left" else slice(0, len(row))
        mask[place, own] = 1
        empty = batch[place, : longest - len(row)]
        filled.append(torch.cat([empty, row] if side == "left" else [row, empty]))
    return torch.stack(filled), mask
