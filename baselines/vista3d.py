"""VISTA3D (He et al., CVPR 2025): the SegResNet encoder of a promptable segmentation model for CT.

Facts: Project-MONAI/VISTA, vista3d/: vista3d/build_vista3d.py (network), configs/infer.yaml (HU range, orientation,
spacing, window, weights) and configs/train/hyper_parameters_stage1.yaml (data, padding).

* The norm is an instance norm with weights and biases; MONAI's default for this class is a batch norm.
* Both published files, of MONAI 1.3 and of 1.4, hold the whole model and differ in the names of its point head; what
  is outside `image_encoder.encoder` is dropped. NV-Segment-CTMR is the same network fine-tuned on MR as well: its
  file would load, but is another model.
* Upstream's inference clips HU before it resamples, its training after; here a scan is resampled first, as in
  training. The two differ at edges between voxels of which one lies outside the range.
* A window needs two patches at least: the instance norm of a single voxel is undefined.
"""

import torch
from torch import nn

from tapct.encoders import Declared, Encoder, EncoderCard, Features, HuWindow, InputSheet, Weights

CLIP_HU = (-963.8247715525971, 1053.678477684517)  # to 0..1: configs/infer.yaml

PREFIX = "image_encoder.encoder."

# train_datasets in hyper_parameters_stage1.yaml; its Task03 is LiTS17.
PRETRAINING_DATA = (
    "AbdomenCT-1K", "AeroPath", "AMOS22", "BTCV-Abdomen", "BTCV-Cervix", "Covid19", "CRLM-CT", "CT-ORG",
    "CTPelvic1K-CLINIC", "FLARE22", "LIDC-IDRI", "LiTS17", "MSD Task06 Lung", "MSD Task07 Pancreas",
    "MSD Task08 HepaticVessel", "MSD Task09 Spleen", "MSD Task10 Colon", "Multi-organ Abdominal CT (BTCV, TCIA)",
    "NLST", "Pancreas-CT", "StonyBrook-CT", "TCIA Colon", "TotalSegmentator v2", "VerSe",
)  # fmt: skip


class Vista3D(Encoder):
    """The image encoder of VISTA3D."""

    axes = "RAS"
    patch_centre = (0.0, 0.0, 0.0)  # four convolutions of stride 2 and padding 1: patch i is on voxel 16 i
    least_patches = 2  # instance norm on the last map
    authors = "baselines.authors.vista3d:Vista3DAuthors"
    card = EncoderCard(
        name="vista3d",
        display_name="VISTA3D",
        window_size=(128, 128, 128),
        spacing_mm=(1.5, 1.5, 1.5),
        in_plane_size=None,
        in_plane_filter="linear",  # infer.yaml: MONAI's bilinear, which averages nothing
        pad_hu=CLIP_HU[0],  # SpatialPadd fills with 0, after scaling
        feature_stride=(16, 16, 16),
        feature_dim=768,
        embedding_dim=768,
        has_cls=False,
        num_params=174_951_120,
        weights=Weights(
            repository="huggingface.co/nvidia/NV-Segment-CT",
            file="vista3d_pretrained_model/model_monai1.3.pt",
            licence="conflicting: NVIDIA OneWay Noncommercial License, and NVIDIA Open Model License (both in "
            "vista3d/README.md); taken as non-commercial",
        ),
        pretraining_data=PRETRAINING_DATA,
        reference="He et al., VISTA3D: A Unified Segmentation Foundation Model For 3D Medical Imaging, CVPR 2025",
    )

    def build(self) -> nn.Module:
        """Returns the encoder; MONAI gives its instance norms weights and biases."""
        from monai.networks.nets.segresnet_ds import SegResEncoder

        return SegResEncoder(init_filters=48, blocks_down=(1, 2, 2, 4, 4), norm="instance")

    def input_sheet(self) -> InputSheet:
        """Returns where its input was read."""
        return InputSheet(
            orientation="authors: configs/infer.yaml",
            grid="authors: configs/infer.yaml",
            resizing=Declared(
                "bilinear, in MONAI without averaging, after clipping (in training before it)",
                "authors: configs/infer.yaml",
            ),
            hu_window=HuWindow(*CLIP_HU, "authors: configs/infer.yaml"),
            normalisation=Declared("the HU window to 0 to 1, linear", "authors: configs/infer.yaml"),
            padding="authors: configs/train/hyper_parameters_stage1.yaml, 0 after scaling",
            window="authors: configs/infer.yaml",
            patches="authors: vista3d/build_vista3d.py, padded convolutions",
            embedding=Declared("mean of the last map", "ours: the authors pool nothing"),
        )

    def _encode(self, windows_hu: torch.Tensor) -> Features:
        low, high = CLIP_HU
        features = self.network((windows_hu.clamp(low, high) - low) / (high - low))[-1]
        return Features(features, features.mean((2, 3, 4)), None)

    def _convert(self, state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        # Dropped on purpose: the decoders and heads, which is everything outside the encoder.
        return {key.removeprefix(PREFIX): tensor for key, tensor in state_dict.items() if key.startswith(PREFIX)}
