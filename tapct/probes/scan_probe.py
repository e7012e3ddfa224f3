"""What probes on whole scans share: a head that is solved on one vector a scan, or attention over its instances."""

import abc
import time
from collections.abc import Mapping
from typing import Any, Literal

import torch
from eva.core.models.modules import head as eva_head
from eva.vision.models.networks import ABMIL
from loguru import logger
from torch import nn
from typing_extensions import override

from tapct.encoders import Encoder
from tapct.errors import TaskError
from tapct.features import EncodedCase, Seen
from tapct.features.channels import Channels
from tapct.kinds import kind
from tapct.probes import attention, shortcuts, tables
from tapct.probes.adaptors import Adaptor, instances
from tapct.probes.frozen import FrozenEncoderProbe
from tapct.probes.heads import HeadState
from tapct.probes.scaling import ChannelScale
from tapct.probes.solved import LinearHead, PooledCases, Solution
from tapct.probes.source import needed_parts
from tapct.tasks.dataset import CTDataset


class ScanProbe(FrozenEncoderProbe, eva_head.HeadModule):
    """Trains and evaluates an adaptor in eva.

    For attention the bag of a scan is the class tokens of its windows, or, where a model has none or that is asked for,
    its patch features (section 4.5 says why class tokens are preferred). Other adaptors see one vector a scan.
    """

    head_name = "head"
    feature_weights: tuple[str, ...] = (
        *("gated_attention.attention_a.0.weight", "gated_attention.attention_b.0.weight"),
        "classifier._network.0.weight",
    )

    seen_dtype = None

    def __init__(
        self,
        encoder: str | Encoder,
        weights: str | None,
        adaptor: str,
        bag: Literal["auto", "cls", "patch"],
        *,
        criterion: nn.Module,
        shortcuts: bool = True,
        **settings: Any,
    ) -> None:
        """Initializes the probe.

        Args:
            encoder: Name of an encoder (`tapct list encoders`), or an `Encoder` by class_path.
            weights: None for the published weights, the path of a file, or "random".
            adaptor: What stands on the features; see `tapct.probes.adaptors`.
            bag: What attention looks at: "cls", "patch", or "auto".
            criterion: Of a head that is trained by steps.
            shortcuts: Whether the shortcut audit is made (docs/methodology.md): what else the nearest scan shares, and
                what a linear probe can read.
            settings: As in `tapct.probes.settings.ProbeSettings`.

        Raises:
            TaskError: If there is no such adaptor or bag for this kind, or the encoder has no class tokens for it.
        """
        super().__init__(encoder, weights, of_eva={"head": nn.Identity(), "criterion": criterion}, **settings)
        card = self.encoder.card
        self.adaptor = Adaptor.parse(adaptor).with_bag(bag).on(card)
        if self.adaptor.head not in (heads := kind(self.kind).heads):
            raise TaskError(f"a task of {self.kind} takes the adaptors {', '.join(heads)}, not {self.adaptor.name}")
        self.pooling = self.adaptor.pooling_of(card) if self.adaptor.is_solved else None
        self.source.table.asked = self.adaptor.table
        self.audits_shortcuts = shortcuts
        if self.pooling == "none" and card.num_params:
            logger.warning(
                f"{self.adaptor.name} reads the table alone: {card.name} is run for nothing. The encoder chance gives "
                "the same numbers at no cost"
            )
        self.bag = self.adaptor.bag_of(card)

    @property
    @override
    def seen(self) -> Seen:  # type: ignore[override]
        """Where the bag, or what is pooled, is from."""
        return "embeddings" if "cls" in (self.bag, self.pooling) else "map"

    @override
    def build_head(self, classes: list[str]) -> nn.Module:
        # One linear layer on the attention-pooled bag: eva's default MLP would probe more than the features.
        card = self.encoder.card
        size = card.embedding_dim if self.bag == "cls" else card.feature_dim
        return ABMIL(input_size=size, output_size=len(classes), projected_input_size=None, hidden_sizes_mlp=())

    @property
    @override
    def is_solved(self) -> bool:  # type: ignore[override]
        """Whether the adaptor's head is solved."""
        return self.adaptor.is_solved

    @override
    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage in ("fit", "test") and self._is_audited:
            start = time.perf_counter()
            pooling = self.pooling or ("cls" if self.encoder.card.has_cls else "mean")
            of, settings = kind(self.kind), {"scale": self.settings.scale_features, "trains": stage == "fit"}
            self.session.shortcuts = shortcuts.of_session(self.source, self.trainer, of, pooling, **settings)
            self.recorder.seconds["shortcuts"] = time.perf_counter() - start

    @property
    def _is_audited(self) -> bool:
        """Whether the shortcut audit is to be made: once a session, of all training patients and scans as they are."""
        data = self.trainer.datamodule
        if not self.audits_shortcuts or self.session.shortcuts is not None or self.pooling == "none":
            return False
        if self.source.bank is None or not isinstance(data.datasets.test, CTDataset):
            return False
        return data.train_fraction == 1 and data.perturbation is None

    @override
    def require_data(self) -> None:
        data = self.trainer.datamodule
        all_train = getattr(data, "train_fraction", 1) == 1
        for part in needed_parts(self.trainer):
            self.source.table.require(part, trains=part is data.datasets.train, all_train=all_train)
        if self.pooling != "mask":
            return
        for part in needed_parts(self.trainer):
            require = getattr(part, "require_masks", None)
            if require is None:
                raise TaskError(
                    f"{self.adaptor.name} pools over masks, and {type(part).__name__} has none: they come from a "
                    "`tapct.tasks.masked.MaskedDataset` whose spec names them"
                )
            require()

    @override
    def solve(self, train: PooledCases, selection: PooledCases | None) -> Solution:
        return tables.solved(self.solve_head, train, selection)

    @abc.abstractmethod
    def solve_head(self, train: PooledCases, selection: PooledCases | None) -> Solution:
        """Returns the head of training cases, with what there is to choose chosen on them and on selection cases."""

    def solved_head(self, state: Mapping[str, torch.Tensor]) -> nn.Module:
        """Returns a solved head that these weights fit into."""
        return LinearHead(*reversed(state["weight"].shape))

    @override
    def head_of(self, state: HeadState) -> nn.Module:
        return tables.head_of(self.solved_head, state) if self.is_solved else super().head_of(state)

    @override
    def seen_by_heads(self) -> dict[str, Any]:
        return {**super().seen_by_heads(), "adaptor": self.adaptor.name, "pooling": self.pooling, "bag": self.bag}

    @override
    def head_input(self, case: EncodedCase) -> Channels:
        assert self.bag is not None
        return instances(case.features, self.bag)

    @override
    def describe(self) -> dict[str, Any]:
        mask = {"mask": self.trainer.datamodule.spec.mask} if self.pooling == "mask" else {}
        table = {"table": self.source.table.said} if self.source.table.said else {}
        return {**super().describe(), **mask, **table}

    def reported_cases(self) -> PooledCases:
        """Returns all cases that are reported, as one vector each."""
        assert self.pooling is not None
        cases = self.source.pooled_cases(self.trainer, "test", self.pooling)
        assert cases is not None
        return cases

    def outputs(self, head: nn.Module, case: EncodedCase) -> torch.Tensor:
        """Returns the (K,) outputs of a head on a case, float64 of a solved one."""
        if self.pooling is not None:
            part = getattr(self.trainer.datamodule.datasets, self.split)
            tables.require_table(head, self.source.table.of(part))
            return head(self.source.vector(part, case, self.pooling).to(self.device))
        return self.attended(head, case)

    def attended(self, head: nn.Module, case: EncodedCase) -> torch.Tensor:
        """Returns the (K,) outputs of a head of attention on a case."""
        return attention.logits([head], [self.in_bag(case)])[0, 0]

    def in_bag(self, case: EncodedCase, scale: ChannelScale | None = None) -> attention.Bag:
        """Returns what attention sees of a case."""
        assert self.bag is not None
        return attention.Bag(instances(case.features, self.bag), scale)
