"""What a record says of predictions that were made elsewhere and scored here."""

from typing import Literal

from tapct.records.types import Frozen, Text, optional

Predictions = Literal["label maps", "probabilities"]


class ImportedRecord(Frozen):
    """Predictions of a model that was trained elsewhere (`tapct import-predictions`): a reference, never ranked.

    The record's encoder is then the model by its name alone, without weights; `probe_sha256` of a run is the hash of
    its predictions, and the loss of a case of segmentation is 1 minus its mean Dice.

    Attributes:
        predictions: What was imported.
        about: What the model is and how it was trained, in the words of who imported it.
        trained_on: The cases that trained it, in their words; None where they did not say.
    """

    predictions: Predictions
    about: Text | None = optional()
    trained_on: Text | None = optional()
