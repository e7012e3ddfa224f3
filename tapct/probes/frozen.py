"""What eva and Lightning call of a probe: a session with its runs, steps and evaluations."""

import functools
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import safetensors.torch
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from typing_extensions import override

from tapct._utils.files import write_atomically
from tapct.errors import TaskError
from tapct.features import EncodedCase
from tapct.kinds import kind
from tapct.probes.bars import run_index
from tapct.probes.base import Probe
from tapct.probes.checkpoints import Checkpoints, decides
from tapct.probes.finishing import finish
from tapct.probes.folds import folds_of, head_for, head_of_state, require_repeat, solve_runs
from tapct.probes.heads import CandidateHeads, HeadState
from tapct.probes.loaded import HEAD_FILE, LoadedHead
from tapct.probes.recording import RunRecorder, encoder_record, probe_record, require_recordable, training_settings
from tapct.probes.selecting import ValidationEvaluations, has_selection, require_selectable, selection_patients
from tapct.records import EncoderRecord
from tapct.records.case import as_cases


class FrozenEncoderProbe(Probe):
    """A probe on a frozen encoder, run by eva.

    What eva 0.4.5 leaves to chance is settled here. Features of a case are extracted once, before the first step, and
    read from the store ever after. The runs of a session, and the learning rates to choose from, train side by side
    in the first run's fit, each head as if alone; the later runs only evaluate theirs. Run k starts from seed + k
    (eva copies one initialised head), and all see the cases in one order. The encoder stays in eval mode, without
    gradients, at one precision in every stage. A record is written as each run ends, from the objects that ran.
    """

    _checkpoints: Checkpoints | None = None

    # -- The run ---------------------------------------------------------------------------------------

    @override
    def configure_model(self) -> None:
        """Leaves the heads alone; they are built in `setup`, where the run is known."""

    @override
    def setup(self, stage: str) -> None:
        if self.trainer.world_size > 1:
            raise TaskError(
                f"a probe trains on one device, but the trainer has {self.trainer.world_size}. "
                "Run several experiments side by side instead."
            )
        if stage == "fit":
            self._setup_fit()
        elif stage == "predict":
            raise TaskError("a probe trains and reports heads (eva fit, validate, test). For features: `tapct embed`")
        elif self._begun != run_index(self.trainer):  # `eva test` or `eva validate`, without a fit before
            self._setup_loaded()

    def _begin(self) -> None:
        """Begins a run: all that is noted from here on is of this one."""
        self.require_data()
        self.run = self._begun = run_index(self.trainer)
        if (folds := folds_of(self.trainer.datamodule)) is not None:
            require_repeat(folds, max(self.run, getattr(self.trainer, "n_runs", 1) - 1))
        self.recorder = RunRecorder()
        pl.seed_everything(self.settings.seed, workers=True, verbose=False)
        self.source.seconds = self.recorder.seconds
        self.source.fill(self.trainer, again=bool(self.session.by_run), seen=self.seen, pooling=self.pooling)
        if not self.session.by_run:  # what no record could hold is said before anything trains
            require_recordable(self.trainer.datamodule)
            self._encoder_for_record()

    def _setup_loaded(self) -> None:
        """Takes a head that was trained before."""
        if self.settings.head is None:
            raise TaskError(
                "`eva test` and `eva validate` report a head that was trained before: name its session's folder with "
                "model.init_args.head. `eva fit` trains one, and reports it as well"
            )
        runs = getattr(self.trainer, "n_runs", 1)
        loaded = LoadedHead.find(self.settings.head, run_index(self.trainer), runs)
        self._begin()
        loaded.check(self.seen_by_heads(), self._encoder_for_record())
        loaded.check_folds(folds_of(self.trainer.datamodule))
        self.loaded = loaded
        self.session.by_run[self.run] = loaded.chosen
        self._take_head()

    def _setup_fit(self) -> None:
        if self.settings.head is not None:
            raise TaskError(
                "`eva fit` trains its own head, but model.init_args.head names one. Leave it out, or use `eva test`"
            )
        self._begin()
        if self.run in self.session.by_run:  # an earlier run's fit has trained it
            self.trainer.limit_train_batches = 0
            self.candidates = None
            return
        planned = getattr(self.trainer, "n_runs", 1)
        runs = range(self.run, planned) if self.settings.runs_together else [self.run]
        if self.is_solved:
            self._solve(runs)
            return
        require_selectable(self.trainer, self.settings)
        self.prepare()
        self.candidates = CandidateHeads(
            runs,
            self.settings.learning_rates,
            lambda: self.build_head(self.classes),
            self.settings.seed,
            self.folded,
            selection_patients(self.trainer),
            self.ranked.sign,
        )
        self._validation = ValidationEvaluations(
            self.candidates, functools.partial(self.evaluate, reported=False), self.score
        )
        setattr(self, self.head_name, self.candidates.modules)
        probe_record(self.describe())

    def _solve(self, runs: Iterable[int]) -> None:
        """Solves the heads of these runs: no seed decides anything of them, so they share one.

        Of a cross-validated task each run is another repeat of the folds, and has a head for each of them.
        """
        start = time.perf_counter()
        assert self.pooling is not None
        trains = kind(self.kind).trains
        train = self.source.pooled_cases(self.trainer, "train" if trains else "test", self.pooling)
        selection = self.source.pooled_cases(self.trainer, "val", self.pooling) if trains else None
        assert train is not None
        for name, vector in zip(train.names, train.encoded, strict=True):
            if len(vector) and self.session.features.needs(name):
                self.session.features.add(name, torch.from_numpy(vector[:, None]))
        solved, self.session.scale = solve_runs(self.solve, runs, train, selection, folds_of(self.trainer.datamodule))
        self.session.by_run |= solved
        self.recorder.seconds["fit"] = time.perf_counter() - start
        self.trainer.limit_train_batches = 0
        self.candidates = None

    @override
    def configure_optimizers(self) -> Any:
        if self.candidates is None:
            return None
        # eva's default, ConstantLR, is a third of the rate for five epochs: with one long epoch, for ever.
        optimizer = self.settings.optimizer(self.candidates.parameter_groups(self.undecayed))
        schedule, steps = self.settings.lr_scheduler, self.trainer.max_steps
        if schedule is None and steps <= 0:  # a cosine of -1 steps would switch between the rate and zero
            raise TaskError("the rate ends at zero with the last step: set trainer.max_steps, or model.lr_scheduler")
        schedule = schedule or functools.partial(CosineAnnealingLR, T_max=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule(optimizer), "interval": "step"}}

    @override
    def on_fit_start(self) -> None:
        super().on_fit_start()
        self._started = time.perf_counter()
        if self.candidates is not None and self.settings.checkpoint_every is not None:
            encoder, described = self._encoder_for_record(), self.describe()
            of = decides(self.trainer, self.candidates, encoder, described, type(self).__module__)
            self._checkpoints = Checkpoints(
                self.trainer, self.candidates, self.session, of=of, every=self.settings.checkpoint_every
            )
            self._checkpoints.resume()
        if self.notice and self.run == 0:
            print(f"\n{self.notice}\n", file=sys.stderr)

    @override
    def on_train_start(self) -> None:
        super().on_train_start()
        if self._checkpoints is not None:
            self._checkpoints.restore_random()

    @override
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if self._checkpoints is not None:
            self._checkpoints.save_if_due(batch_idx)

    @override
    def on_fit_end(self) -> None:
        if self.candidates is not None:
            self.recorder.seconds["fit"] = time.perf_counter() - self._started
            if self._checkpoints is not None:
                self.recorder.seconds["fit"] = self._checkpoints.seconds
                self._checkpoints.save(self.trainer.global_step * self.trainer.accumulate_grad_batches)
            self.session.settings = training_settings(self.trainer)
            step, by_score = self.trainer.global_step, has_selection(self.trainer, self.settings)
            for run in {candidate.run: None for candidate in self.candidates.all}:
                self.session.by_run[run] = self.candidates.choose(run, step, by_score=by_score)
        self._take_head()
        folder = Path(str(self.trainer.log_dir))
        write_atomically(folder / HEAD_FILE, safetensors.torch.save(self.session.by_run[self.run].state))

    def _head_for(self, patient: str) -> nn.Module:
        """Returns the head that reports a patient's cases: of a cross-validated task one that has not seen them."""
        return head_for(self.trained_head, folds_of(self.trainer.datamodule), self.run, patient)

    def _take_head(self) -> None:
        """Puts the head that this run reports in place."""
        setattr(self, self.head_name, nn.ModuleList([self._head(self.session.by_run[self.run].state)]))

    def _head(self, state: HeadState) -> nn.Module:
        """Returns the head of these weights, to be evaluated.

        Raises:
            TaskError: If they are not those of a head for this encoder and task.
        """
        head = head_of_state(self.head_of, state)
        expected = {name: tuple(p.shape) for name, p in head.state_dict().items()}
        found = {name: tuple(p.shape) for name, p in state.items()}
        if found != expected:
            raise TaskError(f"the head has the parameters {found}, but this encoder and task need {expected}")
        head.load_state_dict(state)
        return head.to(self.device).eval()

    # -- Steps -----------------------------------------------------------------------------------------

    @override
    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        if isinstance(batch, list) and all(isinstance(case, EncodedCase) for case in batch):
            return [self.on_device(case, device) for case in batch]
        if isinstance(batch, EncodedCase):
            return self.on_device(batch, device)
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    @override
    def training_step(self, batch: Any, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        with self.full_precision():
            cases = self.source.cases_of(batch)
            assert self.candidates is not None
            for case in cases:
                if self.session.features.needs(case.name):
                    self.session.features.add(case.name, self.head_input(case))
            losses = self.losses([candidate.head for candidate in self.candidates.all], cases)
            self.candidates.trained(losses)
            return {"loss": losses.sum()}  # summed: the gradient of each head is that of its own loss

    @override
    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        assert self.candidates is not None
        mean = {**outputs, "loss": outputs["loss"] / len(self.candidates.all)}  # what is logged is that of one head
        super().on_train_batch_end(mean, batch, batch_idx)

    @override
    def validation_step(self, batch: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return self._evaluation_step(batch)

    @override
    def test_step(self, batch: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return self._evaluation_step(batch)

    def _evaluation_step(self, batch: Any) -> dict[str, Any]:
        with self.full_precision():
            case = self.source.case_of(batch)
            if self.trainer.state.fn != TrainerFn.FITTING:
                outputs, result = self.evaluate(self._head_for(case.patient), case, reported=True)
                self.recorder.cases[self.split].append(result)
                return outputs
            return self._validation.evaluate(case, self.trainer.global_step)

    @override
    def on_test_epoch_end(self) -> None:
        super().on_test_epoch_end()
        self._log_metrics()

    @override
    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        if self.trainer.state.fn == TrainerFn.VALIDATING:
            self._log_metrics()
        if self.trainer.state.fn == TrainerFn.FITTING and self.candidates is not None:
            self._validation.end(self.trainer.global_step)

    def _log_metrics(self) -> None:
        """Logs the metrics of the reported cases, where eva does not compute them."""
        of = kind(self.kind)
        if of.outcome:
            found = of.numbers(as_cases(of, self.recorder.cases[self.split]))
            for name, value in found.items():  # in float64: what is logged is what is recorded
                self.log(f"{self.split}/{name}", torch.tensor(value, dtype=torch.float64))

    # -- The record ------------------------------------------------------------------------------------

    @override
    def on_validation_start(self) -> None:
        super().on_validation_start()
        if self.trainer.state.fn == TrainerFn.VALIDATING:
            self.recorder.begin("val")
        elif self.candidates is not None:
            # As they would be reported, for features as they are: what chooses is then what is reported, to the bit.
            states = [self.folded(candidate.head.state_dict()) for candidate in self.candidates.all]
            self._validation.begin([self._head(state) for state in states])

    @override
    def on_test_start(self) -> None:
        super().on_test_start()
        self.recorder.begin("test")

    @override
    def on_validation_end(self) -> None:
        if self.trainer.state.fn == TrainerFn.VALIDATING:
            self._write_record("val")

    @override
    def on_test_end(self) -> None:
        self._write_record("test")

    def _write_record(self, split: str) -> None:
        self.recorder.end(split, self.trainer.callback_metrics)
        path = self.recorder.write(
            self.trainer,
            run=self.run,
            seed=self.settings.seed + self.run,
            head=self.trained_head,
            chosen=self.session.by_run[self.run],
            features=self.session.features.describe(),
            encoder=self._encoder_for_record(),
            probe=self.describe(),
            cell_size=self.cell_size(),
            shortcuts=self.session.shortcuts,
        )
        last = self.run == getattr(self.trainer, "n_runs", 1) - 1
        if last and (self.loaded is not None or split == "test" or self.trainer.datamodule.datasets.test is None):
            finish(path, self.session.checkpoints)

    def _encoder_for_record(self) -> EncoderRecord:
        return encoder_record(self.encoder, self.source.description(self.device))
