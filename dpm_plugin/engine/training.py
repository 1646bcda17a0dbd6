"""What every engine of this package adds to torchreid's training: sound checkpoints, exact resume, orderly stops."""

from contextlib import nullcontext
from pathlib import Path

import torch

from dpm_plugin.distributed.processes import ALONE
from dpm_plugin.engine.non_finite import Snapshot, describe, gradient_norm, not_finite
from dpm_plugin.engine.random_state import as_tensors
from dpm_plugin.engine.resumable_loader import ResumableLoader
from dpm_plugin.engine.run_checkpoints import BEST, LAST, write_last
from dpm_plugin.engine.stop_signals import Stopped, StopSignals
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.files import put_copy, remove_leftovers
from dpm_plugin.utils.timing import measure
from dpm_plugin.weights.files import restore, write_checkpoint

TEST_OPTIONS = ("dist_metric", "normalize_feature", "use_metric_cuhk03", "ranks")  # of run(), for test()


class TrainingMixin:
    """Mixed into a torchreid engine, before :class:`~dpm_plugin.engine.testing.EvaluationMixin` in the bases.

    A checkpoint is torchreid's (``state_dict``, ``epoch``, ``rank1``, ``optimizer``, ``scheduler``) with
    ``progress``: how many batches of the running epoch are done, the random generators now and when that epoch began,
    of every process and its loader's processes, and the counters below.

    Attributes an engine sets (defaults in brackets):
        checkpoint_every: iterations between checkpoints; 0 writes one at the end of each epoch only [0].
        keep_checkpoints: newest ones to keep, see :mod:`~dpm_plugin.engine.run_checkpoints` [3].
        non_finite: "stop" the run at a loss or gradient that is not finite, or "skip" the iteration: it is undone,
            which takes a second copy of weights and optimizer state, and counted ["stop"].
        non_finite_limit: iterations skipped in a row that stop the run all the same [10].
        position_seed: see :class:`~dpm_plugin.engine.resumable_loader.ResumableLoader` [None].
        processes: :class:`~dpm_plugin.distributed.processes.Processes` that train together; rank 0 alone writes
            [``ALONE``].
    """

    checkpoint_every = 0
    keep_checkpoints = 3
    non_finite = "stop"
    non_finite_limit = 10
    position_seed = None
    processes = ALONE
    best_rank1 = None
    skipped_iterations = 0
    _skipped_in_a_row = 0
    _stop = None  # StopSignals within run()
    _stop_of_all = None  # the signal that all processes stop for
    _resumed = None  # (finished epochs, progress) of the checkpoint
    _batches = None
    _in_training = False

    def run(self, save_dir="log", max_epoch=0, start_epoch=0, test_only=False, **options):
        """torchreid's ``run``; a run that was resumed after its last epoch is evaluated, not trained again.

        SIGINT and SIGTERM end training after the iteration, with a checkpoint.

        Raises:
            Stopped: one of them came.
        """
        resumed, self._resumed = self._resumed, None
        resumed = resumed if resumed is not None and resumed[0] == start_epoch else None
        last_epoch_ended = resumed is not None and max_epoch == start_epoch and not resumed[1]["own"]["iteration"]
        if not test_only and 0 < max_epoch <= start_epoch and not last_epoch_ended:
            print(f"=> All {max_epoch} epochs are trained (start_epoch {start_epoch}); evaluating only")
            test_only = True
        self.save_dir = save_dir
        self.run_phases = {}
        self._in_training = not test_only
        if not self.processes.is_main:
            self.writer = _NoWriter()
        with nullcontext() if test_only else StopSignals() as self._stop:
            if not test_only:
                self.max_epoch = max_epoch
                if self.processes.is_main:
                    for folder in (save_dir, *(Path(save_dir) / name for name in self.get_model_names())):
                        remove_leftovers(folder)
                if resumed is not None:
                    self._go_on(*resumed, options)
            try:
                super().run(
                    save_dir=save_dir, max_epoch=max_epoch, start_epoch=start_epoch, test_only=test_only, **options
                )
            except RuntimeError as error:
                # A signal to the whole group ends the test loaders' processes too, and torch notices.
                if self._asked and "DataLoader worker" in str(error):
                    raise Stopped(self._asked) from error
                raise

    def resume(self, path):
        """Take up a checkpoint; ``run(start_epoch=...)`` then goes on exactly where it was written.

        Returns:
            Number of finished epochs, torchreid's ``start_epoch``.

        Raises:
            DPMError: unreadable, or of another model or another number of batches an epoch; names what differs.
        """
        content = restore(path, self.model, self.optimizer, self.scheduler, getattr(self, "scaler", None))
        epoch, progress = content["epoch"], content.get("progress")
        if progress is None:
            print(f"=> Resumed from '{path}' after epoch {epoch}")
            return epoch
        try:
            self.best_rank1 = progress["best_rank1"]
            self.skipped_iterations, self._skipped_in_a_row = progress["skipped"], progress["skipped_in_a_row"]
            rank, states = self.processes.rank, progress["processes"]
            own = states[rank] if rank < len(states) else {**states[0], "start": None, "now": None, "workers": {}}
            self._resumed = epoch, {**progress, "own": own}
            within = f", iteration {own['iteration']} of {own['batches']}" if own["iteration"] else ""
        except (KeyError, IndexError, TypeError) as error:
            raise DPMError(
                f"the progress in '{path}' is damaged: it lacks {error}; resume from another checkpoint, "
                "or start from its weights by model.load_weights"
            ) from error
        print(f"=> Resumed from '{path}' after epoch {epoch}{within}")
        return epoch

    def _go_on(self, finished, progress, options):
        """Put the random generators back; make up for the evaluation that an interruption prevented."""
        self._loader().resume(progress["own"])
        self.epoch = finished - 1
        frequency = options.get("eval_freq", -1)
        due = (
            finished >= options.get("start_eval", 0)
            and frequency > 0
            and finished % frequency == 0
            and 0 < finished != self.max_epoch
        )
        if due and not progress["own"]["iteration"] and not progress["evaluated"]:
            chosen = {name: options[name] for name in TEST_OPTIONS if name in options}
            rank1 = self.test(save_dir=self.save_dir, **chosen)
            self.save_model(self.epoch, rank1, self.save_dir)

    @property
    def batch_idx(self):
        """Index of the running iteration in its epoch; torchreid's loop counts the batches it gets from 0."""
        return self._batch_idx

    @batch_idx.setter
    def batch_idx(self, value):
        self._batch_idx = value + (0 if self._batches is None else self._batches.first)

    def train(self, print_freq=10, fixbase_epoch=0, open_layers=None):
        """One epoch, timed, then ``save_dir/<model name>/last.pth.tar``."""
        loader, self.train_loader = self.train_loader, self._loader()
        self._batches.epoch, self._batches.after_batch = self.epoch, self._after_iteration
        self._batches.without_batch = self._stop_without_batch
        with nullcontext() if self._stop is None else self._stop.deferred():
            try:
                with measure(self.run_phases, "train", self._device):
                    super().train(print_freq=print_freq, fixbase_epoch=fixbase_epoch, open_layers=open_layers)
            finally:
                self.train_loader = loader
            self.after_epoch()
            self._batches.finish_epoch()
            self._save_last(self.epoch, f"after epoch {self.epoch + 1}")
        self._stop_if_asked(f"after epoch {self.epoch + 1}")

    def after_epoch(self):
        """Called between the end of an epoch and its checkpoint; for subclasses."""

    def forward_backward(self, data):
        """One iteration. Returns the numbers that torchreid prints and logs; none where it was skipped.

        Raises:
            DPMError: a loss or gradient is not finite, and ``non_finite`` is "stop" or the limit is reached.
        """
        before = Snapshot(self.model, self.optimizer) if self.non_finite == "skip" else None
        numbers = self.iterate(data)
        bad = not_finite(numbers)
        if bad is None:
            self._skipped_in_a_row = 0
            return {name: value for name, value in numbers.items() if not name.startswith("gradient")}
        where = f"non-finite {bad} in epoch {self.epoch + 1}, iteration {self.batch_idx + 1} of {self.num_batches}"
        advice = "lower train.lr or switch train.amp off"
        if before is None:
            raise DPMError(f"{where} ({describe(numbers)}); the checkpoint of the last good epoch is kept; {advice}")
        before.restore()
        self.skipped_iterations += 1
        self._skipped_in_a_row += 1
        print(f"=> {where} ({describe(numbers)}): skipped, {self.skipped_iterations} so far")
        if self._skipped_in_a_row >= self.non_finite_limit:
            raise DPMError(
                f"{where} ({describe(numbers)}), number {self._skipped_in_a_row} in a row "
                f"(train.non_finite_limit); {advice}"
            )
        return {}

    def iterate(self, data):
        """One iteration: all its numbers as floats, names of gradient norms begin with "gradient"."""
        numbers = super().forward_backward(data)
        norm = gradient_norm(self.model.parameters())
        return numbers if norm is None else {**numbers, "gradient": norm.item()}

    def save_model(self, epoch, rank1, save_dir, is_best=False):
        """Write ``save_dir/model/model.pth.tar-<epoch + 1>`` after an evaluation, which torchreid reads safely.

        It is ``best.pth.tar`` too where its rank-1 is the highest so far, and ``last.pth.tar`` unless the run ends
        here: a run of more epochs goes on as if it had always had them.
        """
        best = self.best_rank1 is None or float(rank1) > self.best_rank1
        self.best_rank1 = float(rank1) if best else self.best_rank1
        progress = self._progress(evaluated=True)
        for name in self.get_model_names() if self.processes.is_main else ():
            path = Path(save_dir) / name / f"model.pth.tar-{epoch + 1}"
            write_checkpoint({**self.checkpoint_state(name, epoch, rank1), "progress": progress}, path)
            print(f'Checkpoint saved to "{path}"')
            try:
                if best:
                    put_copy(path, path.with_name(BEST))
                if epoch + 1 < getattr(self, "max_epoch", 0):
                    put_copy(path, path.with_name(LAST))
            except OSError as error:
                raise DPMError(f"'{path.parent}' cannot be written: {error}; its checkpoints are intact") from error

    def checkpoint_state(self, name, epoch, rank1=None):
        """torchreid's checkpoint content, with plain numbers and without a scheduler that is None."""
        state = {"state_dict": self._models[name].state_dict(), "epoch": epoch + 1}
        if rank1 is not None:
            state["rank1"] = float(rank1)  # a numpy scalar would be unreadable under weights_only=True
        for key, part in (("optimizer", self._optims[name]), ("scheduler", self._scheds[name])):
            if part is not None:
                state[key] = part.state_dict()
        return state

    def _loader(self):
        inside = self.train_loader is self._batches  # within an epoch
        if self._batches is None or not inside and self._batches.loader is not self.train_loader:
            self._batches = ResumableLoader(self.train_loader, self.position_seed)
        return self._batches

    def _progress(self, evaluated=False):
        """The checkpoint's ``progress``; every process calls this, rank 0 has the result."""
        return {
            "iteration": self._loader().done,
            "evaluated": evaluated,
            "best_rank1": self.best_rank1,
            "skipped": self.skipped_iterations,
            "skipped_in_a_row": self._skipped_in_a_row,
            "processes": as_tensors(self.processes.gather(self._loader().state())),
        }

    def _save_last(self, epoch, when):
        """Write ``last.pth.tar`` after epoch index ``epoch`` and what is done of the next one."""
        self._check_weights(when)
        progress = self._progress()
        for name in self.get_model_names() if self.processes.is_main else ():
            state = {**self.checkpoint_state(name, epoch), "progress": progress}
            write_last(state, Path(self.save_dir) / name / LAST, self.keep_checkpoints)

    def _check_weights(self, when):
        norms = torch._foreach_norm([parameter.detach() for parameter in self.model.parameters()])
        if not bool(torch.isfinite(torch.stack(norms)).all()):
            raise DPMError(
                f"non-finite weights {when}; the checkpoint of the last good epoch is kept; "
                "lower train.lr or switch train.amp off"
            )

    def _after_iteration(self):
        done, total = self._batches.done, len(self._batches)
        if done == total:  # the epoch's end follows
            return
        when = f"in epoch {self.epoch + 1} after iteration {done} of {total}"
        due = self.checkpoint_every and done % self.checkpoint_every == 0
        if due or self._stop_signal():
            self._save_last(self.epoch - 1, when)
        self._stop_if_asked(when)

    @property
    def _asked(self):
        """The signal that this process got, or None."""
        return None if self._stop is None else self._stop.asked

    def _stop_signal(self):
        return self._asked if self.processes.size == 1 else self._stop_of_all

    def _stop_if_asked(self, when):
        signum = self._stop_signal()
        if signum:
            raise Stopped(signum, f"{Stopped(signum)} {when}; continue with train.resume auto")

    def _stop_without_batch(self):
        # A signal to the whole group ended the loader's processes before the batch that the loop waits for.
        if self._asked and self._batches.done and self.processes.size == 1:
            self._after_iteration()
        elif self._asked:
            raise Stopped(self._asked)


class _NoWriter:
    """Stands for TensorBoard's writer where nothing is written."""

    def add_scalar(self, *values):
        pass

    def close(self):
        pass
