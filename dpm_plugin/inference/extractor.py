"""Features and masks of any images: files, PIL images, arrays, tensors."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn

from dpm_plugin.data.transforms import evaluation_transform
from dpm_plugin.inference.open_run import open_trained, run_checkpoint
from dpm_plugin.method.model import DPM
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.images import Undecodable, read_image, to_rgb
from dpm_plugin.utils.runtime import autocast, pick_device
from dpm_plugin.utils.text import shown

OneImage = str | os.PathLike | Image.Image | np.ndarray | torch.Tensor


class Extracted(NamedTuple):
    """Features of n images, float32 on the CPU."""

    embedding: torch.Tensor  # (n, D), after the neck; not normalised
    mask: torch.Tensor | None  # (n, D) in (0, 1); None for a model without mask branch
    cls: torch.Tensor  # (n, D), class token before the neck


class DPMExtractor:
    """One of the plugin's trained models as a function of images.

    An image is prepared as a test image of the model's own evaluation: resized bilinearly to the image size,
    divided by 255, normalised. Values differ from the evaluation's only by the rounding of another batch size
    (and by half precision, which a run trained in it keeps on the GPU; the CPU computes in float32).

    Args:
        source: a run's folder (``data.save_dir``), a checkpoint in one (``RUN/model/last.pth.tar``),
            ``zoo:occluded_duke`` or another of :mod:`dpm_plugin.weights.published`, a checkpoint from elsewhere
            together with ``config_file``, or a model, which is put on ``device`` in eval mode.
        image_size: (height, width) in pixels; with a model only, and then needed.
        mean, std: three numbers each, as in its training; with a model only, and then needed.
        checkpoint: "last" or "best", with a run's folder only. Default: None, the last.
        config_file: yaml file of settings such as ``configs/released/dpm_occduke.yaml``.
        device: torch device or its name. Default: the GPU where there is one, else the CPU.
        batch_size: images in one forward pass. Default: 32.
        bgr: whether numpy arrays have their channels in the order of OpenCV (blue first). Default: False.

    Attributes:
        model, device, image_size, mean, std: as described; ``config``: the run's settings or None.

    Raises:
        DPMError: a missing or damaged file, an unknown device, or too little or too much information.
    """

    def __init__(
        self,
        source: str | Path | DPM,
        *,
        image_size: tuple[int, int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        checkpoint: str | None = None,
        config_file: str | Path | None = None,
        device: str | torch.device | None = None,
        batch_size: int = 32,
        bgr: bool = False,
    ) -> None:
        if batch_size < 1:
            raise DPMError(f"batch_size must be at least 1, got {batch_size}")
        self.device, self.batch_size, self.bgr = pick_device(device), batch_size, bgr
        preparation = {"image_size": image_size, "mean": mean, "std": std}
        given = [name for name, value in preparation.items() if value is not None]
        self.model: DPM
        if isinstance(source, nn.Module):
            if not hasattr(source, "embed"):
                raise DPMError(f"a {type(source).__name__} has no masks to extract; use torchreid's FeatureExtractor")
            if image_size is None or mean is None or std is None:
                missing = ", ".join(name for name in preparation if name not in given)
                raise DPMError(f"a model does not say how its images were prepared in training; give {missing}")
            self.model, self.config, self.amp = source.to(self.device).eval(), None, "off"
            self.image_size, self.mean, self.std = (image_size[0], image_size[1]), tuple(mean), tuple(std)
        else:
            if given:
                raise DPMError(f"{', '.join(given)} belong to a model; '{source}' has its own settings")
            source = source if checkpoint is None else run_checkpoint(source, checkpoint)
            self.model, self.config, *_ = open_trained(source, self.device, config_file)
            data = self.config.data
            self.image_size, self.mean, self.std = (
                (data.height, data.width),
                tuple(data.norm_mean),
                tuple(data.norm_std),
            )
            self.amp = self.config.train.amp if self.device.type == "cuda" else "off"
        self.transform = evaluation_transform(*self.image_size, self.mean, self.std)

    def __call__(
        self, images: OneImage | Sequence[OneImage], cameras: int | Sequence[int] | torch.Tensor | None = None
    ) -> Extracted:
        """Extract features and masks.

        Args:
            images: one image or a list of them, of any of these kinds:

                - path of a file of any format that Pillow reads, turned as its EXIF tag says;
                - PIL image, taken as it is;
                - numpy array (H, W, 3) uint8, RGB unless ``bgr``; (n, H, W, 3) is a list of them;
                - torch tensor (3, H, W) uint8, RGB; or float, then already prepared (see :meth:`prepare`);
                  (n, 3, H, W) is a list of them.
            cameras: camera index as in training (Eq. 2: its cameras in ascending order, from 0), one for all or one
                an image; None, and any index unseen in training, is the neutral camera. Default: None.

        Returns:
            Extracted, in the order of ``images``; n may be 0.

        Raises:
            DPMError: an image is unreadable or of another kind; names it by its place, from 1.
        """
        images = _as_list(images)
        cameras = _as_indices(cameras, len(images))
        none = torch.zeros(0, self.model.feature_dim)
        batches = (self._embed(images, cameras, start) for start in range(0, len(images), self.batch_size))
        embedding, mask, cls = zip((none, none, none), *batches)
        return Extracted(torch.cat(embedding), torch.cat(mask) if self.model.has_mask else None, torch.cat(cls))

    def prepare(self, image: OneImage) -> torch.Tensor:
        """One image as the model takes it: (3, H, W) float32, normalised; a float tensor is that already.

        Raises:
            DPMError: unreadable, or of no known kind or shape.
        """
        if isinstance(image, torch.Tensor) and image.is_floating_point():
            if image.shape != (3, *self.image_size):
                said = f"a prepared image of shape {(3, *self.image_size)}, not {tuple(image.shape)}"
                raise DPMError(f"a float tensor is {said}; give other sizes as uint8")
            if not (image := image.float().cpu()).isfinite().all():
                raise DPMError("a float tensor holds NaN or infinity (in float32), which no prepared image does")
            return image
        return self.transform(_as_pil(image, self.bgr))

    @torch.no_grad()
    def _embed(self, images: list[OneImage], cameras: torch.Tensor | None, start: int) -> Extracted:
        rows = slice(start, start + self.batch_size)
        prepared = []
        for place, image in enumerate(images[rows], start=start + 1):
            try:
                prepared.append(self.prepare(image))
            except DPMError as error:
                raise DPMError(f"image {place} of {len(images)}: {error}") from error
        camids = None if cameras is None else cameras[rows].to(self.device)
        with autocast(self.device, self.amp):
            output = self.model.embed(torch.stack(prepared).to(self.device), camids, need_heads=False)
        mask = None if output.mask is None else output.mask.float().cpu()
        return Extracted(output.embedding.float().cpu(), mask, output.cls.float().cpu())


def _as_list(images: OneImage | Sequence[OneImage]) -> list[OneImage]:
    if isinstance(images, (np.ndarray, torch.Tensor)):
        return list(images) if images.ndim == 4 else [images]
    if isinstance(images, (str, os.PathLike, Image.Image)):
        return [images]
    return list(images) if isinstance(images, Iterable) else [images]  # of which prepare() says what it should be


def _as_indices(cameras: int | Sequence[int] | torch.Tensor | None, count: int) -> torch.Tensor | None:
    if cameras is None:
        return None
    try:
        indices = torch.as_tensor(cameras, dtype=torch.long).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise DPMError(f"cameras must be an index or a list of indices, got {cameras!r}") from error
    if indices.ndim and indices.shape != (count,):
        raise DPMError(f"{count} images need {count} cameras, got shape {tuple(indices.shape)}")
    return indices.expand(count)


def _as_pil(image: OneImage, bgr: bool) -> Image.Image:
    if isinstance(image, Image.Image):
        try:
            return to_rgb(image)
        except Undecodable as error:
            raise DPMError(f"the PIL image cannot be used ({error})") from error
    if isinstance(image, (str, os.PathLike)):
        return read_image(image, upright=True)
    if isinstance(image, torch.Tensor) and image.dtype == torch.uint8 and image.ndim == 3:
        image, bgr = image.cpu().permute(1, 2, 0).numpy(), False  # (H, W, 3)
    if not isinstance(image, np.ndarray):
        raise DPMError(f"{shown(repr(image)[:60])} is no image; give a path, a PIL image, an array or a tensor")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise DPMError(f"an array must be (height, width, 3) of uint8 to be an image, got {image.shape} {image.dtype}")
    return Image.fromarray(np.ascontiguousarray(image[..., ::-1] if bgr else image))
