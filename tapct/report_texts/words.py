"""How like two texts are in their words: BLEU's counts, ROUGE-L and METEOR, each by the library that it is kept in.

These scores are weak: a report that says "no effusion" where the other says "effusion" shares most of its words.
"""

import functools
import hashlib
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tapct._utils.files import cache_folder
from tapct.errors import TaskError
from tapct.kinds.report import OF_WORDS
from tapct.report_texts.reader import text_sha256
from tapct.report_texts.rows import KeyedRows

LIBRARIES = ("sacrebleu", "rouge-score", "nltk")

NO_WORDNET = "WordNet, by which METEOR knows synonyms, is not here (python -m nltk.downloader wordnet)"


class WordScores:
    """Scores of pairs of texts, each pair once: they stay on disk, by the hashes of both and the libraries."""

    def __init__(self, folder: Path | None = None) -> None:
        """Initializes the scores; nothing is computed yet.

        Args:
            folder: Where they are kept; None for `reports/` of the cache folder.

        Raises:
            TaskError: If a library is not there.
        """
        try:
            self.versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
        except importlib.metadata.PackageNotFoundError as error:
            raise TaskError(
                f"scores of words need the package {error.name}: pip install 'tapct-bench[report]'"
            ) from error
        self.has_meteor = _wordnet() is not None
        own = hashlib.sha256(repr((self.versions, self.has_meteor, OF_WORDS)).encode()).hexdigest()
        folder = cache_folder() / "reports" if folder is None else folder
        self._rows = KeyedRows(folder / f"words-{own[:16]}", len(OF_WORDS))

    def describe(self) -> dict[str, str]:
        """Returns what compared words, for the record: by score its library, or why there is none."""
        bleu, rouge, nltk = (f"{name} {version}" for name, version in self.versions.items())
        return {
            "BLEU4": f"{bleu}, lower case, tokenizer 13a, no smoothing",
            "ROUGE-L": f"{rouge}, F1, no stemmer",
            "METEOR": f"{nltk}, WordNet" if self.has_meteor else NO_WORDNET,
        }

    def of(self, texts: Sequence[str], references: Sequence[str], *, keep: bool = True) -> np.ndarray:
        """Returns (N, len(OF_WORDS)) the scores of N texts, each next to its reference; NaN where METEOR has none.

        Args:
            texts: The texts.
            references: Their references.
            keep: Whether new ones are written.
        """
        keys = [
            hashlib.sha256((text_sha256(one) + text_sha256(other)).encode()).hexdigest()
            for one, other in zip(texts, references, strict=True)
        ]

        def compute(places: list[int]) -> np.ndarray:
            return np.array([_scores(texts[place], references[place]) for place in places])

        return self._rows.get(keys, compute, "words compared", keep=keep)


def _scores(text: str, reference: str) -> list[float]:
    """Returns the scores of a text in the order of `OF_WORDS`."""
    found = _bleu().corpus_score([text], [[reference]])
    rouge = _rouge().score(reference, text)["rougeL"].fmeasure
    tokens = [_tokenized(one) for one in (reference, text)]
    return [*found.counts, found.sys_len, found.ref_len, rouge, _meteor(*tokens)]


@functools.cache
def _bleu() -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(lowercase=True, tokenize="13a", smooth_method="none")


@functools.cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=False)


def _tokenized(text: str) -> list[str]:
    """Returns the words that BLEU counts."""
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    return Tokenizer13a()(text.lower()).split()


def _meteor(reference: list[str], text: list[str]) -> float:
    from nltk.translate.meteor_score import meteor_score

    wordnet = _wordnet()
    return np.nan if wordnet is None else float(meteor_score([reference], text, wordnet=wordnet))


@functools.cache
def _wordnet() -> Any:
    """Returns WordNet; None where its files are not there."""
    from nltk.corpus import wordnet

    try:
        wordnet.ensure_loaded()
    except LookupError:
        return None
    return wordnet
