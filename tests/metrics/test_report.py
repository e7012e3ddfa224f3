"""Findings and words of reports against scikit-learn and sacrebleu, whole and resampled."""

import numpy as np
import pytest
from sacrebleu.metrics import BLEU
from sklearn.metrics import f1_score, precision_score, recall_score

from tapct.metrics.report import Counts, bleu

ONES = np.ones((60, 1))


@pytest.fixture
def findings():
    random = np.random.default_rng(0)
    shares = np.array([0.5, 0.3, 0.1, 0.05, 0.8])
    reference = (random.random((60, 5)) < shares).astype(float)
    found = np.where(random.random((60, 5)) < 0.3, 1 - reference, reference)
    return found, reference


def test_each_finding_and_all_together_are_scikit_learns(findings):
    found, reference = findings
    counts = Counts.of(found, reference, ONES)
    for ours, theirs in (
        (counts.f1(), f1_score),
        (counts.precision(), precision_score),
        (counts.recall(), recall_score),
    ):
        np.testing.assert_allclose(ours[:, 0], theirs(reference, found, average=None))
    every = counts.over_findings()
    assert every.f1()[0, 0] == pytest.approx(f1_score(reference, found, average="micro"))
    assert every.precision()[0, 0] == pytest.approx(precision_score(reference, found, average="micro"))
    assert every.recall()[0, 0] == pytest.approx(recall_score(reference, found, average="micro"))
    assert counts.macro_f1()[0] == pytest.approx(f1_score(reference, found, average="macro"))


def test_resamples_are_those_of_repeated_cases(findings):
    found, reference = findings
    weights = np.random.default_rng(1).integers(0, 3, (60, 4)).astype(float)
    ours = Counts.of(found, reference, weights)
    for column, macro, micro in zip(weights.T, ours.macro_f1(), ours.over_findings().f1()[0], strict=True):
        drawn = np.repeat(np.arange(60), column.astype(int))
        assert macro == pytest.approx(f1_score(reference[drawn], found[drawn], average="macro"))
        assert micro == pytest.approx(f1_score(reference[drawn], found[drawn], average="micro"))


def test_a_finding_that_is_nowhere_is_no_part_of_the_mean_and_has_no_number(findings):
    found, reference = (of.copy() for of in findings)
    reference[:, 2] = 0
    kept = [0, 1, 3, 4]
    wanted = f1_score(reference[:, kept], found[:, kept], average="macro")
    counts = Counts.of(found, reference, ONES)
    assert counts.macro_f1()[0] == pytest.approx(wanted)
    assert np.isnan(counts.recall()[2, 0])
    assert counts.f1()[2, 0] == 0  # it is said, and never there
    found[:, 2] = 0
    quiet = Counts.of(found, reference, ONES)
    assert quiet.macro_f1()[0] == pytest.approx(wanted)  # who never says it does not gain by it
    assert np.isnan([quiet.f1()[2, 0], quiet.precision()[2, 0]]).all()
    assert np.isnan(Counts.of(found * 0, reference * 0, ONES).macro_f1()[0])


def test_a_finding_that_is_said_with_a_probability_counts_by_it(findings):
    """As the mean over many draws, whose counts are those in expectation."""
    _, reference = findings
    shares = np.broadcast_to(reference.mean(axis=0), reference.shape)
    random = np.random.default_rng(2)
    draws = [Counts.of((random.random(shares.shape) < shares).astype(float), reference, ONES) for _ in range(4_000)]
    ours = Counts.of(shares, reference, ONES)
    for name in ("right", "wrong", "missed"):
        mean = np.mean([getattr(draw, name) for draw in draws], axis=0)
        np.testing.assert_allclose(getattr(ours, name), mean, atol=0.3)


def corpus():
    random = np.random.default_rng(3)
    vocabulary = ["effusion", "lung", "nodule", "no", "mild", "left", "right", "opacity"]

    def text():
        return " ".join(random.choice(vocabulary, random.integers(2, 40)))

    return [text() for _ in range(30)], [text() for _ in range(30)]


@pytest.mark.parametrize("shorter", [False, True])
def test_bleu_is_sacrebleus_of_the_corpus_and_of_resampled_ones(shorter):
    texts, references = corpus()
    if shorter:  # than their references: the brevity penalty
        texts = [text[: len(text) // 2] for text in texts]
    library = BLEU(smooth_method="none")
    rows = [library.corpus_score([text], [[reference]]) for text, reference in zip(texts, references, strict=True)]
    matched = np.array([row.counts for row in rows], dtype=float)
    words, others = (np.array([getattr(row, name) for row in rows], dtype=float) for name in ("sys_len", "ref_len"))
    weights = np.column_stack([np.ones(30), np.random.default_rng(4).integers(0, 3, (30, 3))]).astype(float)
    for column, ours in zip(weights.T, bleu(matched, words, others, weights), strict=True):
        drawn = np.repeat(np.arange(30), column.astype(int))
        wanted = library.corpus_score([texts[i] for i in drawn], [[references[i] for i in drawn]])
        assert ours == pytest.approx(wanted.score / 100)


def test_bleu_without_a_match_is_0_and_without_four_words_undefined():
    matched, words = np.array([[2.0, 1, 0, 0]]), np.array([4.0])
    assert bleu(matched, words, words, np.ones((1, 1)))[0] == 0
    assert np.isnan(bleu(matched, np.array([3.0]), words, np.ones((1, 1)))[0])
