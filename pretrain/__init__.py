"""Self-supervised pretraining of CT encoders: DINOv2 in 2D, 2.5D and 3D (Veenboer et al., "TAP-CT")."""
