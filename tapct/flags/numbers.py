"""What a record says in numbers, for records that are the same to the bit."""

import hashlib
import json
from typing import Any

from tapct.flags.messages import reported
from tapct.records import Record


def numbers(record: Record) -> list[str]:
    """Returns, for each run, a hash of what it gave for the reported cases."""
    keep = {"case", "loss", "dice", "logits", "probabilities"}
    rows = [sorted((c.model_dump(mode="json", include=keep) for c in reported(r)), key=_case) for r in record.runs]
    return [hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest() for of in rows if of]


def _case(row: dict[str, Any]) -> str:
    return row["case"]
