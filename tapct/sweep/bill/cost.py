"""What a window costs an encoder: arithmetic counted without a weight or a voxel, and time where it was measured."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tapct.encoders import Encoder
from tapct.encoders.identity import identity
from tapct.encoders.mistake_names import OPTION as MISTAKE
from tapct.encoders.weights import RANDOM
from tapct.features.extract import WINDOWS_PER_BATCH
from tapct.sweep.bill.remembered import Remembered, key_of
from tapct.sweep.bill.settings import Encoding
from tapct.volumes import Size

MEASURE_S = 20.0
"""What measuring an encoder may take; one batch is measured, however long it takes."""

MOST_BATCHES = 20
"""That are measured; more would not make the median better."""


_AIR_HU = -1000.0

_ARCHITECTURE = ("name", "num_params", "window_size", "feature_stride", "feature_dim", "embedding_dim", "has_cls")
"""Of a card: what decides the arithmetic of a window. Every batch is held to it."""

_PREPARED = ("spacing_mm", "in_plane_size", "in_plane_filter", "pad_hu", "precision", MISTAKE)
"""Options that change how many windows there are, or in what they are computed, and not what one takes."""

SHIPPED = Path(__file__).with_name("counted.json")
"""What windows of the encoders here take, as `python -m tapct.sweep.bill.counted` counted it: a first bill would else
trace every network. It holds for the architectures that it was counted of; others are not found in it, and counted."""


@dataclass(frozen=True)
class WindowCost:
    """What one window takes.

    Attributes:
        tflop: 10^12 operations, of which a multiplication and an addition are two; None where they cannot be counted.
        map_shape: (C, d, h, w) of its features; None likewise.
        why: Why they cannot be counted.
    """

    tflop: float | None
    map_shape: tuple[int, int, int, int] | None = None
    why: str = ""


class Costs:
    """What windows cost encoders, found once and remembered."""

    def __init__(self, remembered: Remembered, device: torch.device) -> None:
        """Initializes it.

        Args:
            remembered: Where answers are kept.
            device: Where experiments would run.
        """
        self._remembered, self._device = remembered, device
        self._encoders: dict[tuple[str, str, str], Encoder] = {}
        self._networks: dict[tuple[str, str, str], str] = {}
        self._who: dict[tuple[tuple[str, str, str], str], str] = {}

    @property
    def device_name(self) -> str:
        """The device at hand, in words."""
        if self._device.type == "cuda":
            return torch.cuda.get_device_name(self._device)
        return f"{torch.get_num_threads()} CPU threads"

    def encoder(self, encoding: Encoding) -> Encoder:
        """Returns an encoder that is not built, with random weights: what a window costs does not depend on them.

        Raises:
            EncoderError: If there is none of that name, or it has no such option.
        """
        if _model(encoding) not in self._encoders:
            self._encoders[_model(encoding)] = encoding.load(RANDOM)
        return self._encoders[_model(encoding)]

    def described_bytes(self, encoding: Encoding) -> int:
        """Returns what an entry takes to say whose features it holds: text within text, its quotes escaped."""
        who = identity(self.encoder(encoding), torch.device("cpu"), weights="any")
        return len(json.dumps(json.dumps({part: who[part] for part in ("class", "code_sha256", "settings")})))

    def count(self, encoding: Encoding, window: Size) -> WindowCost:
        """Returns what one window of a size takes."""
        key = self.counted_key(encoding, window)
        if (known := self._remembered.get(key)) is None:
            # Why code cannot be counted holds for that code alone.
            failed = key_of("failed", self._identity(encoding, torch.device("cpu")), list(window))
            if (known := self._remembered.get(failed)) is None:
                count = _count(encoding, window)
                known = [count.tflop, count.map_shape, count.why]
                self._remembered.put(failed if count.why else key, known)
        tflop, shape, why = known
        return WindowCost(tflop, None if shape is None else (shape[0], shape[1], shape[2], shape[3]), why)

    def counted_key(self, encoding: Encoding, window: Size) -> str:
        """Returns what a count depends on: the architecture by card and options, and the window.

        The source is not a part of it: a comment or a helper that moves changes no arithmetic, and what changes it,
        such as a layer or a patch, changes the parameters or the map of the card.
        """
        model = _model(encoding)
        if model not in self._networks:
            encoder = self.encoder(encoding)
            card = {name: getattr(encoder.card, name) for name in _ARCHITECTURE}
            options = {name: value for name, value in encoder.describe_options().items() if name not in _PREPARED}
            self._networks[model] = key_of(card, options)
        return key_of("count", self._networks[model], list(window))

    def seconds(self, encoding: Encoding, window: Size) -> float | None:
        """Returns what a window takes on the device at hand; None where that was not measured."""
        return self._remembered.get(self._timed(encoding, window))

    def measure(self, encoding: Encoding, window: Size) -> None:
        """Measures what a window takes on the device at hand, in `MEASURE_S` at most (or one batch), and remembers it.

        Raises:
            EncoderError: If the encoder cannot be built or run.
        """
        if self.seconds(encoding, window) is not None:
            return
        encoder = encoding.load(RANDOM, deferred=False).to(self._device)
        per_batch = WINDOWS_PER_BATCH[self._device.type]
        batch = torch.full((per_batch, 1, *window), _AIR_HU, device=self._device)
        begun = time.perf_counter()
        took = [_timed(encoder, batch)]
        while time.perf_counter() - begun + took[-1] < MEASURE_S and len(took) < MOST_BATCHES:
            took.append(_timed(encoder, batch))
        # The first batch waits for kernels and memory; where there is no other, it is better than nothing.
        self._remembered.put(self._timed(encoding, window), median(took[1:] or took) / per_batch)
        self._remembered.keep()

    def _timed(self, encoding: Encoding, window: Size) -> str:
        return key_of("seconds", self._identity(encoding, self._device), list(window), self.device_name)

    def _identity(self, encoding: Encoding, device: torch.device) -> str:
        key = (_model(encoding), device.type)
        if key not in self._who:
            self._who[key] = key_of(torch.__version__, identity(self.encoder(encoding), device, weights="any"))
        return self._who[key]


def _model(encoding: Encoding) -> tuple[str, str, str]:
    return encoding.encoder, encoding.options, encoding.precision


def _timed(encoder: Encoder, batch: torch.Tensor) -> float:
    start = time.perf_counter()
    encoder(batch, checked=True, mistake_made=True).embedding.cpu()  # waits for the device
    return time.perf_counter() - start


def _count(encoding: Encoding, window: Size) -> WindowCost:
    """Runs a window through a network of tensors without content; where it cannot be built of them, it is built.

    What an encoder knows of whole scans is not of its network, and may be found by other means than tensors: it is that
    of a window of air.
    """
    without_content = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        encoder = encoding.load(RANDOM)
        try:
            with without_content:
                encoder.load()
        except Exception:  # noqa: BLE001 whatever a third-party network asks of a tensor that has no content
            encoder = encoding.load(RANDOM, deferred=False)
        statistics = encoder.statistics_of(torch.full((1, 1, *window), _AIR_HU), checked=True)
        # Attention written out: the counter does not know the fused one of every device.
        with without_content, sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            empty = torch.empty((1, 1, *window))
            found = encoder(empty, checked=True, statistics=statistics, mistake_made=True).map.shape
    except Exception as error:  # noqa: BLE001 likewise; that its arithmetic is not known keeps nobody from running it
        return WindowCost(None, None, f"{type(error).__name__}: {error}".splitlines()[0])
    return WindowCost(counter.get_total_flops() / 1e12, (found[1], found[2], found[3], found[4]))
