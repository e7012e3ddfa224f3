"""Writing with keys and values kept, next to computing everything anew for every token."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tapct.errors import TaskError
from tapct.language_models.decoding import Decoding, drawn, write
from tests.language_models.conftest import rows

LENGTHS = (3, 11, 7, 3)


def plainly(model, prompt, most, adapter=None):
    """Greedy decoding in float64, one prompt, no cache."""
    network = AutoModelForCausalLM.from_pretrained(model.files.folder, dtype=torch.float64)
    tokens = []
    while len(tokens) < most:
        own = torch.cat([prompt.double(), network.get_input_embeddings()(torch.tensor(tokens, dtype=torch.int64))])
        token = int(network(inputs_embeds=own[None]).logits[0, -1].argmax())
        if token == model.end:
            return tuple(tokens), False
        tokens.append(token)
    return tuple(tokens), True


def test_greedy_decoding_of_a_batch_of_any_lengths_is_that_of_each_prompt_alone(model):
    prompts, how = rows(model, LENGTHS), Decoding(most_tokens=12)
    found = write(model, prompts, how, [0] * len(prompts))
    assert [(one.tokens, one.is_cut) for one in found] == [plainly(model, prompt, 12) for prompt in prompts]
    assert [write(model, [prompt], how, [0])[0] for prompt in prompts] == found
    assert len({one.tokens for one in found}) == len(found)


def test_one_that_ends_is_over_while_others_are_written(model, monkeypatch):
    """The end of text is set to a token that one of them writes early on."""
    prompts, how = rows(model, LENGTHS), Decoding(most_tokens=12)
    whole = [one.tokens for one in write(model, prompts, how, [0] * 4)]
    monkeypatch.setattr(model, "end", whole[1][3])
    ended = [tokens[: tokens.index(model.end)] if model.end in tokens else tokens for tokens in whole]
    found = write(model, prompts, how, [0] * 4)
    assert [one.tokens for one in found] == ended
    assert [one.is_cut for one in found] == [model.end not in tokens for tokens in whole]
    assert not found[1].is_cut


def test_what_is_sampled_depends_on_the_seed_of_its_prompt_alone(model):
    prompts, how = rows(model, LENGTHS), Decoding(most_tokens=12, temperature=1.0, top_p=0.9)
    seeds = [5, 6, 7, 8]
    found = write(model, prompts, how, seeds)
    assert [write(model, [prompt], how, [seed])[0] for prompt, seed in zip(prompts, seeds, strict=True)] == found
    assert write(model, prompts[::-1], how, seeds[::-1]) == found[::-1]
    assert write(model, prompts, how, [1, 2, 3, 4]) != found


def test_draws_have_the_probabilities_of_the_likeliest_tokens():
    p = torch.tensor([0.05, 0.4, 0.15, 0.3, 0.1], dtype=torch.float64)
    rng = torch.Generator().manual_seed(0)
    found = np.bincount([drawn(p, 0.8, rng) for _ in range(1000)], minlength=5) / 1000
    expected = np.array([0, 0.4, 0.15, 0.3, 0]) / 0.85  # 0.4 + 0.3 are not 0.8 yet
    assert np.abs(found - expected).max() < 0.06
    assert found[[0, 4]].tolist() == [0, 0]
    every = np.bincount([drawn(p, 1.0, rng) for _ in range(1000)], minlength=5) / 1000
    assert np.abs(every - p.numpy()).max() < 0.06


def test_a_low_temperature_is_greedy(model):
    prompts = rows(model, LENGTHS)
    cold = Decoding(most_tokens=8, temperature=1e-4)
    assert write(model, prompts, cold, [0] * 4) == write(model, prompts, Decoding(most_tokens=8), [0] * 4)


@pytest.mark.parametrize("wrong", [{"most_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.1}])
def test_a_way_of_decoding_that_cannot_be_is_refused(wrong):
    with pytest.raises(TaskError, match="decoding needs"):
        Decoding(**wrong)
