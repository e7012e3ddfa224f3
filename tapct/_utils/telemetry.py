"""The switch that keeps a hospital's machine from phoning home."""

import os

VARIABLE = "ORT_DISABLE_TELEMETRY"
"""eva imports onnxruntime, whose Linux wheels send telemetry from 1.29 on unless this is 1 before the import."""


def is_off() -> bool:
    """Returns whether the environment switches the telemetry off."""
    return os.environ.get(VARIABLE) == "1"
