"""What every engine of this package adds to torchreid's training: sound checkpoints, exact resume, orderly stops."""

import os
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from dpm_plugin.engine.lines import PrintFrequency
from dpm_plugin.engine.non_finite import ADVICE, GRADIENT, KEPT, Snapshot, check_weights, gradient_norm, not_finite
from dpm_plugin.engine.patience import OutOfPatience, Patience
from dpm_plugin.engine.resumable_loader import ResumableLoader, as_tensors
from dpm_plugin.engine.run_checkpoints import BEST, FOLDER, LAST, disk_needed, keep_newest, restore, write_last
from dpm_plugin.engine.run_folder import evaluation_folder
from dpm_plugin.engine.run_record import resumed_cameras
from dpm_plugin.engine.stop_signals import Stopped, StopSignals
from dpm_plugin.engine.testing import EvaluationMixin
from dpm_plugin.engine.training_options import TrainingOptions
from dpm_plugin.engine.training_state import own_place
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.files import put_copy, remove_leftovers
from dpm_plugin.utils.text import first_line
from dpm_plugin.utils.timing import measure
from dpm_plugin.weights.files import write_checkpoint

TEST_OPTIONS = ("dist_metric", "normalize_feature", "use_metric_cuhk03", "ranks")  # of run(), for test()
KILLED = "DataLoader worker"  # begins torch's errors for a loader's process that ended


class TrainingMixin(EvaluationMixin):
    """Stands before one of torchreid's engines in the bases, or alone; takes that engine's arguments and these.

    A checkpoint is torchreid's (``state_dict``, ``epoch``, ``rank1``, ``optimizer``, ``scheduler``) with
    ``progress``: how many batches of the running epoch are done, the random generators now and when that epoch began,
    of every process and its loader's, and counters; and the run's record (:mod:`~dpm_plugin.engine.run_record`).

    Args:
        training: Default: ``TrainingOptions()``. Others: see :class:`~dpm_plugin.engine.testing.EvaluationMixin`.
    """

    def __init__(self, *torchreid: Any, training: TrainingOptions | None = None, **options: Any) -> None:
        super().__init__(*torchreid, **options)
        self.training = training or TrainingOptions()
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=False)
        self.best: tuple[float, float] | None = None  # rank-1 and mAP of the best evaluation so far
        self.patience = Patience(self.training.patience)
        self.skipped_in_a_row = 0
        self.stop = StopSignals()
        self.train_loader: Any  # torchreid's, then the resumable one over it
        self._resumed: tuple[int, dict] | None = None  # finished epochs and progress of the checkpoint

    def run(
        self, save_dir: str = "log", max_epoch: int = 0, start_epoch: int = 0, test_only: bool = False, **options: Any
    ) -> None:
        """torchreid's ``run``; a run that was resumed after its last epoch is evaluated, not trained again.

        A signal ends it after the iteration with a checkpoint and :class:`Stopped`. Where nothing is trained it writes
        to :func:`~dpm_plugin.engine.run_folder.evaluation_folder` of ``save_dir``.
        """
        resumed, self._resumed = self._resumed, None
        resumed = resumed if resumed is not None and resumed[0] == start_epoch else None
        last_epoch_ended = resumed is not None and max_epoch == start_epoch and not resumed[1]["own"]["iteration"]
        if is_over := not test_only and 0 < max_epoch <= start_epoch and not last_epoch_ended:
            print(f"=> All {max_epoch} epochs are trained (start_epoch {start_epoch}); evaluating only")
            test_only = True
        elif not test_only and resumed is not None and self.patience.is_over and not resumed[1]["own"]["iteration"]:
            print(f"=> Training ended after epoch {start_epoch}: {self.patience}; evaluating only")
            test_only = is_over = True
        if test_only and self.processes.is_main:
            save_dir = str(evaluation_folder(save_dir, is_owner=is_over))
        self.save_dir, self.run_phases, self.in_training = save_dir, {}, not test_only
        self.stop = StopSignals(shared=self.processes.size > 1)
        if not self.processes.is_main:  # TensorBoard's writer, which torchreid makes where there is none
            self.writer = SimpleNamespace(add_scalar=lambda *values: None, close=lambda: None)
        options |= dict(save_dir=save_dir, max_epoch=max_epoch, start_epoch=start_epoch, test_only=test_only)
        with nullcontext() if test_only else self.stop:
            if not test_only:
                self.max_epoch = max_epoch
                if self.processes.is_main:
                    for folder in (save_dir, Path(save_dir) / FOLDER):
                        remove_leftovers(folder)
                    self._announce_size(options.get("eval_freq", -1), options.get("start_eval", 0))
            try:
                if resumed is not None and not test_only:
                    self._go_on(*resumed, options)
                super().run(**options)
            except OutOfPatience as ended:
                print(ended)
                if self.writer is not None:
                    self.writer.close()
            except OSError as error:
                name = os.fsdecode(error.filename or "")
                if not name.startswith(os.fspath(save_dir)):
                    raise
                advice = "was data.save_dir removed while the run was going?"
                raise DPMError(f"'{name}' cannot be written: {error.strerror}; {advice}") from error
            except RuntimeError as error:
                if KILLED not in str(error):
                    raise
                # A signal to the whole group ends the test loaders' processes too, and torch notices.
                if self.stop.asked:
                    raise Stopped(self.stop.asked) from error
                what = f"a process that loads images was killed ({first_line(error)}); where memory ran out, lower"
                advice = "continue with train.resume auto"
                raise DPMError(f"{what} data.workers or the batch size; checkpoints are kept, {advice}") from error

    def resume(self, path: str | Path) -> int:
        """Take up a checkpoint; returns its finished epochs, for ``run(start_epoch=...)`` to go on exactly there.

        DPMError where it is unreadable, or of another model or number of batches an epoch.
        """
        content = restore(path, self.model, self.optimizer, self.scheduler, self.scaler, self.training.record)
        data = self.datamanager if self.gives_cameras and self.training.record is not None else None
        self.trained_cameras = resumed_cameras(content, self.trained_cameras, self.model, data)
        epoch, progress, within = content["epoch"], content.get("progress"), ""
        if progress is not None:
            try:
                if progress["best_rank1"] is not None:  # 0.1.0 did not record the mAP: only a higher rank-1 is better
                    self.best = float(progress["best_rank1"]), float(progress.get("best_mAP", "inf"))
                self.skipped_iterations = int(progress["skipped"])
                self.skipped_in_a_row = int(progress["skipped_in_a_row"])
                own = own_place(progress["processes"], self.processes.rank)
                self.patience.waited = int(progress.get("waited", 0))  # 0.1.0 did not count
                self._resumed = epoch, {**progress, "own": own}
                within = f", iteration {own['iteration']} of {own['batches']}" if own["iteration"] else ""
            except (AttributeError, LookupError, OverflowError, RuntimeError, TypeError, ValueError) as error:
                why = f"{type(error).__name__}: {first_line(error)}"
                advice = "resume from another checkpoint, or start from its weights by model.load_weights"
                raise DPMError(f"the progress in '{path}' is damaged ({why}); {advice}") from error
        print(f"=> Resumed from '{path}' after epoch {epoch}{within}")
        return epoch

    def _announce_size(self, eval_freq: int, start_eval: int) -> None:
        evaluated = 1 + sum(eval_freq > 0 and epoch % eval_freq == 0 for epoch in range(start_eval, self.max_epoch))
        keep = self.training.keep_epochs
        epochs = evaluated if keep == 0 else min(evaluated, keep + 1)  # best.pth.tar may be none of the kept
        size = disk_needed(self.model, self.optimizer, self.training.keep_checkpoints, epochs)
        keys = "train.keep_checkpoints, train.keep_epochs"
        print(f"=> Checkpoints will take about {size / 1e9:,.1f} GB in '{self.save_dir}' ({keys})")

    def _go_on(self, finished: int, progress: dict, options: dict) -> None:
        """Put the random generators back; make up for the evaluation that an interruption prevented."""
        self._loader().resume(progress["own"])
        self.epoch, frequency = finished - 1, options.get("eval_freq", -1)
        due = frequency > 0 and finished % frequency == 0 and 0 < finished != self.max_epoch
        due = due and finished >= options.get("start_eval", 0)
        if due and not progress["evaluated"] and not progress["own"]["iteration"]:
            chosen = {name: options[name] for name in TEST_OPTIONS if name in options}
            self.save_model(self.epoch, self.test(save_dir=self.save_dir, **chosen), self.save_dir)

    def _loader(self) -> ResumableLoader:
        if not isinstance(self.train_loader, ResumableLoader):
            self.train_loader = ResumableLoader(self.train_loader, self.training.position_seed)
        return self.train_loader

    @property
    def batch_idx(self) -> int:
        """Index of the running iteration in its epoch; torchreid's loop sets it, and counts from 0 where it resumes."""
        return self._batch_idx

    @batch_idx.setter
    def batch_idx(self, value: int) -> None:
        self._batch_idx = value + getattr(self.train_loader, "first", 0)

    def train(self, print_freq: int = 10, fixbase_epoch: int = 0, open_layers: list[str] | None = None) -> None:
        """One epoch, timed, then ``save_dir/model/last.pth.tar``; the epoch's last iteration is printed as well."""
        batches, when = self._loader(), f"after epoch {self.epoch + 1}"
        batches.epoch = self.epoch
        batches.after_batch, batches.without_batch = self._after_iteration, self._stop_without_batch
        with self.stop.deferred():
            with measure(self.run_phases, "train", self.device):
                lines = PrintFrequency(print_freq, batches.is_last)
                super().train(print_freq=lines, fixbase_epoch=fixbase_epoch, open_layers=open_layers)
            self.after_epoch()
            batches.finish_epoch()
            self._save_last(self.epoch, when)
        self.stop.raise_if_due(when)

    def after_epoch(self) -> None:
        """Called between the end of an epoch and its checkpoint; for subclasses."""

    def forward_backward(self, data: dict) -> dict[str, float]:
        """One iteration: the numbers that torchreid prints and logs; none where it was skipped.

        DPMError for a loss or gradient that is not finite, where ``non_finite`` is "stop" or the limit is reached.
        """
        before = Snapshot(self.model, self.optimizer) if self.training.non_finite == "skip" else None
        numbers = self.iterate(data)
        bad = not_finite(numbers)
        if bad is None:
            self.skipped_in_a_row = 0
            return {name: value for name, value in numbers.items() if not name.startswith(GRADIENT)}
        told = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        place = f"epoch {self.epoch + 1}, iteration {self.batch_idx + 1} of {self.num_batches}"
        what = f"non-finite {bad} in {place} ({told})"
        if before is None:
            raise DPMError(f"{what}; {KEPT}")
        before.restore()
        self.skipped_iterations += 1
        self.skipped_in_a_row += 1
        print(f"=> {what}: skipped, {self.skipped_iterations} so far")
        if self.skipped_in_a_row >= self.training.non_finite_limit:
            raise DPMError(f"{what}, number {self.skipped_in_a_row} in a row (train.non_finite_limit); {ADVICE}")
        return {}

    def iterate(self, data: dict) -> dict[str, float]:
        """One iteration: all its numbers as floats, names of gradient norms begin with "gradient"."""
        numbers = super().forward_backward(data)
        norm = gradient_norm(self.model.parameters())
        return numbers if norm is None else {**numbers, GRADIENT: norm.item()}

    def _after_iteration(self, save: bool = False) -> None:
        done, total = self._loader().done, len(self._loader())
        if done == total:  # the epoch's end follows
            return
        when = f"in epoch {self.epoch + 1} after iteration {done} of {total}"
        every = self.training.checkpoint_every
        if save or self.stop.due or every and done % every == 0:
            self._save_last(self.epoch - 1, when)
        self.stop.raise_if_due(when)

    def _stop_without_batch(self, error: RuntimeError) -> None:
        """Save what is done where a loader's process was killed, by a signal to the whole group or for memory."""
        if (self.stop.asked or KILLED in str(error)) and self._loader().done and not self.stop.shared:
            self._after_iteration(save=True)
        elif self.stop.asked:
            raise Stopped(self.stop.asked)

    def save_model(self, epoch: int, rank1: float, save_dir: str, is_best: bool = False) -> None:
        """Write ``save_dir/model/model.pth.tar-<epoch + 1>`` after an evaluation.

        It holds the weights alone, and is ``best.pth.tar`` too where rank-1, or with the same rank-1 mAP, is the
        highest so far. ``last.pth.tar`` says that it was evaluated unless the run ends here: a run of more epochs goes
        on as if it had always had them. OutOfPatience where it is one too many without a better one.
        """
        found = float(rank1), self.last_mAP
        if best := self.best is None or found > self.best:
            self.best = found
        self.patience.count(best)
        state = self.checkpoint_state(epoch, rank1)
        if self.processes.is_main:
            self._write_evaluated(state, epoch, save_dir, best)
        if self.patience.is_over and epoch + 1 < getattr(self, "max_epoch", 0):
            raise OutOfPatience(f"=> Training ends after epoch {epoch + 1}: {self.patience}; the best is {BEST}")

    def _write_evaluated(self, state: dict[str, Any], epoch: int, save_dir: str, best: bool) -> None:
        path = Path(save_dir) / FOLDER / f"model.pth.tar-{epoch + 1}"
        training = ("optimizer", "scheduler", "scaler", "progress")
        write_checkpoint({name: part for name, part in state.items() if name not in training}, path)
        print(f'Checkpoint saved to "{path}"')
        try:
            if best:
                put_copy(path, path.with_name(BEST))
            if epoch + 1 < getattr(self, "max_epoch", 0):
                write_checkpoint(state, path.with_name(LAST))
            keep_newest(path.parent, self.training.keep_epochs)
        except OSError as error:
            raise DPMError(f"'{path.parent}' cannot be written: {error}; its checkpoints are intact") from error

    def _save_last(self, epoch: int, when: str) -> None:
        """Write ``last.pth.tar`` after epoch index ``epoch`` and what is done of the next one."""
        check_weights(self.model, when)
        state = self.checkpoint_state(epoch)
        if self.processes.is_main:
            write_last(state, Path(self.save_dir) / FOLDER / LAST, self.training.keep_checkpoints)

    def checkpoint_state(self, epoch: int, rank1: float | None = None) -> dict[str, Any]:
        """A checkpoint's content after epoch index ``epoch`` and an evaluation, or none; every process calls this."""
        state: dict[str, Any] = {"state_dict": self.model.state_dict(), "epoch": epoch + 1}
        state |= {**(self.training.record or {}), "cameras": dict(self.trained_cameras)}
        if rank1 is not None:
            state["rank1"] = float(rank1)  # a numpy scalar would be unreadable under weights_only=True
        scaler = self.scaler if self.scaler.is_enabled() else None
        for name, part in (("optimizer", self.optimizer), ("scheduler", self.scheduler), ("scaler", scaler)):
            if part is not None:
                state[name] = part.state_dict()
        best_rank1, best_mAP = self.best or (None, None)
        state["progress"] = {
            "iteration": self._loader().done,
            "evaluated": rank1 is not None,
            "best_rank1": best_rank1,
            "best_mAP": best_mAP,
            "waited": self.patience.waited,
            "skipped": self.skipped_iterations,
            "skipped_in_a_row": self.skipped_in_a_row,
            "processes": as_tensors(self.processes.gather(self._loader().state())),
        }
        return state
