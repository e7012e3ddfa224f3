"""Whether values can be the Hounsfield units of a CT, judged by how they are distributed and not by their extremes.

Two landmarks fix the scale of a CT: air at -1000 HU, and fat, muscle and organs within 200 HU of water at 0. Each rule
below asks where one of them lies. The thresholds stand between what was measured on real scans and on blocks cut out
of them, and on the same with the mistake made on purpose: docs/methodology.md, "What is taken for HU", has the figures.
"""

import math

import numpy as np

LARGEST_HU = 32768
"""No CT in HU exceeds this in magnitude: the range of the 16 bits that scanners store."""

PADDING_BELOW_HU = -1500
"""What lies below is no noise of air (-1000), but what fills the places outside the field of view."""

LEAST_HU = -1024.0
"""The least that a scanner's 12 bits hold at the usual intercept. Less was not measured."""

SAMPLE = 1_000_000
"""About so many voxels are looked at, evenly over the scan."""

_AGAIN = "Convert the scan again from its DICOM files"
_BEFORE = "Give the scan as it was before"


def implausible_hu(array: np.ndarray) -> str | None:
    """Judges whether values can be the HU of a CT.

    Padding far below air is passed over. A crop without air or fat, or with little but lung or bone, can be HU.

    Args:
        array: Finite values of any number type, with one axis or more, not empty.

    Returns:
        None where they can be. Else one clause, to be said of the scan ("has values from 0 to 4095 and is not a CT
        in HU: ..."), of what they look like and how to fix it, without a full stop.
    """
    low, high = float(array.min()), float(array.max())
    reason = _out_of_range(low, high) or _misplaced(_Values(_sample(array)))
    return None if reason is None else f"has values from {low:g} to {high:g} and is not a CT in HU: {reason}"


def raise_padding(hu: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Raises padding outside the field of view (-2000, -3024, -8192, ...) to air: encoders that do not clip see it.

    Values between padding and air, of noise or of an interpolated border, stay as they are.

    Args:
        hu: (D, H, W) float32 HU.

    Returns:
        The values, with what lies below `PADDING_BELOW_HU` at `LEAST_HU`: the same array where nothing does. And what
        a user should know of it: one sentence, or none.
    """
    padding = hu < PADDING_BELOW_HU
    if not padding.any():
        return hu, ()
    values, numbers = np.unique(np.rint(hu[padding]), return_counts=True)
    note = (
        f"{numbers.sum() / hu.size:.2%} of the voxels lie below {PADDING_BELOW_HU} HU, mostly at "
        f"{values[numbers.argmax()]:g}: padding outside the field of view, raised to {LEAST_HU:g} HU."
    )
    return np.where(padding, np.float32(LEAST_HU), hu), (note,)


class _Values:
    """Values in ascending order, so that every share and quantile is a search."""

    def __init__(self, ascending: np.ndarray) -> None:
        self.ascending = ascending

    @property
    def low(self) -> float:
        return float(self.ascending[0])

    @property
    def high(self) -> float:
        return float(self.ascending[-1])

    def share(self, low: float, high: float = math.inf) -> float:
        """The share of low <= value < high."""
        first, last = np.searchsorted(self.ascending, [low, high])
        return float(last - first) / max(1, len(self.ascending))

    def below(self, high: float) -> float:
        return self.share(-math.inf, high)

    def share_of(self, value: float) -> float:
        """The share of exactly this value."""
        return self.share(value, float(np.nextafter(np.float32(value), np.float32(np.inf))))

    def quantile(self, share: float) -> float:
        return float(self.ascending[round(share * (len(self.ascending) - 1))])

    def above(self, least: float) -> "_Values":
        return _Values(self.ascending[np.searchsorted(self.ascending, least) :])


def _sample(array: np.ndarray) -> np.ndarray:
    """Every n-th voxel, ascending; n shares no factor with the length of a row, so that all columns are met."""
    step = max(1, array.size // SAMPLE)
    while math.gcd(step, array.shape[-1]) > 1:
        step += 1
    return np.sort(array.reshape(-1)[::step].astype(np.float32))


# -- The rules: each returns what is wrong, or None ---------------------------------------------------------


def _out_of_range(low: float, high: float) -> str | None:
    if low == high:
        return "they are all the same, so there is no scan in it. Take the file from its origin again"
    if low >= 0 and high <= 1:
        return f"all within [0, 1], so already normalised. {_BEFORE}"
    if low < -LARGEST_HU or high > LARGEST_HU:
        return (
            f"beyond {LARGEST_HU} in magnitude, which no CT in HU reaches; its slope, intercept or number type is "
            f"wrong. {_AGAIN}"
        )
    return None


def _misplaced(values: _Values) -> str | None:
    measured = values.above(PADDING_BELOW_HU)
    return (
        _nothing_measured(measured)
        or _intercept_lost(measured)
        or _padding(values, measured)
        or _no_contrast(measured)
        or _no_tissue(measured)
        or _sign_turned(measured)
        or _cut_off(measured)
        or _no_organs(measured)
    )


def _nothing_measured(measured: _Values) -> str | None:
    if len(measured.ascending) == 0 or measured.low == measured.high:
        return f"padding, and nothing of a patient next to it. {_AGAIN}"
    return None


def _padding(values: _Values, measured: _Values) -> str | None:
    """Padding is one value, or two, next to air and tissue in their own places; air of a wrong scale has noise.

    Where a scan was resampled after it was padded, its padding is one value to a rounding, but for a narrow border.
    """
    below = values.ascending[: np.searchsorted(values.ascending, PADDING_BELOW_HU)]
    numbers = np.sort(np.unique(np.rint(below), return_counts=True)[1]) / len(values.ascending)
    varied, constant = float(numbers[:-2].sum()), float(numbers[-2:].sum())
    # Outside a round field of view lie 1 - pi/4 = 21 % of a square. What holds more, where air of a doubled slope
    # or intercept would lie, may be that air, unless there is air and tissue in their own places as well.
    doubled = values.share(-2060, -1990)
    instead = doubled > 0.25 and (measured.share(-1100, -850) < 0.001 or measured.share(-200, 200) < 0.1)
    if varied < max(0.02, 0.4 * constant) and not instead:
        return None
    middle = float(np.median(below))
    return (
        f"{max(varied, doubled):.0%} of them about {middle:.0f}, as air (-1000 HU) has "
        f"{'in ten times HU' if middle < -5000 else 'where an intercept or a slope was applied twice'}. {_AGAIN}"
    )


def _no_contrast(values: _Values) -> str | None:
    width, middle = values.quantile(0.99) - values.quantile(0.01), values.quantile(0.5)
    if width < 15 and abs(middle) < 15:
        return (
            f"98 % of them within {width:.3g} of one another about {middle:.3g}, so z-scores or normalised otherwise, "
            f"SUV of a PET, or a mask. {_BEFORE}"
        )
    return None


def _no_tissue(values: _Values) -> str | None:
    """Nothing, or next to nothing, near water: only air, or the whole scale lies elsewhere."""
    tissue, solid = values.share(-200, 200), values.share(-500)
    if solid < 0.0005 and values.quantile(0.5) < -900:
        return "nothing but air, without a patient in it. Check that this is the scan"
    near = f"{tissue:.2%} of them within 200 of water (0 HU), where fat, muscle and organs lie, but"
    if tissue < 0.02 and values.share(200) > 0.2:
        return (
            f"{near} {values.share(200):.0%} above, as in stored values that lack their RescaleIntercept (usually "
            f"-1024), with a wrong slope, or with dark for bright. {_AGAIN}"
        )
    lower = tissue < 0.5 * solid and values.below(-1100) >= 0.1
    if tissue < 0.0005 or (tissue < 0.02 and lower):
        return (
            f"{near} {values.share(-1224, -824):.0%} within 200 of -1024, as where the RescaleIntercept was applied "
            f"twice. {_AGAIN}"
        )
    return None


def _intercept_lost(values: _Values) -> str | None:
    """Air at 0 and water at 1024 (or 1000); nothing below, unless padding that is no lower than `PADDING_BELOW_HU`."""
    for _ in range(2):
        inside = values.above(float(np.nextafter(np.float32(values.low), np.float32(np.inf))))
        if values.low < -900 and values.share_of(values.low) >= 0.01 and inside.below(-1000) < 0.002:
            values = inside
    hard, lump, between = values.share(800), values.share(874, 1174), values.share(300, 800)
    narrow = lump > 0.5 * hard and lump > between
    no_fat = values.below(-60) < 0.002
    few = 0.0005 <= hard < 0.1 and values.quantile(0.01) >= -30 and (hard >= 0.02 or narrow)
    many = hard >= 0.1 and lump > 0.4 * hard
    if values.below(-200) < 0.002 and ((no_fat and (few or many)) or (hard >= 0.2 and narrow)):
        return (
            f"none where air lies (-1000 HU) but {hard:.1%} of them from 800 up, as in stored values that lack their "
            f"RescaleIntercept (usually -1024), or in MR. {_AGAIN}"
        )
    return None


def _sign_turned(values: _Values) -> str | None:
    """A lump at +1000 that ends there, as no bone does, and more of it than of air."""
    lump, between = values.share(800, 1050), values.share(300, 700)
    above = values.share(1100) - values.share_of(values.high)  # padding was turned as well
    if lump > max(0.1, 20 * above, between, values.below(-850)):
        return (
            f"{lump:.0%} of them from 800 to 1050, hardly any above and {values.below(-850):.1%} where air lies (-1000 "
            f"HU): the sign of its RescaleSlope is turned, or it lacks its RescaleIntercept. {_AGAIN}"
        )
    return None


def _cut_off(values: _Values) -> str | None:
    """Clipped to a window above air, or on the plain background of another modality."""
    if (values.low, values.high) in ((-128, 127), (-127, 127), (0, 255)):
        return f"just the range of 8 bits, so a window was applied. {_BEFORE}"
    in_8_bits = values.low >= 0 and values.high <= 255
    if (values.low > -700 and _heaped(values, values.low)) or (in_8_bits and _heaped(values, values.high)):
        return (
            f"{values.share_of(values.low):.1%} exactly the lowest and {values.share_of(values.high):.1%} the highest, "
            "so a window was applied that cut off air (-1000 HU), or it is the background of an MR, a PET or a mask. "
            f"{_BEFORE}"
        )
    if (values.low > -500 and values.quantile(0.3) < values.low + 6) or (values.low >= 0 and values.quantile(0.05) < 8):
        return (
            f"30 % of them up to {values.quantile(0.3):.3g}, as air or background lie but no tissue: another slope or "
            f"window, MR, PET or a mask. {_BEFORE}"
        )
    return None


def _heaped(values: _Values, end: float) -> bool:
    """Whether an end of the range holds more than its neighbourhood, as clipping leaves it."""
    width = 0.05 * (values.quantile(0.99) - values.quantile(0.01))
    heap = values.share_of(end)
    return heap >= 0.01 and heap > 2 * (values.share(end - width, end + width) - heap)


def _no_organs(values: _Values) -> str | None:
    """Without air and fat it must be a crop of organs, about water and blood."""
    organs = values.share(-200, 600)
    if values.below(-60) < 0.002 and organs < 0.75:
        return (
            f"none where air and fat lie and only {organs:.0%} where organs do (-200 to 600), as in stored values that "
            f"lack their RescaleIntercept (usually -1024), in MR and in PET. {_AGAIN}"
        )
    return None
