"""What every engine of this package adds to torchreid's evaluation: five rows and results.json."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from dpm_plugin.data.skipping import describe_skipped, merge_skipped
from dpm_plugin.distributed.processes import ALONE, Processes
from dpm_plugin.evaluation.extract import camera_choice, check_cameras, extract_features
from dpm_plugin.evaluation.protocol import Result, evaluate, format_headline, format_table
from dpm_plugin.evaluation.results import library_versions, write_results
from dpm_plugin.evaluation.visrank import visualize_ranks
from dpm_plugin.utils.timing import format_phases, measure


@dataclass(frozen=True)
class EvaluationOptions:
    """What an engine reports of its evaluations.

    Attributes:
        feature: space of the headline row, "after" or "before" the neck. Default: "after".
        mask: whether the headline row applies the query's mask. Default: True.
        cameras: see :func:`~dpm_plugin.evaluation.extract.camera_choice`. Default: "auto".
        run_info: what the ``run`` section of results.json says of the run. Default: nothing.

    Raises:
        DPMError: no such choice of cameras.
    """

    feature: str = "after"
    mask: bool = True
    cameras: str | tuple[int, int] = "auto"
    run_info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_cameras(self.cameras)


class EvaluationMixin:
    """Stands before a torchreid engine in the bases; takes that engine's arguments and these.

    Args:
        evaluation: Default: ``EvaluationOptions()``.
        amp: "off", "float16" or "bfloat16", also of the evaluation. Default: "off".
        processes: those that share the test batches out; rank 0 alone writes. Default: one.

    Attributes:
        run_phases: seconds and memory of the phases before an evaluation, see :mod:`dpm_plugin.utils.timing`.
        in_training: whether the run trains, so that its evaluations are of an epoch.
        skipped_iterations: of the training so far, for results.json.
    """

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
        self.run_phases: dict[str, dict] = {}
        self.in_training = False
        self.skipped_iterations = 0

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return torch.device("cuda" if self.use_gpu else "cpu")

    @torch.no_grad()
    def _evaluate(
        self,
        dataset_name: str = "",
        query_loader: DataLoader | None = None,
        gallery_loader: DataLoader | None = None,
        dist_metric: str = "euclidean",
        normalize_feature: bool = False,
        visrank: bool = False,
        visrank_topk: int = 10,
        save_dir: str = "",
        use_metric_cuhk03: bool = False,
        ranks: tuple[int, ...] = (1, 5, 10, 20),
        rerank: bool = False,
    ) -> tuple[float, float]:
        """Called by torchreid's ``test`` for each target data set; returns rank-1 and mAP of the headline row."""
        phases: dict[str, dict] = {}
        sides = {}
        for side, loader in (("query", query_loader), ("gallery", gallery_loader)):
            with measure(phases, f"extract_{side}", self.device):
                sides[side] = extract_features(
                    self.model,
                    loader,
                    camera_choice(self.evaluation.cameras, side, self.datamanager, dataset_name),
                    device=self.device,
                    amp=self.amp,
                    name=f"{side} set of '{dataset_name}'",
                    processes=self.processes,
                )
        skipped = getattr(self.datamanager, "skipped", None)  # of data.corrupt skip
        counts = None if skipped is None else self.processes.gather(skipped)
        if not self.processes.is_main:
            return self.processes.broadcast(None)  # what rank 0 finds below
        result = evaluate(
            **sides,
            ranks=ranks,
            feature=self.evaluation.feature,
            mask=self.evaluation.mask,
            dist_metric=dist_metric,
            normalize_feature=normalize_feature,
            use_metric_cuhk03=use_metric_cuhk03,
            rerank=rerank,
            keep_distmat=visrank,
        )
        result.phases = {**self.run_phases, **phases, **result.phases}
        print(format_headline(result), format_table(result), format_phases(result.phases), sep="\n")
        self._write_results(dataset_name, result, Path(save_dir), None if counts is None else merge_skipped(counts))
        if visrank:
            visualize_ranks(
                result.distmat,
                *self.datamanager.fetch_test_loaders(dataset_name),
                Path(save_dir) / f"visrank_{dataset_name}",
                width=self.datamanager.width,
                height=self.datamanager.height,
                topk=visrank_topk,
            )
        return self.processes.broadcast(lambda: (result.rank1, result.mAP))

    def _write_results(self, dataset: str, result: Result, folder: Path, skipped: dict | None) -> None:
        run = {
            **self.evaluation.run_info,
            "processes": self.processes.size,
            "skipped_iterations": self.skipped_iterations,
            "versions": library_versions(),
        }
        if skipped is not None:
            run["skipped_images"] = skipped
            if skipped["count"]:
                print(f"=> {describe_skipped(skipped)}")
        epoch = self.epoch + 1 if self.in_training else None
        write_results(folder / "results.json", dataset, result, epoch=epoch, run=run)
