"""What every engine of this package adds to torchreid's evaluation: its rows, its masks and results.json."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from dpm_plugin.data.manager import CameraRows
from dpm_plugin.data.skipping import describe_skipped, merge_skipped
from dpm_plugin.distributed.processes import ALONE, Processes
from dpm_plugin.evaluation.extract import (
    SIDES,
    Features,
    camera_choice,
    camera_key,
    check_cameras,
    extract_features,
    trained_cameras,
)
from dpm_plugin.evaluation.mask_report import MaskReport, report_masks
from dpm_plugin.evaluation.protocol import evaluate, format_headline, format_table, format_targets
from dpm_plugin.evaluation.results import library_versions, write_results
from dpm_plugin.evaluation.visrank import visualize_ranks
from dpm_plugin.method.part_features import part_weights
from dpm_plugin.torchreid_host import Engine
from dpm_plugin.utils.timing import Phases, format_phases, measure


@dataclass(frozen=True)
class EvaluationOptions:
    """What an engine reports of its evaluations.

    Attributes:
        feature: space of the headline row, "after" or "before" the neck. Default: "after".
        mask: whether the headline row applies the query's mask. Default: True.
        cameras: see :func:`~dpm_plugin.evaluation.extract.camera_choice`. Default: "auto".
        trained_cameras: what "auto" goes by, where the model was not trained by this engine. Default: None.
        run_info: what the ``run`` section of results.json says of the run. Default: nothing.
    """

    feature: str = "after"
    mask: bool = True
    cameras: str | tuple[int, int] = "auto"
    trained_cameras: Mapping[str, CameraRows] | None = None
    run_info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_cameras(self.cameras)


class EvaluationMixin(Engine):
    """Stands before one of torchreid's engines in the bases, or alone; takes that engine's arguments and these.

    Args:
        evaluation: Default: ``EvaluationOptions()``.
        amp: "off", "float16" or "bfloat16". Default: "off".
        processes: those that share the test batches out; rank 0 alone writes. Default: one.
    """

    gives_cameras = False  # whether training tells the model the camera of an image

    def __init__(
        self,
        *torchreid: Any,
        evaluation: EvaluationOptions | None = None,
        amp: str = "off",
        processes: Processes = ALONE,
        **torchreid_options: Any,
    ) -> None:
        super().__init__(*torchreid, **torchreid_options)
        self.evaluation, self.amp, self.processes = evaluation or EvaluationOptions(), amp, processes
        self.run_phases: Phases = {}  # those before an evaluation
        self.in_training = False  # whether an evaluation is one of an epoch; this and the next for results.json
        self.skipped_iterations = 0
        self.last_mAP = 0.0  # of the last evaluation
        self._found: dict[str, tuple[float, float]] = {}  # rank-1 and mAP of each target of an evaluation
        of_data = trained_cameras(self.datamanager) if self.gives_cameras else {}
        given = self.evaluation.trained_cameras
        self.trained_cameras: Mapping[str, CameraRows] = of_data if given is None else given

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return torch.device("cuda" if self.use_gpu else "cpu")

    def test(self, *positional: Any, **options: Any) -> float:
        """torchreid's ``test``; of several targets it prints a table at the end."""
        self._found = {}
        rank1 = super().test(*positional, **options)
        if len(self._found) > 1 and self.processes.is_main:
            print(format_targets(", ".join(self.datamanager.sources), self._found))
        return rank1

    @torch.no_grad()
    def _evaluate(
        self, dataset_name: str, query_loader: DataLoader, gallery_loader: DataLoader, **options: Any
    ) -> tuple[float, float]:
        """Rank-1 and mAP of the headline row; torchreid's ``test`` calls it for each target data set."""
        phases: Phases = {}
        sides = []
        for side, loader in zip(SIDES, (query_loader, gallery_loader)):
            key = camera_key(self.datamanager, dataset_name)
            cameras = camera_choice(self.evaluation.cameras, side, self.trained_cameras, key)
            extract = partial(extract_features, device=self.device, amp=self.amp, processes=self.processes)
            with measure(phases, f"extract_{side}", self.device):
                sides.append(extract(self.model, loader, cameras, name=f"{side} set of '{dataset_name}'"))
        skipped = getattr(self.datamanager, "skipped", None)  # of data.corrupt skip
        skipped = None if skipped is None else self.processes.gather(skipped)
        visibility = getattr(query_loader.dataset, "visibility", {})
        report = partial(self._report, dataset_name, sides, visibility, phases, skipped, **options)
        found = self.processes.broadcast(report)
        self.last_mAP = float(found[1])
        self._found[dataset_name] = found
        return found

    def _report(
        self,
        dataset_name: str,
        sides: list[Features],
        visibility: Mapping[str, Any],
        phases: Phases,
        skipped: list | None,
        visrank: bool = False,
        visrank_topk: int = 10,
        save_dir: str = "",
        **options: Any,
    ) -> tuple[float, float]:
        """On rank 0: every row, on the screen and in results.json; ``options`` are those of ``evaluate``."""
        feature, mask = self.evaluation.feature, self.evaluation.mask
        result = evaluate(*sides, feature=feature, mask=mask, keep_distmat=visrank, **options)
        result.phases = {**self.run_phases, **phases, **result.phases}
        result.masks = self._masks(sides[0], sides[1], visibility)
        masks = [] if result.masks is None else [str(result.masks)]
        print(format_headline(result), format_table(result), *masks, format_phases(result.phases), sep="\n")
        run = {
            **self.evaluation.run_info,
            "processes": self.processes.size,
            "skipped_iterations": self.skipped_iterations,
            "versions": library_versions(),
        }
        if skipped is not None:
            run["skipped_images"] = merge_skipped(skipped)
            if run["skipped_images"]["count"]:
                print(f"=> {describe_skipped(run['skipped_images'])}")
        epoch = self.epoch + 1 if self.in_training else None
        write_results(Path(save_dir) / "results.json", dataset_name, result, epoch=epoch, run=run)
        if result.distmat is not None:
            query, gallery = self.datamanager.fetch_test_loaders(dataset_name)
            size = {"width": self.datamanager.width, "height": self.datamanager.height}
            name = re.sub(r"[/\\:]+", "_", dataset_name)  # of a path
            folder = Path(save_dir) / f"visrank_{name}"
            visualize_ranks(result.distmat, query, gallery, folder, topk=visrank_topk, **size)
        return result.rank1, result.mAP

    def _masks(self, query: Features, gallery: Features, visibility: Mapping[str, Any]) -> MaskReport | None:
        """What the queries' masks are like; None without. ``visibility``: records of image paths, as far as known."""
        if query.mask is None or gallery.mask is None:
            return None
        own, usual = (self.model.part_masks(side.mask) for side in (query, gallery))
        weights = None if own is None else part_weights(own, usual)
        records = [visibility[path] for path in query.paths if path in visibility]
        return report_masks(query.mask, weights, records if len(records) == len(query) else [])
