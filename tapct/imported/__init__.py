"""Predictions of models that were trained elsewhere, scored as ours are: references, never ranked."""
