"""Adapters of published CT encoders, one file each."""
