"""The settings of probes are declared once, and are keys of every probe's config."""

from dataclasses import MISSING, fields

import jsonargparse
import pytest

from tapct import kinds
from tapct.probes.settings import ProbeSettings

WHOLE_SCANS = {"segmentation", "localisation"}
"""Kinds whose probes never fit windows to small crops."""


@pytest.mark.parametrize("name", kinds.KINDS)
def test_every_setting_is_a_flat_key_of_a_config_with_its_default_and_description(name):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    keys = parser.add_class_arguments(kinds.kind(name).probe_class(), fail_untyped=False)
    defaults, described = parser.get_defaults(), " ".join(parser.format_help().split())
    for one in fields(ProbeSettings):
        if one.name == "fit_windows" and name in WHOLE_SCANS:
            assert one.name not in keys
            continue
        assert one.default is not MISSING
        assert one.name in keys
        if one.name != "optimizer":  # there it is the path of the class
            assert defaults[one.name] == one.default
    assert "Run k starts from seed + k" in described


def test_an_unknown_mode_or_setting_is_refused():
    with pytest.raises(ValueError, match="sometimes"):
        ProbeSettings(features="sometimes")
    with pytest.raises(TypeError, match="window_overlop"):
        ProbeSettings(window_overlop=0.5)
