"""The DINOv2 vision transformer in 2D, 2.5D and 3D, shared by the encoders and the pretraining."""

from tapct.vit.vision_transformer import Tokens, VisionTransformer, vit_base, vit_small, vit_tiny

__all__ = ["Tokens", "VisionTransformer", "vit_base", "vit_small", "vit_tiny"]
