"""From test images to retrieval features: the camera an image is taken for, one batch, a whole set, all processes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dpm_plugin.data.manager import CameraRows
from dpm_plugin.data.sharing import EveryNthBatch
from dpm_plugin.distributed.processes import ALONE, Processes
from dpm_plugin.method.model import DPM
from dpm_plugin.torchreid_host import ImageDataManager
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.runtime import autocast

SIDES = ("query", "gallery")
TRANSFER_EVERY = 50  # batches: features move to the CPU together, because a transfer waits for the device


@dataclass
class Features:
    """What a model says about n images.

    Attributes:
        embedding: (n, D) float tensor after the neck; for a stock torchreid model its only output.
        pids, camids: n identities and cameras.
        cls, mask: (n, D) float tensors, the feature before the neck and the mask; None where the model has none.
        paths: n file names for error messages; none where they are not known.
    """

    embedding: Tensor
    pids: np.ndarray | Sequence[int]
    camids: np.ndarray | Sequence[int]
    cls: Tensor | None = None
    mask: Tensor | None = None
    paths: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.pids, self.camids = np.asarray(self.pids), np.asarray(self.camids)

    def __len__(self) -> int:
        return len(self.embedding)

    def tensors(self) -> dict[str, Tensor]:
        """Field name -> (n, D), of those that the model has."""
        named = {"cls": self.cls, "embedding": self.embedding, "mask": self.mask}
        return {name: value for name, value in named.items() if value is not None}


def check_cameras(choice: str | Sequence[int]) -> None:
    """Raise DPMError where :func:`camera_choice` does not know ``choice``."""
    pair = isinstance(choice, (tuple, list)) and len(choice) == 2 and all(isinstance(index, int) for index in choice)
    if not pair and choice not in ("auto", "ids", "none"):
        choices = "'auto', 'ids', 'none' or a pair like [0, 2] for query and gallery"
        raise DPMError(f"test.cameras {choice!r} is unknown; choose {choices}")


def camera_choice(
    choice: str | Sequence[int], side: str, trained: Mapping[str, CameraRows], dataset: str
) -> Callable[[Tensor], Tensor | None]:
    """The function from camera ids of test images, (B,), to rows of the camera embedding; None is the neutral camera.

    Args:
        choice: "auto", the data set's own cameras where the model was trained with them, the neutral camera elsewhere;
            "ids", the data set's camera ids as they are; "none", always neutral; or (query index, gallery index).
        side: "query" or "gallery".
        trained, dataset: see :func:`trained_cameras`, and the test set's :func:`camera_key`; for "auto".
    """
    if choice == "ids":
        return lambda camids: camids
    if not isinstance(choice, str):
        index = choice[SIDES.index(side)]
        return lambda camids: torch.full_like(camids, index)
    rows = None if choice == "none" else trained.get(dataset)
    if rows is None:
        return lambda camids: None
    if isinstance(rows, int):
        return lambda camids: camids + rows
    return lambda camids: camids.new_tensor([rows.get(camid, -1) for camid in camids.tolist()])


def trained_cameras(datamanager: ImageDataManager) -> dict[str, CameraRows]:
    """Training data set, by its :func:`camera_key` -> from its camera ids to rows of the camera embedding."""
    if not hasattr(datamanager, "camera_rows"):  # torchreid's own manager numbers later sources' cameras on
        return {datamanager.sources[0]: 0}
    found = {camera_key(datamanager, name): datamanager.camera_rows(name) for name in datamanager.sources}
    return {name: rows for name, rows in found.items() if rows is not None}


def camera_key(datamanager: ImageDataManager, dataset: str) -> str:
    """What the cameras of ``dataset`` are remembered by: its name, unless that is a path, which may be moved."""
    return datamanager.camera_key(dataset) if hasattr(datamanager, "camera_key") else dataset


def embed_batch(
    model: nn.Module, images: Tensor, camids: Tensor | None = None, *, device: torch.device, amp: str = "off"
) -> dict[str, Tensor]:
    """Name -> (B, D) on ``device``: "embedding", "cls", "mask", as far as the model (in eval mode) has them.

    Args:
        images, camids: (B, 3, H, W), and (B,) rows of the camera embedding or None for the neutral camera.
        amp: "off", "float16" or "bfloat16"; the features may be in that format. Default: "off".
    """
    images = images.to(device, non_blocking=True)
    camids = None if camids is None else camids.to(device, non_blocking=True)
    with autocast(device, amp):
        if not isinstance(model, DPM):
            return {"embedding": model(images)}
        output = model.embed(images, camids)
    masks = {} if output.mask is None else {"mask": output.mask}
    return {"embedding": output.embedding, "cls": output.cls, **masks}


def extract_features(
    model: nn.Module,
    loader: DataLoader,
    cameras: Callable[[Tensor], Tensor | None] = lambda camids: None,
    *,
    device: torch.device,
    amp: str = "off",
    name: str | None = None,
    processes: Processes = ALONE,
) -> Features:
    """Features of every image of ``loader``, float32 on the CPU, in the loader's order.

    Args:
        model: in eval mode, one of the plugin's or torchreid's.
        loader: batches of "img", "pid", "camid", "impath"; each of several processes has its share of them
            (:class:`~dpm_plugin.data.sharing.EveryNthBatch`).
        cameras, amp: see :func:`camera_choice` and :func:`embed_batch`. Default: the neutral camera, "off".
        name: such as "query set of 'market1501'", for progress and errors. Default: None, no progress is printed.
        processes: those that share the set; rank 0 returns the whole, the others no image. Default: one.

    Raises:
        DPMError: the set is empty, or another process ended.
    """
    waiting, moved = [], []  # features of batches, still on the device, and not
    pids, camids, paths = [], [], []
    with torch.inference_mode():
        for done, data in enumerate(loader, start=1):
            waiting.append(embed_batch(model, data["img"], cameras(data["camid"]), device=device, amp=amp))
            pids += data["pid"].tolist()
            camids += data["camid"].tolist()
            paths += data["impath"]
            if done % TRANSFER_EVERY == 0 or done == len(loader):
                moved.append({key: rows.float().cpu() for key, rows in _joined(waiting).items()})
                waiting.clear()
                if name is not None:
                    print(f"   {name}: batch {done}/{len(loader)}", flush=True)
    # Joined outside of inference mode, so that these are ordinary tensors.
    features = Features(pids=pids, camids=camids, paths=paths, **_joined(moved)) if pids else None
    if processes.size > 1:
        assert isinstance(loader.batch_sampler, EveryNthBatch)  # as the data manager made it
        features = gather_features(features, loader.batch_sampler, processes)
    if features is None and processes.is_main:
        raise DPMError(f"the {name or 'set of images'} is empty")
    return features or Features(torch.empty(0, 0), [], [])


def _joined(batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def gather_features(features: Features | None, batches: EveryNthBatch, processes: Processes) -> Features | None:
    """The features of the whole set on rank 0, each image once and in the set's order; None elsewhere.

    Args:
        features: of this process's images, in the order it read them, or None where it had none.
        batches: which images these are. Rank 0 has the first batch, so it has none only where the set is empty.
    """
    labels = processes.gather([] if features is None else list(zip(features.pids, features.camids, features.paths)))
    if features is None:
        return None
    tensors = features.tensors()
    if labels is None:  # not rank 0
        for rows in tensors.values():
            processes.send_to_main(rows)
        return None
    positions = [batches.positions(rank) for rank in range(processes.size)]
    label_of = {place: label for share, places in zip(labels, positions) for label, place in zip(share, places)}
    pids, camids, paths = zip(*(label_of[place] for place in range(batches.count)))
    whole = {name: own.new_empty(batches.count, *own.shape[1:]) for name, own in tensors.items()}  # (n, D) each
    for rank, places in enumerate(positions):  # one after another, so that little is held twice
        for name, own in tensors.items() if places else ():
            rows = own if rank == 0 else processes.receive(own.new_empty(len(places), *own.shape[1:]), rank)
            whole[name][torch.tensor(places)] = rows
    return Features(pids=pids, camids=camids, paths=paths, **whole)
