"""CT-CLIP (Hamamci et al.): CTViT, a factorised 3D vision transformer with a codebook, trained with chest CT reports.

Facts: ibrahimethemhamamci/CT-CLIP a2a155c: transformer_maskgit's ctvit.py and attention.py (network), ct_clip.py
(embedding), scripts/run_zero_shot.py (sizes) and data_inference_nii.py (orientation, spacing, HU range, padding); and
vector-quantize-pytorch 1.1.2, which it pins. The network is written anew from those facts.

* **The temporal position convolution sees scrambled tokens**: they come as ((b x y), z, c) and are read as
  (b, z, x, y, c). It was trained so and is kept: put right, it moves the tokens by their own length.
* Keys and values are made of the tokens before their norm, queries after it. The norm of a context, which is in the
  file, is never used, and dropped.
* The map is *quantised*, as the authors use it: each patch is the raw vector of the code nearest to its token in angle.
  `features="tokens"` is the map before. In train mode each call would move the codebook; here nothing does.
* The embedding is what is compared with reports: codes averaged over slices, projected, of length 1. The projection is
  bound to 24 x 24 patches, so that windows are 480 voxels in the plane; slices may be any multiple of 10.
* Upstream crops or pads a scan about its centre to 240 x 480 x 480, clips before it resamples, and averages nothing
  where it shrinks. Here scans are tiled, clipped last, and slices averaged along z.
"""

import re
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional as F

from tapct.encoders import Declared, Encoder, EncoderCard, Features, HuWindow, InputSheet, Weights
from tapct.errors import EncoderError

CLIP_HU = (-1000.0, 1000.0)  # to -1..1: data_inference_nii.py
PATCH = (10, 20, 20)  # run_zero_shot.py: temporal_patch_size, patch_size
DIM, DEPTH, HEADS, HEAD_DIM, CODES = 512, 4, 8, 32, 8192  # run_zero_shot.py
SCALE = 8.0  # attention.py: of the cosines of queries and keys, in place of 1 / sqrt(HEAD_DIM)
CODES_AT_ONCE = 4096  # tokens that are compared with all codes together: 128 MiB

# Dropped on purpose: the encoder of reports, both projections of the variant that CTCLIP copies and never uses, the
# tokeniser of single frames, the decoder, the counts of the codebook, and the norm of contexts.
DROPPED = re.compile(
    r"text_transformer\.|to_text_latent(_extra)?\.|to_visual_latent_extra\.|temperature$|"
    r"visual_transformer\.(to_patch_emb_first_frame|to_pixels(_first_frame)?)\.|"
    r"visual_transformer\.vq\._codebook\.(initted|cluster_size)$|"
    r"visual_transformer\.enc_(spatial|temporal)_transformer\.layers\.\d+\.1\.context_norm\."
)


class CTCLIP(Encoder):
    """CT-CLIP's image encoder."""

    axes = "SLP"
    in_plane: ClassVar[int] = 480
    """Voxels of a window along x and y: what the projection of the embedding has weights for."""

    authors = "baselines.authors.ct_clip:CTCLIPAuthors"
    card = EncoderCard(
        name="ct-clip",
        display_name="CT-CLIP",
        window_size=(240, 480, 480),
        spacing_mm=(1.5, 0.75, 0.75),
        in_plane_size=None,
        in_plane_filter="linear",  # data_inference_nii.py: torch's trilinear interpolation
        pad_hu=CLIP_HU[0],
        feature_stride=PATCH,
        feature_dim=DIM,
        embedding_dim=DIM,
        has_cls=False,
        num_params=174_416_712,
        weights=Weights(
            repository="huggingface.co/datasets/ibrahimhamamci/CT-RATE",
            file="models/CT-CLIP-Related/CT-CLIP_v2.pt",
            licence="CC BY-NC-SA 4.0 (non-commercial)",
            gated=True,
        ),
        pretraining_data=("CT-RATE",),
        reference="Hamamci et al., Developing Generalist Foundation Models from a Multimodal Dataset for 3D Computed "
        "Tomography, arXiv 2403.17834, 2024",
    )

    def __init__(
        self, weights: str | Path | None = None, *, features: Literal["codes", "tokens"] = "codes", **options: Any
    ) -> None:
        """Builds the network and loads its weights.

        Args:
            weights: As in `Encoder`.
            features: What the map is: "codes", of the codebook, or "tokens", what they are chosen by. The embedding is
                of the codes in both.
            options: As in `Encoder`.

        Raises:
            EncoderError: If an option is unknown.
        """
        if features not in ("codes", "tokens"):
            raise EncoderError(f"{self.card.name}: features must be 'codes' or 'tokens', not {features!r}")
        self.features = features
        super().__init__(weights, **options)

    def build(self) -> nn.Module:
        """Returns the encoder and the projection of its embedding."""
        return _ImageEncoder(patches=(self.in_plane // PATCH[1]) * (self.in_plane // PATCH[2]))

    def supports(self, size: tuple[int, int, int]) -> bool:
        """Takes any number of slices that is a multiple of 10, of 480 x 480 voxels."""
        return size[0] > 0 and size[0] % PATCH[0] == 0 and size[1:] == (self.in_plane, self.in_plane)

    def input_requirement(self) -> str:
        """Returns what `supports` asks of a window's size, for its error."""
        return f"in the plane it must be {self.in_plane} x {self.in_plane}, its slices a multiple of {PATCH[0]}"

    def precision_on(self, device_type: str) -> Literal["fp32", "bf16"]:
        """Returns the precision: "auto" is fp32 everywhere, as upstream. What rounds a token chooses another code."""
        return "fp32" if self.precision == "auto" else super().precision_on(device_type)

    def input_sheet(self) -> InputSheet:
        """Returns where its input was read."""
        return InputSheet(
            orientation="authors: data_inference_nii.py",
            grid="authors: data_inference_nii.py",
            resizing=Declared(
                "torch's trilinear interpolation without averaging, after clipping", "authors: data_inference_nii.py"
            ),
            hu_window=HuWindow(*CLIP_HU, "authors: data_inference_nii.py"),
            normalisation=Declared("the HU window to -1 to 1, linear", "authors: data_inference_nii.py"),
            padding="authors: data_inference_nii.py",
            window="authors: data_inference_nii.py, to which they crop or pad a scan",
            patches="authors: scripts/run_zero_shot.py, patches",
            embedding=Declared("codes averaged over slices, projected, of length 1", "authors: ct_clip.py"),
        )

    def _encode(self, windows_hu: torch.Tensor) -> Features:
        tokens, codes, embedding = self.network(windows_hu.clamp(*CLIP_HU) / CLIP_HU[1])
        return Features((tokens if self.features == "tokens" else codes).movedim(-1, 1), embedding, None)

    def _convert(self, state_dict: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {key: tensor for key, tensor in state_dict.items() if not DROPPED.match(key)}


class _ImageEncoder(nn.Module):
    """What of CTCLIP sees images, under the names of the published file."""

    def __init__(self, patches: int) -> None:
        super().__init__()
        self.visual_transformer = CTViT()
        self.to_visual_latent = nn.Linear(patches * DIM, DIM, bias=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns tokens and codes, (B, t, h, w, 512) each, and the embedding (B, 512)."""
        tokens = self.visual_transformer(x)
        codes = self.visual_transformer.vq(tokens)
        return tokens, codes, F.normalize(self.to_visual_latent(codes.mean(1).flatten(1)).float(), dim=-1)


class CTViT(nn.Module):
    """Attention within slabs of 10 slices, then along z."""

    def __init__(self, depth: int = DEPTH) -> None:
        """Builds the network."""
        super().__init__()
        voxels = PATCH[0] * PATCH[1] * PATCH[2]
        self.spatial_rel_pos_bias = _PositionBias()
        self.to_patch_emb = nn.Sequential(_Patches(), nn.LayerNorm(voxels), nn.Linear(voxels, DIM), nn.LayerNorm(DIM))
        self.enc_spatial_transformer = _Transformer(depth)
        self.enc_temporal_transformer = _Transformer(depth)
        self.vq = _Quantiser()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the tokens (B, t, h, w, 512) of x (B, 1, z, x, y), before they are quantised."""
        x = self.to_patch_emb(x)
        b, t, h, w, _ = grid = x.shape
        x = self.enc_spatial_transformer(x.reshape(b * t, h * w, DIM), grid, self.spatial_rel_pos_bias(h, w, x.device))
        x = x.view(b, t, h * w, DIM).transpose(1, 2).reshape(b * h * w, t, DIM)
        x = self.enc_temporal_transformer(x, grid)  # whose convolution takes `grid` for the order of these tokens
        return x.view(b, h, w, t, DIM).permute(0, 3, 1, 2, 4)


class _Patches(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the voxels of each patch of x (B, 1, z, x, y), as (B, t, h, w, 4000)."""
        for axis, size in enumerate(PATCH, start=2):
            x = x.unfold(axis, size, size)
        return x.squeeze(1).flatten(4)


class _PositionBias(nn.Module):
    """What is added to the attention between two patches of a slab, by the offset between them."""

    def __init__(self) -> None:
        super().__init__()
        hidden = (nn.Sequential(nn.Linear(n, DIM), nn.LeakyReLU(0.1)) for n in (2, DIM))
        self.net = nn.ModuleList([*hidden, nn.Linear(DIM, HEADS)])

    def forward(self, h: int, w: int, device: torch.device) -> torch.Tensor:
        """Returns (heads, h * w, h * w): each offset goes through the network once, and not each pair."""
        offsets = torch.cartesian_prod(*(torch.arange(1 - n, n, device=device) for n in (h, w)))
        with torch.autocast(device.type, enabled=False):
            by_offset = offsets.sign() * torch.log(offsets.abs() + 1.0)
            for layer in self.net:
                by_offset = layer(by_offset)
        y, x = torch.cartesian_prod(*(torch.arange(n, device=device) for n in (h, w))).unbind(1)
        dy, dx = y[:, None] - y + h - 1, x[:, None] - x + w - 1
        return by_offset[dy * (2 * w - 1) + dx].permute(2, 0, 1)


class _Transformer(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        layers = ({"0": _PositionConv(), "1": _Attention(), "3": _feed_forward()} for _ in range(depth))  # "2": unused
        self.layers = nn.ModuleList(nn.ModuleDict(layer) for layer in layers)
        self.norm_out = _Norm()

    def forward(self, x: torch.Tensor, grid: tuple[int, ...], bias: torch.Tensor | None = None) -> torch.Tensor:
        """Returns x (sequences, tokens, 512) after all layers.

        Args:
            x: The tokens.
            grid: (B, t, h, w, 512): what the convolution takes their order for.
            bias: (heads, tokens, tokens) added to the attention.
        """
        for layer in self.layers:
            x = layer["0"](x, grid) + x  # type: ignore[index]
            x = layer["1"](x, bias) + x  # type: ignore[index]
            x = layer["3"](x) + x  # type: ignore[index]
        return self.norm_out(x)


class _PositionConv(nn.Module):
    """A convolution of each channel over a 3 x 3 x 3 neighbourhood, which along z ends at the patch itself."""

    def __init__(self) -> None:
        super().__init__()
        self.dsconv = nn.Conv3d(DIM, DIM, 3, groups=DIM)

    def forward(self, x: torch.Tensor, grid: tuple[int, ...]) -> torch.Tensor:
        """Returns what is added to x, in its shape; whatever the order of its tokens is, `grid` is what they are."""
        volume = F.pad(x.reshape(grid).movedim(-1, 1), (1, 1, 1, 1, 2, 0))
        return self.dsconv(volume).movedim(1, -1).reshape(x.shape)


class _Attention(nn.Module):
    """Attention by cosine."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = _Norm()
        self.null_kv = nn.Parameter(torch.empty(HEADS, 0, HEAD_DIM))  # keys and values of no token: there are none
        self.to_q = nn.Linear(DIM, HEADS * HEAD_DIM, bias=False)
        self.to_kv = nn.Linear(DIM, 2 * HEADS * HEAD_DIM, bias=False)
        self.q_scale = nn.Parameter(torch.ones(HEAD_DIM))
        self.k_scale = nn.Parameter(torch.ones(HEAD_DIM))
        self.to_out = nn.Linear(HEADS * HEAD_DIM, DIM, bias=False)

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Returns what is added to x (sequences, tokens, 512)."""
        parts = (self.to_q(self.norm(x)), *self.to_kv(x).chunk(2, dim=-1))  # of x itself: see the module
        q, k, v = (part.unflatten(-1, (HEADS, HEAD_DIM)).transpose(1, 2) for part in parts)
        q, k = F.normalize(q, dim=-1) * self.q_scale, F.normalize(k, dim=-1) * self.k_scale
        bias = None if bias is None else bias.to(q.dtype)
        attended = F.scaled_dot_product_attention(q, k, v.to(q.dtype), attn_mask=bias, scale=SCALE)
        return self.to_out(attended.transpose(1, 2).flatten(2))


def _feed_forward() -> nn.Module:
    inner = int(4 * (2 / 3) * DIM)  # 1,365
    return nn.Sequential(
        nn.LayerNorm(DIM),
        nn.Linear(DIM, 2 * inner, bias=False),
        _Gated(),
        nn.Identity(),  # dropout
        nn.Linear(inner, DIM, bias=False),
    )


class _Gated(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, gate = x.chunk(2, dim=-1)
        return F.gelu(gate) * x


class _Norm(nn.Module):
    """A layer norm whose bias is not learned."""

    beta: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(DIM))
        self.register_buffer("beta", torch.zeros(DIM))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], self.gamma, self.beta)


class _Quantiser(nn.Module):
    """Puts in each token's place the code that is nearest to it in angle."""

    def __init__(self) -> None:
        super().__init__()
        self._codebook = nn.Module()
        self._codebook.register_buffer("embed", F.normalize(torch.randn(1, CODES, DIM), dim=-1))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Returns the codes, as they are in the codebook, in the shape of `tokens`; in float32, as upstream does."""
        codes = self._codebook.embed[0]  # type: ignore[index]
        with torch.autocast(tokens.device.type, enabled=False):
            directions = F.normalize(codes, dim=-1).T
            each = F.normalize(tokens.float().flatten(0, -2), dim=-1).split(CODES_AT_ONCE)
            return codes[torch.cat([(some @ directions).argmax(-1) for some in each])].view(tokens.shape)
