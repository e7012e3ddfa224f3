"""The decoder that eva lacks for 3D transformers: linear, as everywhere in this project."""

import torch
import torch.nn.functional as F
from eva.vision.models.networks.decoders.segmentation.base import Decoder
from eva.vision.models.networks.decoders.segmentation.typings import DecoderInputs
from torch import nn
from typing_extensions import override

from tapct.errors import EncoderError


class LinearDecoder(Decoder):
    """One linear map of the features of a patch to its class logits, upsampled trilinearly to the size of the image."""

    def __init__(self, in_features: int, num_classes: int) -> None:
        """Initializes the decoder.

        Args:
            in_features: Channels of the map: `feature_dim` of the encoder's card (`tapct list encoders`).
            num_classes: Classes, with the background.
        """
        super().__init__()
        self.classifier = nn.Conv3d(in_features, num_classes, kernel_size=1)

    @override
    def forward(self, decoder_inputs: DecoderInputs) -> torch.Tensor:
        features, size, _ = DecoderInputs(*decoder_inputs)
        shapes = [tuple(level.shape) for level in features]
        wanted = self.classifier.in_channels
        if len(features) != 1 or features[0].ndim != 5 or features[0].shape[1] != wanted:
            raise EncoderError(f"LinearDecoder takes one map (B, {wanted}, d, h, w), but got {shapes}: see in_features")
        if len(size) != 3:
            raise EncoderError(f"LinearDecoder takes scans, but the image has the size {tuple(size)}: spatial_dims: 3")
        return F.interpolate(self.classifier(features[0]), size=tuple(size), mode="trilinear", align_corners=False)
