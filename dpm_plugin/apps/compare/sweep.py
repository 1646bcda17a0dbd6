"""Train every run that is missing, several at a time, losing nothing when stopped or killed."""

import contextlib
import io
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from dpm_plugin import build
from dpm_plugin.apps.compare.run import Run
from dpm_plugin.config import flat
from dpm_plugin.config.arguments import synthetic_spec
from dpm_plugin.data.synthetic.generate import generate
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.files import locked
from dpm_plugin.utils.place import environment

LOG = "sweep.log"
POLL = 0.1  # seconds between looks at the running processes
PATIENCE = 10  # seconds a stopped run has to end before it is killed


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_all(
    runs: Iterable[Run], base: str | Path, *, root: str | Path | None = None, jobs: int = 1, threads: int | None = None
) -> dict[Run, dict]:
    """Train the runs that have no finished results below ``base``; read the results of all.

    A run's output goes to ``sweep.log`` in its folder. An unfinished run goes on from its newest checkpoint that can
    be read, else it starts anew. A failed run does not stop the others. Ctrl-C,
    SIGTERM and SIGHUP stop the running ones. After a SIGKILL the runs in progress end by themselves: each holds a
    lock on its folder, and the next sweep waits for it instead of training the same run twice.

    Args:
        runs: equal ones are trained once.
        base: folder of the runs' folders.
        root: data root; None keeps that of the config files.
        jobs: runs at a time. Default: 1.
        threads: OMP_NUM_THREADS of each. Default: cores // jobs.

    Returns:
        the content of each run's ``results.json``.

    Raises:
        DPMError: settings are wrong, data is missing, or runs failed (raised after the others are done).
    """
    looked = {run: run.results(base) for run in runs}
    results = {run: found for run, found in looked.items() if found is not None}
    missing = [run for run in looked if run not in results]
    if missing:
        print(f"{len(looked)} runs: {len(results)} finished, {len(missing)} to train in '{base}'")
        _prepare_data(missing, root)
        sweep = _Sweep(base, root, threads or max(1, cores() // jobs), len(missing))
        with stop_on_signal():
            sweep.train(missing, jobs)
        results.update(sweep.results)
        sweep.raise_failures()
    return {run: results[run] for run in looked}


def _prepare_data(runs: list[Run], root: str | Path | None) -> None:
    """Draw or look up every data set before the first run, so that a missing one is one early error."""
    seen = set()
    for run in runs:
        config = run.config(root)
        build.check_names(config)
        sections = (config.data, config.synthetic, config.sampler, {"batch": config.train.batch_size})
        key = json.dumps([list(flat(section)) for section in sections])
        if key not in seen:
            seen.add(key)
            if "synthetic_occluded" in config.data.sources + config.data.targets:
                generate(synthetic_spec(config), config.data.root)
            with contextlib.redirect_stdout(io.StringIO()):  # torchreid's tables, once more in every log
                build.build_datamanager(config)


@contextlib.contextmanager
def stop_on_signal() -> Iterator[None]:
    """Within the block SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does (in the main thread only).

    SIGHUP, a lost connection, does not where nohup has it ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(signum, frame):
        raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    previous = {each: signal.getsignal(each) for each in numbers if signal.getsignal(each) != signal.SIG_IGN}
    try:
        for number in previous:
            signal.signal(number, interrupt)
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before if before is not None else signal.SIG_DFL)


class _Sweep:
    """The processes of one ``run_all``."""

    def __init__(self, base: str | Path, root: str | Path | None, threads: int, total: int):
        self.base, self.root, self.threads, self.total = base, root, threads, total
        self.began = time.monotonic()
        self.running: dict[Run, tuple[subprocess.Popen, float]] = {}
        self.results: dict[Run, dict] = {}
        self.failures: list[tuple[Run, int]] = []

    def train(self, missing: list[Run], jobs: int) -> None:
        queue, announced = list(missing), set()
        try:
            while queue or self.running:
                for run in list(queue):
                    if len(self.running) == jobs:
                        break
                    if self._start(run):
                        queue.remove(run)
                    elif run not in announced:
                        announced.add(run)
                        print(f"waiting for {run.name}: another process is training it")
                self._collect()
                time.sleep(POLL)
        finally:
            self._stop()

    def raise_failures(self) -> None:
        """One DPMError for all failed runs, after their logs' tails."""
        if not self.failures:
            return
        told = []
        for run, code in self.failures:
            path = run.folder(self.base) / LOG
            lines = _tail(path)
            print(f"--- {run.name}: end of '{path}' ---", *lines, sep="\n")
            reason = lines[-1].removeprefix("error: ") if lines else "no output"
            told.append(f"{run.name} (exit code {code}): {reason[:200]} [log: {path}]")
        more = f"; and {len(told) - 3} more, see above" if len(told) > 3 else ""
        raise DPMError(
            f"{len(told)} of {self.total} runs failed; what is finished is kept: " + "; ".join(told[:3]) + more
        )

    def _start(self, run: Run) -> bool:
        """Start ``run``; False where another process holds its folder."""
        folder = run.folder(self.base)
        with contextlib.ExitStack() as held:
            try:
                lock = held.enter_context(locked(folder / ".lock", wait=False))
            except BlockingIOError:  # another process runs it
                return False
            except OSError as error:
                raise DPMError(
                    f"'{folder}' cannot be written ({error.strerror}); choose another folder by --out"
                ) from error
            found = run.results(self.base)
            if found is not None:  # trained by another process since this sweep looked
                self._finish(run, found, "trained elsewhere")
                return True
            resumed = run.resumable(self.base)
            (folder / "sweep.json").write_text(json.dumps({"threads": self.threads}) + "\n", encoding="utf-8")
            command = run.command(self.base, self.root, resumed)
            with open(folder / LOG, "a" if resumed else "w", encoding="utf-8") as log:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment(OMP_NUM_THREADS=str(self.threads)),
                    start_new_session=True,
                    # The child keeps the lock as long as it lives, whatever becomes of this process.
                    pass_fds=(lock.fileno(),) if lock else (),
                )
        self.running[run] = process, time.monotonic()
        return True

    def _collect(self) -> None:
        for run, (process, start) in list(self.running.items()):
            code = process.poll()
            if code is None:
                continue
            del self.running[run]
            found = run.results(self.base) if code == 0 else None
            if found is not None:
                self._finish(run, found, f"{time.monotonic() - start:.0f} s")
            else:
                self.failures.append((run, code))
                print(f"{self._count()} {run.name} FAILED (exit code {code})")

    def _finish(self, run: Run, found: dict, how: str) -> None:
        self.results[run] = found
        done = len(self.results) + len(self.failures)
        rate = (time.monotonic() - self.began) / done
        left = f"about {_duration(rate * (self.total - done))} left" if done < self.total else "all done"
        print(f"{self._count()} {run.name}: {_headlines(found)}; {how}; {left}")

    def _count(self) -> str:
        return f"[{len(self.results) + len(self.failures)}/{self.total}]"

    def _stop(self) -> None:
        for process, _ in self.running.values():
            _signal_group(process, signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE
        for process, _ in self.running.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal_group(process, getattr(signal, "SIGKILL", signal.SIGTERM))
                process.wait()


def _signal_group(process: subprocess.Popen, number: int) -> None:
    """Signal a run and its data loading processes, which share its session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, number)
        else:
            process.terminate()


def _headlines(results: dict) -> str:
    found = {name: entry["headline"] for name, entry in results["datasets"].items()}
    return ", ".join(f"{name} rank-1 {line['rank1']:.1%}, mAP {line['mAP']:.1%}" for name, line in found.items())


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _tail(path: Path, count: int = 15) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-count:]
