"""FlexiCT-3D (Li et al., 2026): a 3D vision transformer, pretrained with DINOv3's recipe on 56 public CT datasets.

Facts from github.com/ricklisz/FlexiCT at e120a9b: flexi_ct/flexi_ct_3d.py and flexi_ct_2d.py (settings, loader),
downstream/vlm/dataset.py (HU range, z-score, padding); its branch `pretraining`: dinov3/data/datasets/ct_dataset.py
(axes, spacing), dinov3/train/train_ct_2D_adaptive_patch.py (data). The network is written from its formulas, since the
authors' layers carry the DINOv3 licence.

* The z-score is that of the whole scan, at 2 mm and after clipping; padding with the scan's least value comes after it:
  both are `scan_statistics` here. A scan of less spread than 1e-6 is centred only.
* Rotary positions are computed in bfloat16, angles too, and turn queries and keys in it: their code's default. Queries
  and keys of the class and storage tokens, which do not turn, are rounded to it as well. In float32 the map moves by
  0.3 %; and where rounding decides, another last digit of the scan's mean moves it by 0.04 %.
* One file serves slices and volumes: what only slices read (`patch_embed_2D`, `rope_embed_2D`) and the mask token of
  pretraining are kept, unused, so that loading is strict; 143,942,400 parameters are used.
* Pretraining stored volumes as SimpleITK reads them, without reorienting; their retrieval and demos turn to LPS. Both
  are (z, y, x) arrays, so there is no flip here.
* It was pretrained at patch sizes 16 and 8; 8 is what its file holds. Retrieval and the vision-language model take the
  class token and the mean of the patches: the option `embedding=cls_and_mean`.
"""

from typing import Any

import torch
from torch import nn

from baselines.rotary_vit import RotaryPositions, RotaryViT, RotaryViTEncoder
from tapct.encoders import Declared, EncoderCard, Features, HuWindow, InputSheet, Weights, mean_and_std
from tapct.encoders.weights import from_dinov2

CLIP_HU = (-1000.0, 1000.0)  # dataset.py, ct_normalize
MIN_STD = 1e-6  # dataset.py, zero_to_one
DIM, DEPTH, HEADS, PATCH, STORAGE = 864, 16, 12, 8, 4
ROPE_BASE = 100.0

# The examples in their code of 56 sets, "not comprehensive"; NLST according to a third party.
PRETRAINING_DATA = (
    "AMOS22", "Colorectal-Liver-Metastases", "CT Colonography Trials", "CT-RATE", "DeepLesion", "HCC-TACE-Seg",
    "HECKTOR (named HECTOR)", "HNSCC", "INSPECT", "LUNA16", "LUNA25", "Lung-PET-CT-Dx", "NLST", "OPC", "PANORAMA",
    "Pediatric-CT-SEG", "Prostate-Anatomical-Edge-Cases", "QIN", "StageII-Colorectal-CT", "StonyBrook-CT",
    "TotalSegmentator v2", "ULS23 (bone, pancreas)", "others of 56 public sets",
)  # fmt: skip

# Names in the file -> names in the network.
RENAMED = {"patch_embed_3D.": "patch_embed.", "rope_embed_3D.": "rope."}


class FlexiCT3D(RotaryViTEncoder):
    """FlexiCT-3D."""

    axes = "SPL"
    authors = "baselines.authors.flexict:FlexiCTAuthors"
    card = EncoderCard(
        name="flexict-3d",
        display_name="FlexiCT-3D",
        window_size=(160, 160, 160),
        spacing_mm=(2.0, 2.0, 2.0),
        in_plane_size=None,
        in_plane_filter="linear",  # dataset.py, resample_to_isotropic: SimpleITK's, which averages nothing
        pad_hu=CLIP_HU[0],  # or the scan's least value: see `scan_statistics`
        feature_stride=(PATCH, PATCH, PATCH),
        feature_dim=DIM,
        embedding_dim=DIM,
        has_cls=True,
        num_params=143_999_424,
        weights=Weights(
            repository="huggingface.co/ricklisz123/FlexiCT",
            file="ct_3d_teacher.pth",
            licence="CC BY-NC-ND 4.0 (the code is MIT, its layers DINOv3's licence)",
        ),
        pretraining_data=PRETRAINING_DATA,
        reference="Li et al., Universal CT Representations from Anatomy to Disease Phenotype through Agglomerative "
        "Pretraining, arXiv 2605.21906, 2026",
    )

    def build(self) -> nn.Module:
        """Returns the vision transformer."""
        return FlexiViT()

    def scan_statistics(self, scan_hu: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns mean, unbiased deviation and least value of scans, after clipping."""
        least = scan_hu.flatten(1).amin(1).clamp(*CLIP_HU)
        return mean_and_std(scan_hu, clip_hu=CLIP_HU, unbiased=True) | {"least_hu": least}

    def input_sheet(self) -> InputSheet:
        """Returns where its input was read."""
        return InputSheet(
            orientation="authors: dinov3/data/datasets/ct_dataset.py, (z, y, x)",
            grid="authors: dinov3/data/datasets/ct_dataset.py",
            resizing=Declared("linear (SimpleITK), without averaging", "authors: downstream/vlm/dataset.py"),
            hu_window=HuWindow(*CLIP_HU, "authors: downstream/vlm/dataset.py"),
            normalisation=Declared(
                "z-score of the whole scan after clipping, unbiased deviation", "authors: downstream/vlm/dataset.py"
            ),
            padding="authors: downstream/vlm/dataset.py, raised to the scan's least value",
            window="authors: the model's page, FlexiCT-3D",
            patches="authors: flexi_ct/flexi_ct_3d.py, patches",
            embedding=Declared(self.embedding_text(), "authors: flexi_ct/flexi_ct_3d.py"),
        )

    def _encode(self, windows_hu: torch.Tensor, statistics: dict[str, torch.Tensor]) -> Features:
        # No voxel of the scan lies below its least value, so this raises the padding alone.
        x = windows_hu.clamp(*CLIP_HU).maximum(statistics["least_hu"])
        std = statistics["std"]
        return self._features((x - statistics["mean"]) / torch.where(std < MIN_STD, 1.0, std))

    def _convert(self, state_dict: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Unwraps "teacher" and its prefix and drops the heads of pretraining, `dino_head` and `ibot_head`."""
        state = from_dinov2(state_dict)
        for axes in (2, 3):
            self._check_periods(state, f"rope_embed_{axes}D.periods", _periods(axes))
        for theirs, ours in RENAMED.items():
            state = {key.replace(theirs, ours): value for key, value in state.items()}
        return state


class FlexiViT(RotaryViT):
    """The vision transformer for volumes, and what its file holds for slices and pretraining; `depth` blocks."""

    def __init__(self, depth: int = DEPTH) -> None:
        super().__init__(
            dim=DIM,
            depth=depth,
            heads=HEADS,
            patch=(PATCH, PATCH, PATCH),
            periods=_periods(axes=3),
            storage_tokens=STORAGE,
            qkv_bias=False,
            norm_eps=1e-6,
            layer_scale=1e-5,
        )
        self.patch_embed_2D = nn.ModuleDict({"proj": nn.Conv2d(1, DIM, kernel_size=PATCH, stride=PATCH)})
        self.rope_embed_2D = RotaryPositions(_periods(axes=2))
        self.mask_token = nn.Parameter(torch.zeros(1, DIM))


def _periods(axes: int) -> torch.Tensor:
    """Returns the periods of one axis of so many, computed in bfloat16 as the authors do."""
    half = DIM // HEADS // 2  # pairs of channels that the axes share
    return ROPE_BASE ** (2 * torch.arange(half // axes, dtype=torch.bfloat16) / half)
