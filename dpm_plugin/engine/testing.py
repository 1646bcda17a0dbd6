"""What every engine of this package adds to torchreid's evaluation: four rows and results.json."""

import os

import torch

from dpm_plugin.data.skipping import describe_skipped, merge_skipped
from dpm_plugin.distributed.processes import ALONE
from dpm_plugin.engine.training import TrainingMixin
from dpm_plugin.evaluation.gathering import gather_features
from dpm_plugin.evaluation.protocol import Features, evaluate, format_headline, format_table
from dpm_plugin.evaluation.results import library_versions, write_results
from dpm_plugin.evaluation.visrank import visualize_ranks
from dpm_plugin.torchreid_host import ImageSoftmaxEngine, ImageTripletEngine
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.runtime import autocast
from dpm_plugin.utils.timing import format_phases, measure

TRANSFER_EVERY = 50  # batches: features move to the CPU together, because a transfer waits for the device


class EvaluationMixin:
    """Mixed into a torchreid engine, before it in the bases.

    Attributes an engine sets (defaults in brackets):
        feature: space of the headline row, "after" or "before" the neck ["after"].
        mask: whether the headline row applies the query's mask ["True"].
        cameras: "auto", each target's own cameras where it is a training source and the
            neutral camera elsewhere; "ids", the data set's camera numbers as they are;
            "none", always neutral; or (query index, gallery index) ["auto"].
        amp: "off", "float16" or "bfloat16" ["off"].
        run_info: dict written to the ``run`` section of results.json [{}].
        processes: :class:`~dpm_plugin.distributed.processes.Processes` that share the test batches out; rank 0 alone
            writes [``ALONE``].
        skipped_iterations: of the training before, for results.json [0].
    """

    feature = "after"
    mask = True
    cameras = "auto"
    amp = "off"
    run_info = {}
    processes = ALONE
    run_phases = {}
    skipped_iterations = 0

    @torch.no_grad()
    def _evaluate(
        self,
        dataset_name="",
        query_loader=None,
        gallery_loader=None,
        dist_metric="euclidean",
        normalize_feature=False,
        visrank=False,
        visrank_topk=10,
        save_dir="",
        use_metric_cuhk03=False,
        ranks=(1, 5, 10, 20),
        rerank=False,
    ):
        phases = {}
        sides = {}
        for position, (side, loader) in enumerate((("query", query_loader), ("gallery", gallery_loader))):
            with measure(phases, f"extract_{side}", self._device):
                sides[side] = self._extract(loader, dataset_name, position, side)
        skipped = getattr(self.datamanager, "skipped", None)  # of data.corrupt skip
        counts = None if skipped is None else self.processes.gather(skipped)
        if not self.processes.is_main:
            return self.processes.broadcast(None)  # what rank 0 finds below
        result = evaluate(
            sides["query"],
            sides["gallery"],
            ranks=ranks,
            feature=self.feature,
            mask=self.mask,
            dist_metric=dist_metric,
            normalize_feature=normalize_feature,
            use_metric_cuhk03=use_metric_cuhk03,
            rerank=rerank,
            keep_distmat=visrank,
        )
        result.phases = {**self.run_phases, **phases, **result.phases}
        print(format_headline(result))
        print(format_table(result))
        print(format_phases(result.phases))
        trained = self.epoch + 1 if getattr(self, "_in_training", False) else None
        path = os.path.join(save_dir, "results.json")
        run = {
            **self.run_info,
            "processes": self.processes.size,
            "skipped_iterations": self.skipped_iterations,
            "versions": library_versions(),
        }
        if counts is not None:
            run["skipped_images"] = merge_skipped(counts)
            if run["skipped_images"]["count"]:
                print(f"=> {describe_skipped(run['skipped_images'])}")
        write_results(path, dataset_name, result, epoch=trained, run=run)
        if visrank:
            visualize_ranks(
                result.distmat,
                *self.datamanager.fetch_test_loaders(dataset_name),
                os.path.join(save_dir, f"visrank_{dataset_name}"),
                width=self.datamanager.width,
                height=self.datamanager.height,
                topk=visrank_topk,
            )
        return self.processes.broadcast(lambda: (result.rank1, result.mAP))

    @property
    def _device(self):
        return torch.device("cuda" if self.use_gpu else "cpu")

    def _extract(self, loader, dataset_name, position, side):
        """Features of one loader, ``position`` 0 the query's, 1 the gallery's; None on ranks but 0."""
        columns = {"embedding": [], "cls": [], "mask": []}
        waiting = []  # batches whose features are still on the device
        pids, camids, paths = [], [], []
        with torch.inference_mode():
            for done, data in enumerate(loader, start=1):
                waiting.append(self._embed(data, dataset_name, position))
                pids += data["pid"].tolist()
                camids += data["camid"].tolist()
                paths += data["impath"]
                if done % TRANSFER_EVERY == 0 or done == len(loader):
                    for name in waiting[0]:
                        columns[name].append(torch.cat([batch[name].float() for batch in waiting]).cpu())
                    waiting.clear()
                    print(f"   {side} features: batch {done}/{len(loader)}", flush=True)
        features = None
        if pids:
            # Outside of inference mode, so that these are ordinary tensors.
            tensors = {name: torch.cat(rows) for name, rows in columns.items() if rows}
            features = Features(pids=pids, camids=camids, paths=paths, **tensors)
        if self.processes.size > 1:
            features = gather_features(features, loader.batch_sampler, self.processes)
        if features is None and self.processes.is_main:
            raise DPMError(f"the {side} set of '{dataset_name}' is empty")
        return features

    def _embed(self, data, dataset_name, position):
        """Name -> (B, D) for one batch: all spaces of a plugin model, the one output of a stock model."""
        images = data["img"].to(self._device, non_blocking=True)
        with autocast(self._device, self.amp):
            if not hasattr(self.model, "embed"):
                return {"embedding": self.extract_features(images)}
            camids = data["camid"].to(self._device, non_blocking=True)
            camids = self._camera_indices(camids, dataset_name, position)
            output = self.model.embed(images, camids, need_heads=False)
        names = ("embedding", "cls") + (("mask",) if output.mask is not None else ())
        return {name: getattr(output, name) for name in names}

    def _camera_indices(self, camids, dataset_name, position):
        """Camera embedding indices of a test batch, (B,), or None for the neutral camera."""
        if self.cameras == "none":
            return None
        if self.cameras == "ids":
            return camids
        if self.cameras == "auto":
            offset = camera_offset(self.datamanager, dataset_name)
            return None if offset is None else camids + offset
        return torch.full_like(camids, self.cameras[position])


def camera_offset(datamanager, name):
    """First camera index of data set ``name`` in training; None where it was not trained on.

    torchreid numbers the cameras of later sources on from those of earlier ones. Its own data
    manager says nothing about that, so there only the first source is known.
    """
    if hasattr(datamanager, "camera_offset"):
        return datamanager.camera_offset(name)
    return 0 if name == datamanager.sources[0] else None


def check_cameras(cameras):
    """Return ``cameras`` if it is a choice that EvaluationMixin documents.

    Raises:
        DPMError: it is not.
    """
    if cameras in ("auto", "ids", "none"):
        return cameras
    if isinstance(cameras, (tuple, list)) and len(cameras) == 2 and all(isinstance(c, int) for c in cameras):
        return tuple(cameras)
    raise DPMError(
        f"test.cameras {cameras!r} is unknown; choose 'auto', 'ids', 'none' or a pair like [0, 2] for query and gallery"
    )


class SoftmaxEngine(TrainingMixin, EvaluationMixin, ImageSoftmaxEngine):
    """torchreid's ``ImageSoftmaxEngine`` with this package's training and evaluation."""


class TripletEngine(TrainingMixin, EvaluationMixin, ImageTripletEngine):
    """torchreid's ``ImageTripletEngine`` with this package's training and evaluation."""
