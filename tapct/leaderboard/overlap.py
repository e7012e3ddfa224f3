"""Which tasks' scans were among what a model was pretrained on, as far as its card tells.

A card names datasets (`EncoderCard.pretraining_data`). A name counts if it is the task's own dataset, or a collection
that is known to hold its scans (`TaskSpec.source_data`). Of the tasks that ship:

* LUNA16 is a part of LIDC-IDRI (its own data page); LUNA25's scans are NLST's; C4KC-KiTS is KiTS on TCIA.
* The Medical Segmentation Decathlon has LiTS as Task03 and the pancreas task as Task07.
* AbdomenCT-1K joins LiTS, KiTS and the Decathlon's pancreas task (Ma et al., arXiv:2010.14808); CT-ORG took most of its
  scans from LiTS (Rister et al., Scientific Data 2020).
* The 50 labelled scans of FLARE22 are of the Decathlon's pancreas task (its page, Zenodo 7860267).
* AbdomenAtlas joins, among others, AMOS22, LiTS, KiTS, the Decathlon, AbdomenCT-1K, BTCV,
  WORD and FLARE23 (Li et al., arXiv:2407.16697).

This is about datasets, not about patients: which of a task's test cases were seen is not known. No entry does not mean
that there is no overlap, only that none is known.
"""

import re
from collections.abc import Iterable

from tapct.tasks.registry import spec_of


def known_overlap(task: str, pretraining_data: Iterable[str]) -> tuple[str, ...]:
    """Returns the pretraining data, as a card names them, that hold scans of a task; empty if none is known.

    Args:
        task: Name of the task. It says what counts in `TaskSpec.source_data`; its own names always do.
        pretraining_data: Names of data.
    """
    if (spec := spec_of(task)) is None:
        return ()
    own = (re.escape(name) for name in (spec.name, spec.display_name))
    patterns = [re.compile(pattern, re.IGNORECASE) for pattern in (*spec.source_data, *own)]
    return tuple(name for name in pretraining_data if any(pattern.match(name) for pattern in patterns))
