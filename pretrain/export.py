"""The encoder of a run, for use: `python -m pretrain.export RUN -o DIR`.

Writes what `tapct.load_encoder(DIR)` and every eva config (`ENCODER=DIR`) take, and what the Hugging Face hub shows:
`model.safetensors` (the teacher's backbone), `config.json` (its sizes, and the intensities it was trained on),
`card.json` (how the benchmark feeds it), `pretraining.yaml` (the resolved settings of the run) and `README.md`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
import safetensors.torch
import torch
import yaml

from pretrain import command
from pretrain.command import ExitStatus
from pretrain.config import Config
from pretrain.errors import PretrainError
from pretrain.files import write
from pretrain.observe.monitor import METRICS_FILE, read_events
from pretrain.observe.report import energy_mwh, sessions_of
from pretrain.settings import dump_config
from pretrain.ssl.model import Pretrainer
from pretrain.state_files import load_checkpoint
from pretrain.training.checkpoint import checkpoints_in, newest_checkpoint
from pretrain.training.phases import grown_weights
from pretrain.training.run_folder import saved_config
from pretrain.training.warm_start import WarmStart
from tapct.vit import VisionTransformer
from tapct.vit.blocks import Block

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def export(
    run: Path,
    folder: Path,
    *,
    name: str | None = None,
    step: int | None = None,
    part: str = "teacher",
    dtype: str = "fp32",
    in_plane_size: int | None = None,
    licence: str | None = None,
    data: Sequence[str] = (),
) -> Config:
    """Writes the encoder of a run into a folder.

    Args:
        run: Folder of the run.
        folder: Where to; files of an earlier export are replaced, the weights last.
        name: The encoder's name; that of the run's folder by default.
        step: Of which checkpoint; the newest by default.
        part: "teacher" (as DINOv2 publishes) or "student".
        dtype: Of the weights in the file, a key of `DTYPES`; they are computed with in fp32 or autocast either way.
        in_plane_size: Pixels that the benchmark resizes a slice to; by default one window covers it, as in the paper.
        licence: Of the weights, as the hub spells it ("apache-2.0"); None leaves it unstated.
        data: Names of the datasets it was trained on, to tell overlap with a task.

    Returns:
        The settings of the run.

    Raises:
        PretrainError: If there is no such checkpoint, its crops are not square, or a slice would be smaller than they.
    """
    path = _checkpoint(run, step)
    state = load_checkpoint(path)
    config = saved_config(state, str(path))
    eager = config.model_copy(update={"run": config.run.model_copy(update={"compile": False})})
    model = Pretrainer(eager)
    model.load_state_dict(grown_weights(state["model"], config.at(state["step"]), config))
    backbone = getattr(model, part).backbone
    name = name or run.resolve().name
    begun = state.get("init")
    card = encoder_card(
        config, backbone, name, in_plane_size=in_plane_size, licence=licence, data=data, init=_init(begun)
    )
    weights = {key: value.to(DTYPES[dtype]).contiguous() for key, value in backbone.state_dict().items()}
    files: dict[str, str | bytes] = {
        "config.json": _json(network_config(config, backbone)),
        "card.json": _json(card),
        "pretraining.yaml": dump_config(config),
        "README.md": model_card(config, card, state, part=part, licence=licence, costs=_costs(run)),
        "model.safetensors": safetensors.torch.save(weights, metadata={"format": "pt"}),
    }
    for file, content in files.items():
        write(folder / file, content)
    return config


def encoder_card(
    config: Config,
    backbone: VisionTransformer,
    name: str,
    *,
    in_plane_size: int | None,
    licence: str | None,
    data: Sequence[str],
    init: str | None = None,
) -> dict[str, Any]:
    """Returns the fields of a `tapct.encoders.EncoderCard`.

    Raises:
        PretrainError: If the global crops are not square, which the benchmark's in-plane size must be, or larger.
    """
    window, patch = _in_3d(config.crops.global_size), _in_3d(config.model.patch_size)
    if window[1] != window[2]:
        raise PretrainError(
            f"crops.global_size {config.crops.global_size} is not square; the benchmark resizes to squares"
        )
    if in_plane_size is not None and in_plane_size < window[1]:
        raise PretrainError(f"in_plane_size {in_plane_size} is smaller than the window {window}; most would be padding")
    return {
        "name": name,
        "display_name": name,
        "window_size": window,
        "spacing_mm": None,
        "in_plane_size": in_plane_size or window[1],
        "in_plane_filter": "antialias" if config.data.antialias else "linear",
        "pad_hu": config.data.clip_hu[0],
        "feature_stride": patch,
        "feature_dim": backbone.embed_dim,
        "embedding_dim": backbone.embed_dim,
        "has_cls": True,
        "num_params": sum(p.numel() for p in backbone.parameters()),
        "weights": {"file": "model.safetensors", "licence": licence},
        "pretraining_data": list(data),
        "reference": "Trained by TAP-CT Bench's pretrain, after Veenboer et al., TAP-CT, 2025"
        + ("" if init is None else f"; began with the weights of {init}"),
    }


def network_config(config: Config, backbone: VisionTransformer) -> dict[str, Any]:
    """Returns the sizes of the network, as arguments of `tapct.vit.VisionTransformer`, and its intensities."""
    block = backbone.blocks[0]
    assert isinstance(block, Block)
    return {
        "library_name": "tapct-bench",
        "architecture": {
            "window_size": list(backbone.window_size),
            "patch_size": list(backbone.patch_size),
            "embed_dim": backbone.embed_dim,
            "depth": len(backbone.blocks),
            "num_heads": block.attn.num_heads,
            "num_register_tokens": backbone.num_register_tokens,
        },
        "intensities": {
            "clip_hu": list(config.data.clip_hu),
            "mean_hu": config.data.mean_hu,
            "std_hu": config.data.std_hu,
        },
    }


def model_card(
    config: Config, card: dict[str, Any], state: dict[str, Any], *, part: str, licence: str | None, costs: str
) -> str:
    """Returns the README of the hub: YAML front matter, then what is known; what is not known is said so."""
    front = {
        **({} if licence is None else {"license": licence}),
        "library_name": "tapct-bench",
        "pipeline_tag": "image-feature-extraction",
        "tags": ["medical-imaging", "computed-tomography", "self-supervised", "dinov2", "vision-transformer"],
    }
    # Markdown, so nothing is escaped as HTML.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=False,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template("model_card.md").render(
        front_matter=yaml.safe_dump(front, sort_keys=False).strip(),
        card=card,
        config=config,
        two_d=len(config.model.patch_size) == 2,
        part=part,
        step=state["step"],
        skipped=state["counters"]["skipped"],
        versions=state["versions"],
        costs=costs,
        licence=licence,
        init=_init(state.get("init")),
        less=_less_compute(config, state["step"]),
    )


def _checkpoint(run: Path, step: int | None) -> Path:
    folder = run / "checkpoints"
    if step is None:
        newest = newest_checkpoint(folder)
        if newest is None:
            raise PretrainError(f"{run} has no checkpoint; is it the folder of a run (its run.output)?")
        return newest
    path = folder / f"step_{step:08d}.pt"
    if not path.is_file():
        there = ", ".join(p.stem.removeprefix("step_").lstrip("0") or "0" for p in checkpoints_in(folder)) or "none"
        raise PretrainError(f"{run} has no checkpoint of step {step}. Steps that are kept: {there}")
    return path


def _costs(run: Path) -> str:
    """Returns GPU hours and energy of a run, as far as its events say."""
    if not (run / METRICS_FILE).is_file():
        return "not recorded"
    sessions = sessions_of(read_events(run))
    gpu_hours = sum(s.device_hours for s in sessions if s.start["device_type"] == "cuda")
    if not gpu_hours:
        return f"{sum(s.device_hours for s in sessions):.2f} process hours on CPUs"
    devices = ", ".join(sorted({s.start["device"] for s in sessions}))
    return f"{gpu_hours:,.1f} GPU hours ({devices}), {energy_mwh(gpu_hours):.3g} MWh at 700 W a GPU (a convention)"


def _init(begun: dict[str, Any] | None) -> str | None:
    """Names what the run began with by its file's name and hash; the folder is of one machine only."""
    if begun is None:
        return None
    start = WarmStart(**begun)
    return str(replace(start, source="/".join(Path(start.source).parts[-2:])))


def _less_compute(config: Config, step: int) -> list[str]:
    """Says which steps were computed otherwise than the whole recipe's."""
    said = []
    if len(config.phases) > 1:
        (_, small), (change, _) = config.phases
        crops = small.crops
        said.append(f"steps up to {min(change, step):,} with crops of {crops.global_size} and {crops.local_size}")
    if config.masking.drop:
        said.append(f"{config.masking.drop:g} of the patches of global crops left out by the student")
    return said


def _in_3d(size: Sequence[int]) -> list[int]:
    return [1, *size] if len(size) == 2 else list(size)


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2) + "\n"


def main(arguments: Sequence[str] | None = None) -> ExitStatus:
    """Exports."""
    parser = argparse.ArgumentParser(
        prog="python -m pretrain.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="The folder of the run (its run.output).")
    parser.add_argument("-o", "--output", type=Path, required=True, help="The folder to write to.")
    parser.add_argument("--name", help="The name of the encoder. The default is that of the run's folder.")
    parser.add_argument("--step", type=int, help="The step of the checkpoint. The default is the newest.")
    part = "The network to export. The default is the %(default)s."
    parser.add_argument("--part", choices=("teacher", "student"), default="teacher", help=part)
    dtype = "The type of the weights. The default is %(default)s."
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="fp32", help=dtype)
    parser.add_argument(
        "--in-plane-size",
        type=int,
        metavar="N",
        help="The pixels of a slice in the benchmark. The default is the window's.",
    )
    parser.add_argument("--licence", help="The licence of the weights as the hub spells it, such as apache-2.0.")
    parser.add_argument("--data", action="append", default=[], help="The name of a dataset it saw. It may be repeated.")
    chosen = parser.parse_args(arguments)
    return command.run(lambda: _export(**vars(chosen)))


def _export(*, run: Path, output: Path, **options: Any) -> ExitStatus:
    export(run, output, **options)
    print(f"{output}: ENCODER={output} ENCODER_WEIGHTS=null eva fit --config eva_configs/quickstart.yaml")
    return ExitStatus.DONE


if __name__ == "__main__":
    sys.exit(main())
