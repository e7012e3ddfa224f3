"""Features of whole scans: extraction by sliding window, and keeping them."""

from tapct.features.extract import CaseFeatures, encoder_grid, extract
from tapct.features.memory import FeatureMemory

__all__ = ["CaseFeatures", "FeatureMemory", "encoder_grid", "extract"]
