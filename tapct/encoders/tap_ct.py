"""The six TAP-CT encoders (Veenboer et al., "TAP-CT", sections 3.1 and 3.2, Appendix B).

2D, 2.5D and 3D differ in patch and window only. Scans keep their slices and are resized in the plane
(Appendix C.2); voxels are clipped and normalised with the statistics of the pretraining data.

The published processor, as a third party reports its configuration (its code was not read by us): slices to 224 pixels,
then air of -1024 HU behind the last slice up to a multiple of `divisible_pad_z` (4 in 3D, 1 in 2D), clip, normalise.

* It imports torch.nn.functional and speaks of a size (z, H, W). In torch that is the interpolation of 5-D arrays, which
  is not antialiased, nor can be. Hence `in_plane_filter="linear"`: inferred, not read.
* Its padding and ours, of -1008 HU, are the same number after the clip. Ours fills the window too (12 slices in 3D).
"""

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from tapct import vit
from tapct.encoders.base import Encoder, Features
from tapct.encoders.card import EncoderCard, Weights
from tapct.encoders.exported import Intensities, check_trained_like, encode
from tapct.encoders.input_sheet import Declared, HuWindow, InputSheet
from tapct.encoders.weights import RANDOM, from_dinov2

# Appendix B: foreground statistics of the 104,405 pretraining volumes.
CLIP_HU = (-1008.0, 822.0)
MEAN_HU = -86.8086
STD_HU = 322.6347


class TapCT(Encoder):
    """A DINOv2 vision transformer on CT, in 2D, 2.5D or 3D."""

    size: ClassVar[str]
    patch_size: ClassVar[tuple[int, ...]]
    """Two numbers for the 2D models, whose convolution is 2D as well; three for the others."""

    native_window: ClassVar[tuple[int, ...]]
    """The window of pretraining, whose patch grid the learned positions have."""

    def load(self) -> None:
        """Builds the network and loads its weights.

        Raises:
            WeightsError: If the weights do not fit, or were exported by a run on other intensities or other crops.
        """
        if self.weights_source != RANDOM:
            used = Intensities(CLIP_HU, MEAN_HU, STD_HU)
            check_trained_like(Path(self.weights_source), used, self.card.in_plane_filter, self.card.name)
        super().load()

    def build(self) -> nn.Module:
        """Returns the vision transformer at its pretraining window, four registers (Table 7)."""
        make = {"s": vit.vit_small, "b": vit.vit_base}[self.size]
        return make(window_size=self.native_window, patch_size=self.patch_size, num_register_tokens=4)

    def input_sheet(self) -> InputSheet:
        """Returns where its input was read."""
        return InputSheet(
            orientation="third party: SimpleITK's LPS arrays, (z, y, x)",
            grid="paper: Appendix C.2",
            resizing=Declared("linear, not averaged: inferred, not read", "third party: its published configuration"),
            hu_window=HuWindow(*CLIP_HU, "paper: Appendix B"),
            normalisation=Declared(
                f"after clipping, z-score of mean {MEAN_HU} and deviation {STD_HU} HU", "paper: Appendix B"
            ),
            padding="third party: its published configuration, -1024 HU before clipping",
            window="paper: sections 3.1 and 3.2",
            patches="paper: section 3.1, patches",
            embedding=Declared("after the final norm", "paper: section 4.5"),
        )

    def _encode(self, windows_hu: torch.Tensor) -> Features:
        return encode(self.network, Intensities(CLIP_HU, MEAN_HU, STD_HU).normalise(windows_hu))

    def _convert(self, state_dict: dict[str, Any]) -> dict[str, torch.Tensor]:
        return from_dinov2(state_dict)


def _card(size: str, kind: str, window: tuple[int, int, int], stride: tuple[int, int, int], params: int) -> EncoderCard:
    dim = {"s": 384, "b": 768}[size]
    name = f"tap-{size}-{kind}"
    return EncoderCard(
        name=name,
        display_name=name.upper(),
        window_size=window,
        spacing_mm=None,
        in_plane_size=224,
        in_plane_filter="linear",  # inferred, not read: see above
        pad_hu=CLIP_HU[0],  # of the processor's -1024 HU the clip leaves the same
        feature_stride=stride,
        feature_dim=dim,
        embedding_dim=dim,
        has_cls=True,
        num_params=params,
        weights=Weights(
            # The pages of the 2D and 3D models were seen; of the 2.5D ones no name is known.
            repository=None if kind == "2.5d" else f"huggingface.co/fomofo/tap-ct-{size}-{kind}",
            file="model.safetensors",
            licence="CC BY-NC 4.0 (stated by a third party, not read on its page)",
        ),
        pretraining_data=("in-house oncological CT, 105K volumes",),
        reference="Veenboer et al., TAP-CT: 3D Task-Agnostic Pretraining of CT Foundation Models, 2025. "
        "The in-plane filter is inferred, not read: the published processor imports torch.nn.functional, whose "
        "interpolation of volumes has no antialiasing",
    )


class _Tap2D(TapCT):
    patch_size = (16, 16)
    native_window = (224, 224)


class _Tap2p5D(TapCT):
    patch_size = (1, 16, 16)
    native_window = (6, 224, 224)


class _Tap3D(TapCT):
    patch_size = (4, 8, 8)
    native_window = (12, 224, 224)


class TapS2D(_Tap2D):
    """TAP-S-2D."""

    size = "s"
    card = _card("s", "2d", (1, 224, 224), (1, 16, 16), 21_480_192)


class TapB2D(_Tap2D):
    """TAP-B-2D."""

    size = "b"
    card = _card("b", "2d", (1, 224, 224), (1, 16, 16), 85_427_712)


class TapS2p5D(_Tap2p5D):
    """TAP-S-2.5D."""

    size = "s"
    card = _card("s", "2.5d", (6, 224, 224), (1, 16, 16), 21_856_512)


class TapB2p5D(_Tap2p5D):
    """TAP-B-2.5D."""

    size = "b"
    card = _card("b", "2.5d", (6, 224, 224), (1, 16, 16), 86_180_352)


class TapS3D(_Tap3D):
    """TAP-S-3D."""

    size = "s"
    card = _card("s", "3d", (12, 224, 224), (4, 8, 8), 22_308_096)


class TapB3D(_Tap3D):
    """TAP-B-3D."""

    size = "b"
    card = _card("b", "3d", (12, 224, 224), (4, 8, 8), 87_083_520)
