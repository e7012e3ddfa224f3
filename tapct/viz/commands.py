"""What `tapct embed`, `tapct features` and `tapct retrieve` do."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tapct.arguments import ENCODER, JSON_OBJECT, NUMBER, OUT, WEIGHTS, WHOLE
from tapct.errors import TapctError

if TYPE_CHECKING:
    from tapct.encoders import Encoder
    from tapct.viz.feature_maps import EncodedScan
    from tapct.volumes import Volume


def embed(
    inputs: list[str],
    /,
    *,
    encoder: Annotated[str, ENCODER],
    out: Annotated[str, OUT],
    weights: Annotated[str | None, WEIGHTS] = None,
    options: Annotated[dict[str, Any] | None, JSON_OBJECT] = None,
    dtype: Literal["fp16", "bf16", "fp32"] = "fp16",
    overlap: Annotated[float, NUMBER] = 0.0,
    device: str = "auto",
    replace: bool = False,
) -> int:
    """Writes the features of any CT. The same command again does what is missing.

    Args:
        inputs: Scans: NIfTI, MetaImage, or folders of DICOM slices.
        encoder: The name of an encoder (`tapct list encoders`), with options such as tap-b-3d+in_plane_size=512.
        out: The folder to write to, as FOLDER/NAME.safetensors, named after the input and the folder that it is in.
        weights: The path of a file of weights, or "random". The default are the published weights.
        options: Settings of the encoder, such as '{"in_plane_size": 512}'.
        dtype: The type of the numbers that are written.
        overlap: The share of overlap between windows, in [0, 1).
        device: The device to compute on, such as cpu or cuda; auto is a GPU if there is one.
        replace: Replace files of another encoder, other settings or another scan under the same name.

    Returns:
        The exit status: 1 if an input failed.
    """
    from tapct.features.embed import device_of, embed

    failed = 0
    found = embed(
        _encoder(encoder, weights, options),
        [Path(path) for path in inputs],
        Path(out),
        device=device_of(device),
        dtype=dtype,
        overlap=overlap,
        replace=replace,
    )
    for one in found:
        failed += one.status == "failed"
        words = {"written": f"-> {one.target}", "there": f"is in {one.target}", "failed": f"FAILED: {one.reason}"}
        print(f"{one.source} {words[one.status]}", flush=True)
        _say(one.source, one.notes)
    if failed:
        print(f"{failed} of {len(inputs)} failed", file=sys.stderr)
    return int(failed > 0)


def features(
    ct: list[str],
    /,
    *,
    encoder: Annotated[str, ENCODER],
    out: Annotated[str, OUT],
    weights: Annotated[str | None, WEIGHTS] = None,
    pca: bool = False,
    at: str | None = None,
    options: Annotated[dict[str, Any] | None, JSON_OBJECT] = None,
    window: Literal["soft-tissue", "lung", "bone", "liver"] = "soft-tissue",
    overlap: Annotated[float, NUMBER] = 0.0,
    device: str = "auto",
) -> int:
    """Draws what an encoder sees in scans: principal components as colours, or the likeness to a point.

    Args:
        ct: Scans: NIfTI, MetaImage, or folders of DICOM slices. Several share one basis, or are compared with the
            first.
        encoder: The name of an encoder (`tapct list encoders`), with options such as tap-b-3d+in_plane_size=512.
        out: The file to write: a PNG; or, with .html, a page in which a click shows the likeness to the clicked patch.
        weights: The path of a file of weights, or "random". The default are the published weights.
        pca: Draw the first three principal components as red, green and blue.
        at: Draw the cosine similarity to this point: x,y,z in mm of the first scan's world (RAS+, as NIfTI viewers
            show). Write --at=-12,30,100 where x is negative.
        options: Settings of the encoder, such as '{"in_plane_size": 512}'.
        window: The HU window to show.
        overlap: The share of overlap between windows, in [0, 1).
        device: The device to compute on, such as cpu or cuda; auto is a GPU if there is one.

    Returns:
        The exit status.
    """
    from tapct.viz import canvas
    from tapct.volumes import read_ct

    html = out.lower().endswith(".html")
    if pca + (at is not None) + html != 1:
        raise canvas.PictureError("give one of --pca, --at=X,Y,Z (each with -o FILE.png), or -o FILE.html")
    if html and len(ct) > 1:
        raise canvas.PictureError(f"a page shows one scan, not {len(ct)}")
    point = None if at is None else _point(at)
    cts = [read_ct(path) for path in ct]  # before the encoder: a wrong path shows at once
    for scan in cts:
        _say(scan.source, scan.notes)
    model = _encoder(encoder, weights, options)
    scans = [_scan(model, one, device, overlap) for one in cts]
    title = f"{model.full_name} (weights: {_weights(model)})"
    if html:
        from tapct.viz.explorer import write_explorer

        write_explorer(Path(out), scans[0], title, window)
    elif point is None:
        from tapct.viz.feature_maps import draw_pca

        draw_pca(Path(out), scans, title, window)
    else:
        from tapct.viz.feature_maps import draw_similarity

        draw_similarity(Path(out), scans, point, title, window)
    print(out)
    return 0


def retrieve(
    baseline: str,
    mask: str,
    followup: str,
    /,
    *,
    encoder: Annotated[str, ENCODER],
    out: Annotated[str, OUT],
    weights: Annotated[str | None, WEIGHTS] = None,
    followup_mask: str | None = None,
    label: Annotated[int | None, WHOLE] = None,
    top_k: Annotated[int, WHOLE] = 5,
    apart_mm: Annotated[float, NUMBER] = 0.0,
    options: Annotated[dict[str, Any] | None, JSON_OBJECT] = None,
    window: Literal["soft-tissue", "lung", "bone", "liver"] = "soft-tissue",
    overlap: Annotated[float, NUMBER] = 0.0,
    device: str = "auto",
) -> int:
    """Finds a lesion again in a later scan: the patches most like it, as a picture and a CSV.

    Args:
        baseline: The earlier scan: NIfTI, MetaImage, or a folder of DICOM slices.
        mask: The lesion in the earlier scan: NIfTI or MetaImage on its grid.
        followup: The later scan.
        encoder: The name of an encoder (`tapct list encoders`), with options such as tap-b-3d+in_plane_size=512.
        out: The folder to write matches.csv, matches.png and summary.json to.
        weights: The path of a file of weights, or "random". The default are the published weights.
        followup_mask: The lesion in the later scan, to judge the matches by.
        label: The label of the lesion in both masks. The default is all that is not background.
        top_k: The number of matches to return.
        apart_mm: The least distance between matches, in mm. With 0, as in the paper, the best patches are returned,
            which are often neighbours.
        options: Settings of the encoder, such as '{"in_plane_size": 512}'.
        window: The HU window to show.
        overlap: The share of overlap between windows, in [0, 1).
        device: The device to compute on, such as cpu or cuda; auto is a GPU if there is one.

    Returns:
        The exit status.
    """
    from tapct._utils.files import write_atomically
    from tapct.viz import retrieval
    from tapct.viz.feature_maps import similarity
    from tapct.volumes import read_ct, read_labels

    cts = [read_ct(path) for path in (baseline, followup)]  # before the encoder: a wrong path shows at once
    for scan in cts:
        _say(scan.source, scan.notes)
    lesion = retrieval.lesion_mask(read_labels(mask, cts[0]), label)
    later = None if followup_mask is None else retrieval.lesion_mask(read_labels(followup_mask, cts[1]), label)
    model, folder = _encoder(encoder, weights, options), Path(out)
    first, second = (_scan(model, ct, device, overlap) for ct in cts)
    embedding = retrieval.lesion_embedding(first.features, lesion)
    matches = retrieval.retrieve(embedding, second, top_k=top_k, apart_mm=apart_mm, mask=later)
    found: dict[str, Any] = {
        "encoder": model.card.name,
        "options": model.describe_options(),
        "weights": _weights(model),
        "baseline": first.name,
        "followup": second.name,
        **retrieval.summary(matches),
    }
    retrieval.write_csv(folder / "matches.csv", matches)
    write_atomically(folder / "summary.json", json.dumps(found, indent=1))
    title = f"{model.full_name} (weights: {found['weights']}): {first.name} in {second.name}"
    values, picture = similarity(second, embedding), folder / "matches.png"
    retrieval.draw_retrieval(picture, first, lesion, second, matches, values, title, mask=later, window=window)
    print(retrieval.to_csv(matches), end="")
    if later is not None:
        judged = "hit rate {hit_rate:.2f}; nearest match {nearest_distance_mm:.1f} mm from the lesion".format(**found)
        print(judged, file=sys.stderr)
    print(picture, file=sys.stderr)
    return 0


def _say(source: str | Path, notes: Sequence[str]) -> None:
    """Says how a scan was read, where a user should know of it."""
    for note in notes:
        print(f"{source}: {note}", file=sys.stderr)


def _encoder(name: str, weights: str | None, options: dict[str, Any] | None) -> "Encoder":
    from tapct.encoders.options import load_spec

    return load_spec(name, weights, options, deferred=True)


def _weights(encoder: "Encoder") -> str:
    """Returns the weights in a word: `random`, or the file's name (a path says where a machine keeps its files)."""
    return Path(str(encoder.weights_source)).name


def _scan(encoder: "Encoder", ct: "Volume", device: str, overlap: float) -> "EncodedScan":
    from tapct.features.embed import device_of, encode
    from tapct.viz.feature_maps import EncodedScan

    return EncodedScan(ct, encode(encoder, ct, device_of(device), overlap=overlap))


def _point(text: str) -> tuple[float, float, float]:
    try:
        x, y, z = (float(part) for part in text.split(","))
    except ValueError as error:
        raise TapctError(f"--at takes x,y,z in mm, such as --at=-12.5,30,100, not '{text}'") from error
    return x, y, z
