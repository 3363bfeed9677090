"""What a student looks up: passages found by the words of a question alone, whatever it is about.

They are ranked by BM25 as Lucene has it (Kamphuis et al., "Which BM25 do you mean?", ECIR 2020; `bm25s`, arXiv 2407.03618). Words are runs
of letters and digits: scripts without spaces are not searched well.
"""

import re
import unicodedata
from collections.abc import Collection, Sequence
from typing import Final

import bm25s
import numpy as np

from protocol.messages import Passage

_WORD: Final = re.compile(r"\w+")


class Index:
    """Passages made ready to be searched."""

    def __init__(self, passages: Collection[Passage]):
        worded = [(passage, _words(f"{passage.title}\n{passage.text}")) for passage in passages]
        self._passages = [passage for passage, words in worded if words]
        self._ranking = bm25s.BM25(method="lucene")
        if self._passages:
            self._ranking.index([words for _, words in worded if words], show_progress=False)

    def search(self, question: str, most: int, floor: float = 0.0) -> list[Passage]:
        """The passages that score above the floor, the best first, ties in their order; a passage that shares no word scores 0.

        Args:
            most: How many, at most.
        """
        words = _words(question)
        if not words or not self._passages:
            return []
        scores = self._ranking.get_scores(words)
        best: Sequence[int] = np.argsort(-scores, kind="stable")[:most].tolist()
        return [self._passages[i] for i in best if scores[i] > floor]


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
