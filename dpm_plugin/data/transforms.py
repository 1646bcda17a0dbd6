"""Training augmentation: the published recipe's steps, which may be mixed with torchreid's own names.

The recipe (order as applied, paper section 4.1 and its released settings): resize (bicubic), ``jitter``,
flip, ``pad_crop``, to tensor, normalise, ``erase_pixel``.
"""

from collections.abc import Sequence

from timm.data.random_erasing import RandomErasing
from torchvision.transforms import ColorJitter, Compose, InterpolationMode, Normalize, RandomCrop, Resize, ToTensor

from dpm_plugin import torchreid_host
from dpm_plugin.utils.text import unknown

TORCHREID_NAMES = ("random_flip", "random_crop", "random_patch", "color_jitter", "random_erase")
OUR_NAMES = ("pad_crop", "jitter", "erase_pixel")
INTERPOLATIONS = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}


def build_transforms(
    height: int,
    width: int,
    transforms: str | Sequence[str] | None = "random_flip",
    norm_mean: Sequence[float] | None = None,
    norm_std: Sequence[float] | None = None,
    *,
    interpolation: str = "bilinear",
) -> tuple[Compose, Compose]:
    """Train and test transforms of PIL images to float tensors (3, height, width).

    Args:
        height, width: image size in pixels.
        transforms: a name, a list of names in any order, or None: torchreid's (``TORCHREID_NAMES``), and

            - ``jitter``: brightness, contrast 0.3, saturation, hue 0.2, directly after the resize;
            - ``pad_crop``: 10 black pixels on each side, then a random crop back to the image size;
            - ``erase_pixel``: with probability 0.5 one box of per-pixel noise, after normalisation.
        norm_mean, norm_std: three numbers each; None means ImageNet's.
        interpolation: filter of the training resize, bilinear or bicubic; the test resize is bilinear.

    Returns:
        (train, test). With torchreid's names and ``bilinear`` alone: exactly torchreid's.

    Raises:
        DPMError: an unknown name (torchreid drops it), with the nearest known one.
    """
    names = [str(name).lower() for name in ([transforms] if isinstance(transforms, str) else transforms or ())]
    for name in names:
        if name not in TORCHREID_NAMES + OUR_NAMES:
            raise unknown("transform (data.transforms)", name, TORCHREID_NAMES + OUR_NAMES)
    if interpolation not in INTERPOLATIONS:
        raise unknown("interpolation (data.interpolation)", interpolation, INTERPOLATIONS)
    theirs = [name for name in names if name in TORCHREID_NAMES]
    train, test = torchreid_host.build_transforms(
        height, width, transforms=theirs, norm_mean=norm_mean, norm_std=norm_std
    )
    if interpolation == "bilinear" and len(theirs) == len(names):
        return train, test
    steps = list(train.transforms)
    resize, to_tensor = ([type(step) for step in steps].index(kind) for kind in (Resize, ToTensor))
    steps[resize] = Resize((height, width), interpolation=INTERPOLATIONS[interpolation])
    print("Changing train transforms ...")
    print(f"+ resize by {interpolation} interpolation")
    if "pad_crop" in names:
        print("+ pad by 10 pixels and random crop, before the tensor")
        steps.insert(to_tensor, RandomCrop((height, width), padding=10))
    if "jitter" in names:
        print("+ color jitter 0.3/0.3/0.2/0.2, after the resize")
        steps.insert(resize + 1, ColorJitter(brightness=0.3, contrast=0.3, saturation=0.2, hue=0.2))
    if "erase_pixel" in names:
        print("+ random erase by noise, last")
        steps.append(RandomErasing(probability=0.5, mode="pixel", max_count=1, device="cpu"))
    return Compose(steps), test


def evaluation_transform(height: int, width: int, mean: Sequence[float], std: Sequence[float]) -> Compose:
    """The test transform of :func:`build_transforms` alone, without its report on screen."""
    return Compose([Resize((height, width)), ToTensor(), Normalize(mean=mean, std=std)])
