"""Hand-made features of a region of a CT, as the Image Biomarker Standardisation Initiative (IBSI) defines them.

Definitions and names: Zwanenburg et al., The image biomarker standardisation initiative, arXiv 1612.07003 and
Radiology 2020. They are computed by the library mirp (Zwanenburg et al., JOSS 2024), and the steps up to them are
spelled out here, so that each is a choice of ours: voxels as they come (who calls resamples), intensities rounded to
whole HU, those outside a range left out of the intensities but not of the shape, grey levels of a fixed width from the
low end of that range.

Two families are left out: local intensity, which is for PET, and the intensity-volume histogram. Of the others so is
what is not defined of every region, or says nothing new: features that divide by a mean, which in HU may be 0
(coefficient of variation, quartile coefficient of dispersion, centre of mass shift) or by the volume of an ellipsoid,
which is 0 of a flat region; the integrated intensity, which needs a unit with a zero; Moran's I and Geary's C, which
are estimated at random; and of several that are one number up to a constant, all but one.
"""

import math
import warnings
from typing import Any

import numpy as np

from tapct.errors import EncoderError

RANGE_HU = (-1000.0, 1000.0)
"""Intensities that count: from air to where only cortical bone, calcium and metal are denser."""

BIN_HU = 25.0
"""Width of a grey level, as in IBSI's own configurations of CT (A and C)."""

LEAST_VOXELS = 8
"""Of a region: with fewer, there are too few neighbours to speak of a texture."""

FAMILIES = {
    "morph": (
        *("volume", "area_mesh", "av", "sphericity", "diam", "vol_dens_conv_hull", "area_dens_conv_hull"),
        *("vol_dens_aabb", "area_dens_aabb", "pca_maj_axis", "pca_min_axis", "pca_least_axis"),
        *("pca_elongation", "pca_flatness"),
    ),
    "stat": (
        *("mean", "var", "skew", "kurt", "median", "min", "p10", "p90", "max", "iqr", "range", "mad", "rmad"),
        *("medad", "energy", "rms"),
    ),
    "ih": ("mode", "entropy", "uniformity", "max_grad", "max_grad_g", "min_grad", "min_grad_g"),
    "cm": (
        *("joint_max", "joint_avg", "joint_var", "joint_entr", "diff_avg", "diff_var", "diff_entr", "sum_var"),
        *("sum_entr", "energy", "contrast", "inv_diff", "inv_diff_norm", "inv_diff_mom", "inv_diff_mom_norm"),
        *("inv_var", "corr", "auto_corr", "clust_shade", "clust_prom", "info_corr1", "info_corr2"),
    ),
    "rlm": (
        *("sre", "lre", "lgre", "hgre", "srlge", "srhge", "lrlge", "lrhge", "glnu", "glnu_norm", "rlnu", "rlnu_norm"),
        *("r_perc", "gl_var", "rl_var", "rl_entr"),
    ),
    "szm": (
        *("sze", "lze", "lgze", "hgze", "szlge", "szhge", "lzlge", "lzhge", "glnu", "glnu_norm", "zsnu", "zsnu_norm"),
        *("z_perc", "gl_var", "zs_var", "zs_entr"),
    ),
    "dzm": ("sde", "lde", "sdlge", "sdhge", "ldlge", "ldhge", "zdnu", "zdnu_norm", "zd_var", "zd_entr"),
    "ngt": ("coarseness", "contrast", "busyness", "complexity", "strength"),
    "ngl": (
        *("lde", "hde", "lgce", "hgce", "ldlge", "ldhge", "hdlge", "hdhge", "glnu", "dcnu", "dcnu_norm"),
        *("dc_var", "dc_entr", "dc_energy"),
    ),
}
"""By family (shape, intensity statistics and histogram; co-occurrence, run length, size zone, distance zone, grey tone
difference and dependence matrices, in 3D, directions merged) the names of the features that mirp has for them."""

NAMES = tuple(f"{family}_{name}" for family, names in FAMILIES.items() for name in names)
"""All of them, in the order of a vector."""

_IN_MIRP = ("morph", "stat", "ih", "cm", "rlm", "szm", "dzm", "ngtdm", "ngldm")


def measured(
    hu: np.ndarray,
    inside: np.ndarray,
    spacing_mm: tuple[float, float, float],
    *,
    range_hu: tuple[float, float] = RANGE_HU,
    bin_hu: float = BIN_HU,
) -> dict[str, float]:
    """Returns the features of a region by name, those of `NAMES` in their order.

    Args:
        hu: (D, H, W) Hounsfield units.
        inside: (D, H, W) booleans, the voxels of the region.
        spacing_mm: Of the voxels, (z, y, x): lengths are in mm, areas in mm2, volumes in mm3.
        range_hu: Lowest and highest intensity that counts.
        bin_hu: Width of a grey level.

    Raises:
        EncoderError: If mirp is not installed, fewer than `LEAST_VOXELS` of the region are in the range, or a feature
            of it is not defined.
    """
    _require_mirp()
    where = _box(inside)
    hu, inside = np.rint(hu[where].astype(np.float64)), inside[where]
    counting = inside & (hu >= range_hu[0]) & (hu <= range_hu[1])
    if (voxels := int(counting.sum())) < LEAST_VOXELS:
        raise EncoderError(
            f"{voxels} of the {int(inside.sum())} voxels of its region, of {_times(spacing_mm)} mm, lie within "
            f"{range_hu[0]:g} to {range_hu[1]:g} HU: features of fewer than {LEAST_VOXELS} are not defined. Leave the "
            "case out (split_file), or take smaller voxels (radiomics+spacing_mm=0.5x0.5x0.5)"
        )
    found = _computed(hu, inside, spacing_mm, range_hu, bin_hu)
    if undefined := [name for name in NAMES if not math.isfinite(found[name])]:
        raise EncoderError(
            f"{', '.join(undefined)} of its region of {voxels} voxels of {_times(spacing_mm)} mm are not defined. "
            "Leave the case out (split_file)"
        )
    return {name: found[name] for name in NAMES}


def _computed(
    hu: np.ndarray,
    inside: np.ndarray,
    spacing_mm: tuple[float, float, float],
    range_hu: tuple[float, float],
    bin_hu: float,
) -> dict[str, float]:
    """Returns what mirp says of the region, of some regions not finite."""
    from mirp._features.feature_generator import generate_features
    from mirp._images.ct_image import CTImage
    from mirp._masks.base_mask import BaseMask
    from mirp.settings.feature_parameters import FeatureExtractionSettingsClass

    place: dict[str, Any] = {
        "image_spacing": spacing_mm,
        "image_origin": (0.0, 0.0, 0.0),
        "image_orientation": np.eye(3),
    }
    image = CTImage(image_data=hu, image_modality="ct", **place)
    mask = BaseMask(roi_name="region", image_data=inside, **place)
    mask.resegmentise_mask(image=image, resegmentation_method="range", intensity_range=range_hu)
    settings = FeatureExtractionSettingsClass(
        base_feature_families=list(_IN_MIRP),
        base_discretisation_method="fixed_bin_size",
        base_discretisation_bin_width=float(bin_hu),
    )
    features = [feature for feature in generate_features(settings) if feature.abbr_name in NAMES]
    found: dict[str, float] = {}
    with warnings.catch_warnings(), np.errstate(all="ignore"):  # of what is not defined, which is looked for here
        warnings.simplefilter("ignore")
        for before, feature in zip([None, *features], features, strict=False):
            feature.compute(image=image, mask=mask)
            if before is not None:
                before.clear_local_cache(other=feature)
            found[feature.abbr_name] = float(feature.value)
    for feature in features:
        feature.clear_cache()
    # A sum over pairs of unlike grey levels: of a region of one it is empty, which mirp takes for unknown.
    if found["ih_uniformity"] == 1.0:
        found["cm_inv_var"] = 0.0
    return found


def _box(inside: np.ndarray) -> tuple[slice, ...]:
    """Returns the block that holds all of a region; the whole array where there is none."""
    spans = [np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    return tuple(slice(int(span[0]), int(span[-1]) + 1) if len(span) else slice(None) for span in spans)


def _times(spacing_mm: tuple[float, float, float]) -> str:
    return " x ".join(f"{mm:g}" for mm in spacing_mm)


def _require_mirp() -> None:
    """Refuses to continue without mirp.

    Raises:
        EncoderError: If it cannot be imported.
    """
    try:
        import mirp  # noqa: F401
    except ImportError as error:
        raise EncoderError(
            f"radiomics needs the library mirp, which cannot be imported ({error}): pip install "
            "'tapct-bench[radiomics]', or of a checkout pip install -c constraints.txt -e '.[radiomics]'"
        ) from error
