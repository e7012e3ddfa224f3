"""Radiology reports as text: which findings a text has, read by a machine, and how like two texts are in words."""
