"""Errors of pretraining: each says what is wrong, where, and how to fix it."""

from tapct.errors import TapctError


class PretrainError(TapctError, ValueError):
    """A store, a config, a checkpoint or a run is not what it should be."""


class StoreError(PretrainError):
    """A store as a whole cannot be used now, such as one that does not answer: no other volume makes up for that."""
