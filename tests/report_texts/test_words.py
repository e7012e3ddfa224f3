"""Scores of words next to the libraries that they are kept in, and by hand."""

import math

import numpy as np
import pytest

from tapct.errors import TaskError
from tapct.kinds.report import OF_WORDS
from tapct.report_texts import words
from tapct.report_texts.words import WordScores

REFERENCE = "No pleural effusion. Heart is normal."
TEXT = "Pleural effusion; the heart is normal."


@pytest.fixture
def scores(tmp_path):
    return WordScores(tmp_path)


def by_name(row: np.ndarray) -> dict[str, float]:
    return dict(zip(OF_WORDS, row.tolist(), strict=True))


def test_counts_and_rouge_by_hand(scores):
    """As BLEU cuts them: pleural effusion ; the heart is normal . next to no pleural effusion . heart is normal ."""
    found = by_name(scores.of([TEXT], [REFERENCE])[0])
    assert (found["words"], found["reference_words"]) == (8, 8)
    assert [found[f"matched_{n}"] for n in (1, 2, 3, 4)] == [6, 4, 2, 1]
    # Of words alone, 6 and 6, the longest common subsequence is: pleural effusion heart is normal.
    assert found["rouge_l"] == pytest.approx(5 / 6)


def test_a_text_without_words_shares_none(scores):
    found = by_name(scores.of([""], [REFERENCE])[0])
    assert (found["words"], found["matched_1"], found["rouge_l"]) == (0, 0, 0)


def test_without_wordnet_there_is_no_meteor_and_the_reason_is_said(scores):
    assert math.isnan(by_name(scores.of([TEXT], [REFERENCE])[0])["meteor"])
    assert "nltk.downloader wordnet" in scores.describe()["METEOR"]
    assert scores.describe()["BLEU4"].startswith("sacrebleu 2.")


class NoSynonyms:
    """A WordNet without words: METEOR then matches words and stems."""

    def synsets(self, word):
        return []


def test_meteor_is_the_librarys(monkeypatch, tmp_path):
    """By hand: 6 of 8 words match, in 2 chunks: F is 6/8, and the penalty 0.5 (2/6)^3."""
    monkeypatch.setattr(words, "_wordnet", NoSynonyms)
    scores = WordScores(tmp_path)
    found = by_name(scores.of([TEXT], [REFERENCE])[0])
    assert found["meteor"] == pytest.approx(6 / 8 * (1 - 0.5 * (2 / 6) ** 3))
    assert scores.describe()["METEOR"].endswith("WordNet")


def test_pairs_are_compared_once_and_only_kept_where_that_is_asked(scores, tmp_path, monkeypatch):
    first = scores.of([TEXT, ""], [REFERENCE, REFERENCE])
    scores.of(["another text of five words"], [REFERENCE], keep=False)
    assert len(list(tmp_path.rglob("*.npz"))) == 1
    monkeypatch.setattr(words, "_scores", None)  # nothing is computed
    np.testing.assert_array_equal(WordScores(tmp_path).of(["", TEXT], [REFERENCE, REFERENCE]), first[::-1])


def test_a_library_that_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(words, "LIBRARIES", ("sacrebleu", "not-a-package"))
    with pytest.raises(TaskError, match=r"need the package not-a-package: pip install 'tapct-bench\[report\]'"):
        WordScores(tmp_path)
