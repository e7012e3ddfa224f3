"""Writing reports token by token: greedily or sampled, several at once, with keys and values kept."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tapct.errors import TaskError
from tapct.language_models.batches import padded
from tapct.language_models.model import NOT_ADAPTED, Adapter, LanguageModel


@dataclass(frozen=True)
class Decoding:
    """How a report is written.

    Attributes:
        most_tokens: It may have, the end-of-text token among them.
        temperature: Logits are divided by it before a token is drawn; 0 takes the likeliest, the first of equal ones.
        top_p: Tokens are drawn from the fewest likeliest ones that have this share of the probability.
        seed: Of what is drawn.
    """

    most_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.most_tokens < 1 or self.temperature < 0 or not 0 < self.top_p <= 1:
            raise TaskError(
                f"decoding needs most_tokens of at least 1, a temperature of 0 or more and top_p in (0, 1], not {self}"
            )


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        tokens: Without the end of text.
        is_cut: Whether it had not ended when there were as many tokens as there may be.
    """

    tokens: tuple[int, ...]
    is_cut: bool


@torch.no_grad()
def write(
    model: LanguageModel,
    prompts: Sequence[torch.Tensor],
    how: Decoding,
    seeds: Sequence[int],
    adapter: Adapter = NOT_ADAPTED,
) -> list[Written]:
    """Writes behind prompts, all at once; each comes out as if it were alone, but for rounding.

    Args:
        model: The language model.
        prompts: (n, E) vectors of each, of any lengths.
        how: How.
        seeds: Of each prompt: what is drawn for it depends on nothing else of the batch.
        adapter: LoRA's weights.
    """
    draws = [torch.Generator().manual_seed(seed) for seed in seeds]
    rows, mask = padded([prompt.to(model.dtype) for prompt in prompts], "left")
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)  # padding on the left has no place
    written: list[list[int]] = [[] for _ in prompts]
    ended = [False] * len(prompts)
    past = None
    for _ in range(how.most_tokens):
        logits, past = model.forward(rows, mask, adapter, positions=positions, past=past, keep=True)
        chosen = _chosen(logits[:, -1], how, draws)
        for place, token in enumerate(chosen):
            if not ended[place]:
                ended[place] = token == model.end
                written[place] += [] if ended[place] else [token]
        if all(ended):
            break
        rows = model.embed(chosen)[:, None]
        mask = torch.cat([mask, mask.new_ones((len(prompts), 1))], dim=1)
        positions = positions[:, -1:] + 1
    return [Written(tuple(tokens), not whole) for tokens, whole in zip(written, ended, strict=True)]


def _chosen(logits: torch.Tensor, how: Decoding, draws: Sequence[torch.Generator]) -> list[int]:
    """Returns the next token of each row of (B, V) logits."""
    if how.temperature == 0:
        return [int(token) for token in logits.argmax(dim=-1)]
    scaled = (logits.double() / how.temperature).softmax(dim=-1).cpu()
    return [drawn(row, how.top_p, draw) for row, draw in zip(scaled, draws, strict=True)]


def drawn(probabilities: torch.Tensor, top_p: float, draw: torch.Generator) -> int:
    """Returns a token that is drawn from the fewest likeliest ones that have a share of the probability.

    Args:
        probabilities: (V,) float64.
        top_p: The share.
        draw: Gives one number.
    """
    ordered, tokens = probabilities.sort(descending=True, stable=True)
    upto = ordered.cumsum(dim=0)
    kept = int((upto - ordered < top_p * upto[-1]).sum())
    at = torch.rand((), generator=draw, dtype=torch.float64) * upto[kept - 1]
    return int(tokens[min(int((upto[:kept] <= at).sum()), kept - 1)])
