"""The online k-NN: against scikit-learn's, and on scans whose answer is known."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch.nn import functional

from pretrain.errors import PretrainError
from pretrain.observe.probe import VOTE_TEMPERATURE, Patches, organ_retrieval


def scan(seed: int, organs: list[int], size: int = 30) -> Patches:
    """Patches around one direction an organ, with noise."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(10, 8, generator=torch.Generator().manual_seed(99))
    labels = torch.tensor(organs).repeat_interleave(size)
    noise = 0.8 * torch.randn(len(labels), 8, generator=generator)
    return Patches(functional.normalize(centres[labels] + noise, dim=1), labels)


def test_two_scans_agree_with_scikit_learn():
    one, other = scan(1, [1, 2, 3]), scan(2, [1, 2, 3, 4])
    per_organ: dict[int, list[bool]] = {}
    for query, keys in ((one, other), (other, one)):
        knn = KNeighborsClassifier(
            20, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / VOTE_TEMPERATURE)
        ).fit(keys.features.numpy(), keys.organs.numpy())
        for guess, truth in zip(knn.predict(query.features.numpy()), query.organs.tolist(), strict=True):
            if truth in keys.organs.tolist():
                per_organ.setdefault(truth, []).append(guess == truth)
    scores = organ_retrieval([one, other], neighbours=20)
    assert scores["accuracy"] == pytest.approx(np.mean([np.mean(right) for right in per_organ.values()]))
    assert scores["chance"] == pytest.approx((1 / 4 + 1 / 3) / 2)
    assert (scores["organs"], scores["scans"]) == (3, 2)
    assert 0.5 < scores["accuracy"] < 1


def test_features_without_meaning_score_chance():
    generator = torch.Generator().manual_seed(0)
    noise = [
        Patches(functional.normalize(torch.randn(400, 16, generator=generator), dim=1), torch.arange(400) % 4 + 1)
        for _ in range(3)
    ]
    scores = organ_retrieval(noise, neighbours=20)
    assert scores["accuracy"] == pytest.approx(scores["chance"], abs=0.05)


def test_small_organs_count_as_much_as_large_ones():
    keys = Patches(torch.eye(2), torch.tensor([1, 2]))
    tilted = functional.normalize(torch.tensor([[0.9, 0.1]]), dim=1)  # looks like organ 1
    query = Patches(torch.cat([torch.eye(2)[[0]].expand(99, 2), tilted]), torch.tensor([1] * 99 + [2]))
    scores = organ_retrieval([keys, query], neighbours=1)
    assert scores["accuracy"] == pytest.approx((100 / 100 + 1 / 2) / 2, abs=0.01)


def test_one_organ_alone_is_no_question():
    with pytest.raises(PretrainError, match="two organs"):
        organ_retrieval([scan(1, [1]), scan(2, [1])], neighbours=5)


def test_scans_without_a_common_organ_are_refused():
    with pytest.raises(PretrainError, match="no organ in common"):
        organ_retrieval([scan(1, [1]), scan(2, [2])], neighbours=5)
