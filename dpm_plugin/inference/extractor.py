"""Features and masks of any pictures: files, PIL images, arrays, tensors."""

import os
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from dpm_plugin.apps.picture_index.reading import read_picture
from dpm_plugin.data.transforms import evaluation_transform
from dpm_plugin.inference.open_run import open_trained
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.runtime import autocast, pick_device
from dpm_plugin.utils.text import shown


class Extracted(NamedTuple):
    """Features of n pictures, float32 on the CPU.

    Attributes:
        embedding: after the neck, (n, D); not normalised.
        mask: (n, D) in (0, 1), or None for a model without mask branch.
        cls: class token before the neck, (n, D).
    """

    embedding: torch.Tensor
    mask: torch.Tensor | None
    cls: torch.Tensor


class DPMExtractor:
    """One of the plugin's trained models as a function of pictures.

    A picture is prepared as a test image of the model's own evaluation: resized bilinearly to the image size,
    divided by 255, normalised. Values differ from the evaluation's only by the rounding of another batch size
    (and by half precision, which a run trained in it keeps on the GPU; the CPU computes in float32).

    Args:
        source: a run's folder (``data.save_dir``), a checkpoint in one (``RUN/model/last.pth.tar``),
            ``zoo:occluded_duke`` or another of :mod:`dpm_plugin.weights.published`, a checkpoint from elsewhere
            together with ``config_file``, or a model, which is put on ``device`` in eval mode.
        image_size: (height, width) in pixels; with a model only, and then needed.
        mean, std: three numbers each, as in its training; with a model only, and then needed.
        config_file: yaml file of settings such as ``configs/released/dpm_occduke.yaml``.
        device: torch device or its name. Default: the GPU where there is one, else the CPU.
        batch_size: pictures in one forward pass. Default: 32.
        bgr: whether numpy arrays have their channels in the order of OpenCV (blue first). Default: False.

    Attributes:
        model, device, image_size, mean, std: as described; ``config``: the run's settings or None.

    Raises:
        DPMError: a missing or damaged file, an unknown device, or too little or too much information.
    """

    def __init__(
        self, source, *, image_size=None, mean=None, std=None, config_file=None, device=None, batch_size=32, bgr=False
    ):
        if batch_size < 1:
            raise DPMError(f"batch_size must be at least 1, got {batch_size}")
        self.device, self.batch_size, self.bgr = pick_device(device), batch_size, bgr
        preparation = {"image_size": image_size, "mean": mean, "std": std}
        if isinstance(source, torch.nn.Module):
            self._take_model(source, preparation)
        else:
            self._open(source, preparation, config_file)
        self.transform = evaluation_transform(*self.image_size, self.mean, self.std)

    def _take_model(self, model, preparation):
        if not hasattr(model, "embed"):
            raise DPMError(f"a {type(model).__name__} has no masks to extract; use torchreid's FeatureExtractor")
        missing = [name for name, value in preparation.items() if value is None]
        if missing:
            raise DPMError(
                f"a model does not say how its pictures were prepared in training; give {', '.join(missing)}"
            )
        self.model, self.config, self.amp = model.to(self.device).eval(), None, "off"
        self.image_size, self.mean, self.std = (tuple(value) for value in preparation.values())

    def _open(self, source, preparation, config_file):
        given = [name for name, value in preparation.items() if value is not None]
        if given:
            raise DPMError(f"{', '.join(given)} belong to a model; '{source}' has its own settings")
        self.model, self.config, _ = open_trained(source, self.device, config_file)
        data = self.config.data
        self.image_size = data.height, data.width
        self.mean, self.std = tuple(data.norm_mean), tuple(data.norm_std)
        self.amp = self.config.train.amp if self.device.type == "cuda" else "off"

    def __call__(self, pictures, cameras=None):
        """Extract.

        Args:
            pictures: one picture or a list of them, of any of these kinds:

                - path of a file of any format that Pillow reads, turned as its EXIF tag says;
                - PIL image, taken as it is;
                - numpy array (H, W, 3) uint8, RGB unless ``bgr``; (n, H, W, 3) is a list of them;
                - torch tensor (3, H, W) uint8, RGB; or float, then already prepared (see :meth:`prepare`);
                  (n, 3, H, W) is a list of them.
            cameras: camera index as in training (Eq. 2), one for all or one a picture; None, and any index
                unseen in training, is the neutral camera. Default: None.

        Returns:
            Extracted, in the order of ``pictures``; n may be 0.

        Raises:
            DPMError: a picture is unreadable or of another kind; names it by its place, from 1.
        """
        pictures = _as_list(pictures)
        cameras = _as_indices(cameras, len(pictures))
        parts = [self._embed(pictures, cameras, start) for start in range(0, len(pictures), self.batch_size)]
        if not parts:
            none = torch.zeros(0, self.model.feature_dim)
            return Extracted(none, none if self.model.has_mask else None, none)
        embedding, mask, cls = zip(*parts)
        return Extracted(torch.cat(embedding), torch.cat(mask) if self.model.has_mask else None, torch.cat(cls))

    def prepare(self, picture):
        """One picture as the model takes it: (3, H, W) float32, normalised; a float tensor is that already.

        Raises:
            DPMError: unreadable, or of no known kind or shape.
        """
        if isinstance(picture, torch.Tensor) and picture.is_floating_point():
            if picture.shape != (3, *self.image_size):
                raise DPMError(
                    f"a float tensor is a prepared picture of shape {(3, *self.image_size)}, not "
                    f"{tuple(picture.shape)}; give other sizes as uint8"
                )
            return picture.float().cpu()
        return self.transform(_as_image(picture, self.bgr))

    @torch.no_grad()
    def _embed(self, pictures, cameras, start):
        rows = slice(start, start + self.batch_size)
        images = []
        for place, picture in enumerate(pictures[rows], start=start + 1):
            try:
                images.append(self.prepare(picture))
            except DPMError as error:
                raise DPMError(f"picture {place} of {len(pictures)}: {error}") from error
        camids = None if cameras is None else cameras[rows].to(self.device)
        with autocast(self.device, self.amp):
            output = self.model.embed(torch.stack(images).to(self.device), camids)
        mask = None if output.mask is None else output.mask.float().cpu()
        return output.embedding.float().cpu(), mask, output.cls.float().cpu()


def _as_list(pictures):
    if isinstance(pictures, (np.ndarray, torch.Tensor)):
        return list(pictures) if pictures.ndim == 4 else [pictures]
    if isinstance(pictures, (str, os.PathLike, Image.Image)):
        return [pictures]
    try:
        return list(pictures)
    except TypeError:
        return [pictures]  # prepare() says what it should be


def _as_indices(cameras, count):
    if cameras is None:
        return None
    try:
        indices = torch.as_tensor(cameras, dtype=torch.long).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise DPMError(f"cameras must be an index or a list of indices, got {cameras!r}") from error
    if indices.ndim == 0:
        return indices.expand(count)
    if indices.shape != (count,):
        raise DPMError(f"{count} pictures need {count} cameras, got shape {tuple(indices.shape)}")
    return indices


def _as_image(picture, bgr):
    """An RGB PIL image."""
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    if isinstance(picture, (str, os.PathLike)):
        return read_picture(picture)
    if isinstance(picture, torch.Tensor) and picture.dtype == torch.uint8 and picture.ndim == 3:
        picture, bgr = picture.cpu().permute(1, 2, 0).numpy(), False  # (H, W, 3)
    if not isinstance(picture, np.ndarray):
        raise DPMError(f"{shown(repr(picture)[:60])} is no picture; give a path, a PIL image, an array or a tensor")
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise DPMError(
            f"an array of shape {picture.shape} and type {picture.dtype} is no picture; expected "
            "(height, width, 3) of uint8"
        )
    return Image.fromarray(np.ascontiguousarray(picture[..., ::-1] if bgr else picture))
