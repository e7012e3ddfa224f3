"""From the host to a device without waiting for it."""

import torch


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Moves a small tensor from the CPU to a device without waiting for it."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
