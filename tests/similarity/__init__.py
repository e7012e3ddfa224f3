"""Tests of what encoders have in common."""
