"""The training loop: steps of micro-batches, shared out over processes, that stop before they spoil anything.

A step accumulates the gradients of its micro-batches in one flat tensor, which also carries the centre statistics, the
losses and whether a process was asked to stop; one all-reduce sums it over the processes. Whether all of it is finite
is decided on the device: if not, the optimizer, the teacher and the centres leave everything as it is, on every process
alike. The host reads this, with the losses, one step later, when it has long been there, so it never waits for the
device.
"""

import contextlib
import copy
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from typing import Any

import torch
from torch import Tensor

from pretrain.config import Config
from pretrain.data.batches import Batches, MicroBatch
from pretrain.data.identity import stores_of, trained_on
from pretrain.distributed import World
from pretrain.errors import PretrainError
from pretrain.observe.collapse import CollapseAlarm
from pretrain.observe.monitor import Monitor, Pace, console_line, effective_rank, peak_flops
from pretrain.observe.probe import OnlineProbe
from pretrain.observe.replay import dump_faults
from pretrain.settings import dump_config
from pretrain.ssl.model import HEADS, Losses, Pretrainer
from pretrain.state_files import load_checkpoint
from pretrain.training.checkpoint import CheckpointWriter, newest_checkpoint
from pretrain.training.exchange import Flat, StepReport
from pretrain.training.flops import run_flops, step_flops
from pretrain.training.optim import apply_schedules, build_optimizer, clip_per_module
from pretrain.training.phases import grown
from pretrain.training.run_folder import RunFolder, check_same_run, versions
from pretrain.training.schedules import Schedules
from pretrain.training.selftest import check_compiled
from pretrain.training.warm_start import WarmStart, warm_start

_LOSSES = tuple(field.name for field in fields(Losses) if field.name != "teacher_cls")

log = logging.getLogger(__name__)


class Engine:
    """A run on this process.

    Args:
        config: The settings.
        world: The processes.
        stop_wanted: Says whether this process was asked to stop, such as by SIGTERM.

    Raises:
        PretrainError: If the settings do not fit the processes, the store or the run's checkpoints.
    """

    def __init__(self, config: Config, world: World, stop_wanted: Callable[[], bool]) -> None:
        self._config, self._world, self._stop_wanted = config, world, stop_wanted
        self._share = world.share(config.run.micro_batches)
        self._scale = 1 / config.run.micro_batches
        self._last_step = min(config.run.steps, config.run.stop_at or config.run.steps)
        self._folder = RunFolder(config.run.output)
        if world.is_first:
            self._folder.claim()
        self._schedules = Schedules(config)
        self._step, self._uncompiled = 0, False
        self._warm_start: WarmStart | None = None
        self._build(config.at(0))
        identity = self._batches.identity
        self._stores: list[dict[str, Any]] = [{"step": 0, "digest": identity.digest, "volumes": identity.volumes}]
        self._adopts_store = False
        self._saved_step: int | None = None
        self._skipped, self._skipped_in_a_row = 0, 0
        self._pending: StepReport | None = None
        self._embeddings, self._last_pace = list[Tensor](), dict[str, float]()
        self._collapse = CollapseAlarm(config, world)
        self._probe = None if config.run.probe.folder is None else OnlineProbe(config, world)
        self._monitor = Monitor(config.run.output) if world.is_first else None
        self._writer = CheckpointWriter(self._folder.checkpoints, config.run.keep) if world.is_first else None

    def _build(self, phase: Config) -> None:
        """Makes what has the sizes of a phase; its weights are fresh."""
        self._phase = phase
        self._batches = Batches(phase, self._world.device)
        self._model = Pretrainer(phase).to(self._world.device)
        if self._uncompiled:
            self._model.leave_compiled_code()
        self._optimizer = build_optimizer(self._model.student, phase)
        statistics = self._model.centre_statistics().numel()
        self._flat = Flat(list(self._model.student.parameters()), statistics, len(_LOSSES) + 1)

    def run(self) -> bool:
        """Trains to the last step, or until a process is asked to stop.

        Returns:
            Whether the last step was reached; if not, all is saved, and the same command resumes.

        Raises:
            PretrainError: If the run cannot continue; says why.
        """
        self._resume()
        self._announce()
        try:
            finished = self._train()
        except BaseException as error:
            with contextlib.suppress(PretrainError):  # the disk may be full: the first error is the one to show
                self._record_event("end", reason=f"{type(error).__name__}: {error}")
            raise
        finally:
            self._batches.close()
        self._record_event("end", reason="finished" if finished else "asked to stop")
        if self._monitor is not None:
            self._monitor.close()
        return finished

    def _train(self) -> bool:
        fault = check_compiled(self._model, self._world, [phase for _, phase in self._config.phases])
        if fault is not None:
            self._uncompiled = True
            if self._world.is_first:
                log.warning("%s", fault)
            self._record_event("plain", message=fault)
        self._pace = self._new_pace()
        if self._step == 0:
            self._run_probe()
        stream = self._batches.stream(self._step, self._share)
        stop = False
        while self._step < self._last_step and not stop:
            self._accumulate(stream)
            stop = self._settle()
            if stop:
                break
            self._update()
            self._step += 1
            if self._config.at(self._step) != self._phase:
                stop = self._settle()
                self._enter_phase()
                stream = self._batches.stream(self._step, self._share)
            if self._step % self._config.run.checkpoint_every == 0:
                stop = self._settle() or stop
                self._save()
            if self._probe is not None and self._step % self._config.run.probe.every_steps == 0:
                self._run_probe()
        self._model.discard_step()
        self._settle()
        self._save()
        if self._writer is not None:
            self._writer.wait()
        return self._step >= self._last_step

    def _enter_phase(self) -> None:
        """Continues with the crops of the step's phase; nothing of a step may be pending."""
        before, state = self._phase, {"model": self._model.state_dict(), "optimizer": self._optimizer.state_dict()}
        self._batches.close()
        self._build(self._config.at(self._step))
        self._load(grown(state, before, self._phase))
        sizes = {name: getattr(self._phase.crops, name) for name in ("global_size", "local_size")}
        message = f"crops of {sizes['global_size']} and {sizes['local_size']} from here on (early)"
        log.info("step %d: %s", self._step, message)
        self._record_event("phase", message=message, **sizes)
        self._pace = self._new_pace()

    def _load(self, state: dict[str, Any]) -> None:
        self._model.load_state_dict(state["model"])
        # A copy: the optimizer keeps what it is given, and the file that it is mapped from will be removed.
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))

    def _accumulate(self, stream: Iterator[MicroBatch]) -> None:
        """Adds the gradients of this process's micro-batches."""
        self._flat.clear()
        self._embeddings.clear()
        temperature = self._schedules.teacher_temperature(self._step)
        for _ in self._share:
            began = time.perf_counter()
            batch = next(stream)
            self._pace.waited(time.perf_counter() - began)
            losses = self._model.forward_backward(batch, teacher_temperature=temperature, scale=self._scale)
            scalars = losses.scalars()
            self._flat.scalars[:-1].add_(torch.stack([scalars[name] for name in _LOSSES]), alpha=self._scale)
            if self._is_logged(self._step):
                self._embeddings.append(losses.teacher_cls)
        self._flat.statistics.copy_(self._model.centre_statistics())
        self._flat.scalars[-1].fill_(float(self._stop_wanted()))

    def _update(self) -> None:
        """Sums over the processes and takes the step, unless something is not finite."""
        self._world.sum_in_place(self._flat.all)
        values = dict(zip((*_LOSSES, "stop"), self._flat.scalars.clone(), strict=True))
        norms = clip_per_module(self._model.student, self._config.optim.clip_norm)
        # A norm is finite only if every gradient is.
        finite = torch.cat([torch.stack(list(norms.values())), self._flat.statistics, self._flat.scalars])
        finite = finite.isfinite().all()
        values["finite"] = finite
        apply_schedules(self._optimizer, self._schedules, self._step)
        # The fused optimizer does nothing where this is 1, as with a gradient scaler.
        self._optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        self._optimizer.step()
        # Without rows, a centre stays.
        self._model.update_centres(self._flat.statistics.where(finite, self._flat.statistics.new_zeros(())))
        self._model.update_teacher(self._schedules.momentum(self._step), applied=finite)
        values |= {f"grad_norm_{name}": norm for name, norm in norms.items()}
        if self._is_logged(self._step):
            values |= {f"centre_norm_{head}": getattr(self._model, f"{head}_centre").norm() for head in HEADS}
        self._pace.stepped()
        if self._is_logged(self._step):
            self._last_pace = self._pace.take(self._steps_left())
        self._pending = StepReport.of(self._step, values, self._moments() if self._is_logged(self._step) else None)

    def _settle(self) -> bool:
        """Reads what the device says of the last step taken.

        Returns:
            Whether to stop, the same on every process.
        """
        if self._writer is not None:
            self._writer.check()
        if self._pending is None:
            return False
        report, self._pending = self._pending, None
        values = report.read()
        stop = values.pop("stop") > 0
        if not values.pop("finite"):
            self._handle_not_finite(report.step)
            return stop
        self._skipped_in_a_row = 0
        if report.matrix is not None:
            self._log(report.step, values | {"effective_rank": effective_rank(report.matrix)})
        return stop

    def _handle_not_finite(self, step: int) -> None:
        """Dumps the micro-batches at fault of a step that was not taken, and follows the policy."""
        self._skipped += 1
        self._skipped_in_a_row += 1
        run, kept = self._config.run, self._flat.all.clone()
        found = [words for words in self._world.gather(self._find_fault(step)) if words]
        self._flat.clear()
        self._flat.all.copy_(kept)  # the step after it has begun
        what = "; ".join(found) or (
            "no micro-batch does it alone: their sum overflows, or a device computes wrongly (look for memory errors)"
        )
        message = f"step {step + 1}: a loss or a gradient is not finite, and nothing was updated. {what}"
        if run.on_nonfinite == "stop" or self._skipped_in_a_row > run.max_skipped_steps:
            policy = "run.on_nonfinite = stop" if run.on_nonfinite == "stop" else f"{self._skipped_in_a_row} in a row"
            self._record_event("skipped", step + 1, message=f"{message}; stopped ({policy})")
            raise PretrainError(f"{message}. The run stops ({policy}); the newest checkpoint is from before it")
        log.warning("%s. The step is left out (run.on_nonfinite = skip)", message)
        self._record_event("skipped", step + 1, message=message)

    def _find_fault(self, step: int) -> str:
        """Runs this process's micro-batches of a step one by one; dumps those that are not finite."""
        batches = (self._batches.get(step, index) for index in self._share)
        temperature = self._schedules.teacher_temperature(step)
        return dump_faults(self._folder.dumps, self._model, batches, teacher_temperature=temperature, scale=self._scale)

    def _moments(self) -> Tensor:
        """Returns the second moments of the teacher's class tokens of this step over all processes, (C, C) float64."""
        tokens = torch.cat(self._embeddings).double()
        moments = tokens.T @ tokens
        self._world.sum_in_place(moments)
        return moments

    def _log(self, step: int, values: dict[str, float]) -> None:
        """Writes a step's line, and looks for collapse; every process looks, so that all stop together."""
        uniform = math.log(self._config.heads.prototypes)
        scalars = {"loss": values.pop("total"), **values}
        for head in HEADS:
            scalars[f"entropy_{head}"] = scalars.pop(f"{head}_teacher_entropy") / uniform
        if self._monitor is not None:
            schedules = self._schedules
            scalars |= {
                "lr": schedules.lr(step),
                "last_layer_lr": schedules.last_layer_lr(step),
                "weight_decay": schedules.weight_decay(step),
                "teacher_temperature": schedules.teacher_temperature(step),
                "momentum": schedules.momentum(step),
                **self._last_pace,
            }
            self._monitor.scalars("metrics", step + 1, scalars)
            log.info("%s", console_line(step + 1, self._config.run.steps, scalars))
        self._look_for_collapse(step + 1, scalars)

    def _look_for_collapse(self, step: int, scalars: dict[str, float]) -> None:
        for alarm in self._collapse(step, scalars):
            log.warning("step %d: %s", step, alarm["message"])
            self._record_event("alarm", step, **alarm)
            if self._config.run.collapse.stop:
                raise PretrainError(f"step {step}: {alarm['message']}. The run stops (run.collapse.stop)")

    def _run_probe(self) -> None:
        if self._probe is None:
            return
        scores = self._probe(self._model.teacher.backbone)
        if self._monitor is not None:
            self._monitor.scalars("probe", self._step, scores)
            log.info(
                "step %d: online k-NN %.3f, chance %.3f (%d organs, %d scans; no benchmark score)",
                *(self._step, scores["accuracy"], scores["chance"], scores["organs"], scores["scans"]),
            )

    def _save(self) -> None:
        """Starts a checkpoint of the steps done."""
        if self._writer is None or self._saved_step == self._step:
            return
        self._saved_step = self._step
        self._writer.save(
            {
                "step": self._step,
                "model": self._model.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "counters": {"skipped": self._skipped, "skipped_in_a_row": self._skipped_in_a_row},
                "config": dump_config(self._config),
                "stores": self._stores,
                "init": None if self._warm_start is None else asdict(self._warm_start),
                "versions": versions(),
                "processes": self._world.size,
            }
        )
        self._record_event("checkpoint")

    def _resume(self) -> None:
        """Resumes from the newest checkpoint, if there is one."""
        newest = newest_checkpoint(self._folder.checkpoints) if self._world.is_first else None
        path = self._world.from_first(newest)
        if path is None:
            self._warm_start = warm_start(self._model, self._phase)
            if self._world.is_first:
                self._folder.write_config(self._config)
            return
        state = load_checkpoint(path)
        stores, identity = stores_of(state, self._batches.store), self._batches.identity
        check_same_run(state, self._config, stores, identity, path)
        self._step = state["step"]
        if self._config.at(self._step) != self._phase:
            self._batches.close()
            self._build(self._config.at(self._step))
        self._load(state)
        self._warm_start = WarmStart(**state["init"]) if state.get("init") else None
        self._skipped, self._skipped_in_a_row = (state["counters"][n] for n in ("skipped", "skipped_in_a_row"))
        if self._world.is_first:
            self._folder.write_config(self._config)
            log.info("resuming from %s", path)
        self._stores = trained_on(stores, identity, self._step)
        self._adopts_store = len(self._stores) > len(stores)

    def _announce(self) -> None:
        config, world = self._config, self._world
        backbone, volumes = self._model.student.backbone, len(self._batches.store)
        device = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else "CPU"
        model = f"ViT-{config.model.size}, patch {config.model.patch_size}, window {config.crops.global_size}"
        if world.is_first:
            log.info(
                "%s on %d x %s; %d volumes; %d samples a step (%d micro-batches of %d, %d a process); steps %d to %d",
                *(model, world.size, device, volumes, config.batch_size, config.run.micro_batches),
                *(config.run.micro_batch_size, len(self._share), self._step, self._last_step),
            )
        self._record_event(
            "start",
            processes=world.size,
            device=device,
            device_type=world.device.type,
            model=model,
            parameters=sum(p.numel() for p in backbone.parameters()),
            steps=config.run.steps,
            samples_per_step=config.batch_size,
            volumes=volumes,
            versions=versions(),
        )
        if self._adopts_store:
            self._record_adoption()
        if self._warm_start is not None and self._step == 0:
            message = f"the backbone begins with the weights of {self._warm_start}"
            log.info("%s", message)
            self._record_event("init", message=message, **asdict(self._warm_start))

    def _record_adoption(self) -> None:
        """Records that the run continues with another store than before."""
        before, now = self._stores[-2:]
        number = "" if before["volumes"] is None else f"{before['volumes']} volumes before, "
        message = f"run.adopt_store: another store from here on: {number}{now['volumes']} now, digest {now['digest']}"
        log.warning("step %d: %s", self._step, message)
        self._record_event("store", message=message, before=before["digest"], now=now["digest"], volumes=now["volumes"])

    def _new_pace(self) -> Pace:
        peak = peak_flops(self._world.device)
        self._flops_of_step = step_flops(self._phase)
        return Pace(self._config.batch_size, self._flops_of_step, None if peak is None else peak * self._world.size)

    def _steps_left(self) -> float:
        """What is left after this step, in steps of this phase's work."""
        return run_flops(self._config, self._step + 1, self._last_step) / self._flops_of_step

    def _is_logged(self, step: int) -> bool:
        return (step + 1) % self._config.run.log_every == 0 or step == 0

    def _record_event(self, kind: str, step: int | None = None, **fields: Any) -> None:
        if self._monitor is not None:
            self._monitor.event(kind, self._step if step is None else step, **fields)
