"""Features of whole scans: extraction by sliding window, and keeping them."""

from tapct.features.bank import EncodedCases, FeatureBank
from tapct.features.cases import EncodedCase, Seen, StoredFeatures
from tapct.features.extract import CaseFeatures, NamedScan, encoder_grid, extract, extract_many
from tapct.features.memory import FeatureMemory
from tapct.features.statistics import FeatureStatistics
from tapct.features.store import CacheMode, TensorStore

__all__ = [
    "CacheMode",
    "CaseFeatures",
    "EncodedCase",
    "EncodedCases",
    "FeatureBank",
    "FeatureMemory",
    "FeatureStatistics",
    "NamedScan",
    "Seen",
    "StoredFeatures",
    "TensorStore",
    "encoder_grid",
    "extract",
    "extract_many",
]
