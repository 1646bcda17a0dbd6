"""Trained models for other programs: ONNX and torch.export files with outputs ``embedding`` and ``mask``.

A file takes ``images`` (B, 3, H, W) float32, B free, prepared as its metadata says, and gives ``embedding``
(B, D), after the neck, and ``mask`` (B, D) for the neutral camera, float32. A model without mask branch gives
``embedding`` alone. A program that always normalises in its own way, such as a tracker, gets a file that takes
images so (``NORMALIZATIONS``). The masked search (paper section 4.1) is then four lines of numpy, for query rows ``q``
with masks ``m`` and gallery rows ``g``, by cos(q, m * g) = (q * m) . g / sqrt(m^2 . g^2) of unit rows::

    q = q / np.linalg.norm(q, axis=1, keepdims=True)                     # (Q, D)
    g = g / np.linalg.norm(g, axis=1, keepdims=True)                     # (G, D)
    similarity = (q * m) @ g.T / np.sqrt(m**2 @ (g**2).T)                # (Q, G), in [-1, 1]
    order = np.argsort(-similarity, axis=1)                              # best first

``1 - similarity`` is :func:`dpm_plugin.query_mask_distance`.
"""

import copy
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from dpm_plugin.inference.extractor import DPMExtractor
from dpm_plugin.method.model import DPM
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.files import write_file
from dpm_plugin.utils.text import unknown

TOLERANCE = 1e-4  # of the largest magnitude of an output, or of 1 where that is smaller
HALF_TOLERANCE = 5e-2  # the same for float16 weights: a deep network adds up its roundings
BATCHES = (1, 3)  # compared; neither is the batch size of the tracing
LARGEST = 2**31 - 1  # bytes of an ONNX file, which is one protobuf message
RESIZE = "bilinear with antialiasing, as Pillow's"
INSTALL = 'pip install "dpm-torchreid[export]"'

#: How other programs prepare an image: (value / 255 - mean) / deviation, these two for each of red, green and blue.
NORMALIZATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5,) * 3, (0.5,) * 3),
    "uint8": ((0.0,) * 3, (1 / 255,) * 3),  # the values as they are, 0 to 255
}

Run = Callable[[torch.Tensor], Iterable[torch.Tensor]]


class Exported(NamedTuple):
    """What was written."""

    outputs: tuple[str, ...]  # their names
    size: int  # of the file in bytes
    difference: float | None  # the largest from PyTorch, measured as TOLERANCE; None where onnxruntime is not installed


class RetrievalGraph(nn.Module):
    """``embed`` of one of the plugin's models without what a search does not need, for the neutral camera.

    Args:
        affine: scale and shift (3, 1, 1) that turn given images into the model's. Default: None, they are the model's.
        half: compute with a copy of the model in float16. Default: False.
    """

    def __init__(self, model: DPM, affine: tuple[torch.Tensor, torch.Tensor] | None = None, half: bool = False) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).half() if half else model
        self.dtype = torch.float16 if half else torch.float32
        self.outputs = ("embedding", "mask") if model.has_mask else ("embedding",)
        self.scale: torch.Tensor | None
        self.shift: torch.Tensor
        for name, values in zip(("scale", "shift"), affine or (None, None)):
            self.register_buffer(name, values)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Images (B, 3, H, W) to embedding (B, D) and mask (B, D), float32; the embedding alone without mask branch."""
        if self.scale is not None:
            images = images * self.scale + self.shift
        encoded = self.model.backbone(images.to(self.dtype), None, blocks=self.model.map_blocks)
        heads = self.model.heads(encoded)
        return tuple(getattr(heads, name).float() for name in self.outputs)


class Preparation(NamedTuple):
    """How a file wants its images: (value / 255 - mean) / std of each channel."""

    name: str  # of NORMALIZATIONS, or "own"
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def affine_to(self, extractor: DPMExtractor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Scale and shift (3, 1, 1) from images prepared so to the extractor's; None where these are the same."""
        if (self.mean, self.std) == (extractor.mean, extractor.std):
            return None
        numbers = (self.mean, self.std, extractor.mean, extractor.std)
        mean, std, own_mean, own_std = (torch.tensor(each, dtype=torch.float64).view(3, 1, 1) for each in numbers)
        return (std / own_std).float(), ((mean - own_mean) / own_std).float()

    def __str__(self) -> str:
        """For people: "RGB, 0 to 255"."""
        if self.name == "uint8":
            return "RGB, values 0 to 255 as they are"
        mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std))
        return f"RGB, values 0 to 1, minus {mean}, divided by {std}"


def preparation(extractor: DPMExtractor, normalize: str | None) -> Preparation:
    """The one that ``export`` writes with this ``normalize``; DPMError where it is unknown."""
    if normalize is None:
        return Preparation("own", extractor.mean, extractor.std)
    if normalize not in NORMALIZATIONS:
        raise unknown("normalisation (normalize)", normalize, NORMALIZATIONS)
    return Preparation(normalize, *NORMALIZATIONS[normalize])


def export(extractor: DPMExtractor, path: str | Path, normalize: str | None = None, half: bool = False) -> Exported:
    """Write the model of ``extractor`` to ``path``, whole or not at all, after comparing it with PyTorch.

    Args:
        extractor: on the CPU.
        path: ends in ``.onnx``, or in ``.pt2`` for ``torch.export.load``. Its metadata (ONNX: metadata_props;
            .pt2: the extra file ``preparation.json``) say how to prepare an image.
        normalize: how the program that uses the file normalises images, a key of ``NORMALIZATIONS``; the difference
            to the model's own way is computed in the file. Default: None, as the model's test images.
        half: weights and arithmetic in float16, half the size; images and outputs stay float32. Default: False.

    Raises:
        DPMError: an unknown ending or normalisation, missing packages, a file that does not compute what PyTorch
            does, or a folder that cannot be written.
    """
    path, prepared = Path(path), preparation(extractor, normalize)
    kinds = {".onnx": _onnx, ".pt2": _torch}
    if path.suffix not in kinds:
        raise DPMError(f"'{path}' must end in .onnx or .pt2")
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing and path.suffix == ".onnx":
        raise DPMError(f"an .onnx file needs the packages {' and '.join(missing)}: {INSTALL}")
    affine = prepared.affine_to(extractor)
    graph = RetrievalGraph(extractor.model, affine, half).eval()
    metadata = _metadata(extractor, prepared, half)
    with _quiet():
        content, run = kinds[path.suffix](graph, extractor.image_size, metadata)
    reference = RetrievalGraph(extractor.model).eval()
    difference = None if run is None else _difference(reference, run, affine, extractor.image_size)
    tolerance = HALF_TOLERANCE if half else TOLERANCE
    if difference is not None and not difference <= tolerance:
        differs = f"would differ from PyTorch by {difference:.1e}, more than {tolerance:.0e}"
        raise DPMError(f"'{path}' {differs}; nothing was written")
    write_file(path, content)
    return Exported(graph.outputs, len(content), difference)


def _onnx(graph: RetrievalGraph, size: tuple[int, int], metadata: dict[str, str]) -> tuple[bytes, Run | None]:
    """The file's bytes, and what runs them where onnxruntime is installed."""
    names, traced = list(graph.outputs), _traced(graph, size)
    program: Any = torch.onnx.export(traced, dynamo=True, input_names=["images"], output_names=names, verbose=False)
    program.model.metadata_props.update(metadata)
    message = program.model_proto
    if (count := message.ByteSize()) > LARGEST:
        raise DPMError(f"the model has {count:,} bytes, more than the 2 GB of an .onnx file; export it as .pt2")
    content = message.SerializeToString()
    if importlib.util.find_spec("onnxruntime") is None:
        return content, None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return content, lambda images: map(torch.from_numpy, session.run(names, {"images": images.numpy()}))


def _torch(graph: RetrievalGraph, size: tuple[int, int], metadata: dict[str, str]) -> tuple[bytes, Run]:
    buffer, extra = io.BytesIO(), {"preparation.json": json.dumps(metadata, indent=1)}
    torch.export.save(_traced(graph, size), buffer, extra_files=extra)
    return buffer.getvalue(), torch.export.load(io.BytesIO(buffer.getvalue())).module()


def _traced(graph: RetrievalGraph, image_size: tuple[int, int]) -> torch.export.ExportedProgram:
    """The graph for any batch size from 1 on."""
    images = torch.zeros(2, 3, *image_size)  # 2: torch.export would take a 1 for a constant
    shapes = {"images": {0: torch.export.Dim("batch", min=1)}}
    with torch.no_grad():
        program = torch.export.export(graph, (images,), dynamic_shapes=shapes)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # lines of source files, with their folders on this machine
    return program


def _metadata(extractor: DPMExtractor, prepared: Preparation, half: bool) -> dict[str, str]:
    """How to prepare images for the file; lists are JSON."""
    config = extractor.config
    lists = {"image_size": extractor.image_size, "mean": prepared.mean, "std": prepared.std}
    is_raw = prepared.name == "uint8"
    return {name: json.dumps(list(values)) for name, values in lists.items()} | {
        "channels": "RGB",
        "layout": "batch, channel, row, column (NCHW); float32",
        "range": "0 to 255, which is (x - mean) / std of x from 0 to 1" if is_raw else "0 to 1, then (x - mean) / std",
        "normalize": prepared.name,
        "resize": RESIZE,
        "weights": "float16" if half else "float32",
        "model": extractor.model.backbone.backbone_name if config is None else config.model.name,
    }


@torch.no_grad()
def _difference(
    graph: RetrievalGraph, run: Run, affine: tuple[torch.Tensor, torch.Tensor] | None, image_size: tuple[int, int]
) -> float:
    """The largest difference of ``run`` from ``graph``, each output against its own magnitude (at least 1).

    ``affine``: of the images that ``run`` takes, see :class:`RetrievalGraph`.
    """
    differences = []
    for size in BATCHES:
        images = torch.randn(size, 3, *image_size, generator=torch.Generator().manual_seed(size))
        given = images if affine is None else (images - affine[1]) / affine[0]
        for expected, got in zip(graph(images), run(given), strict=True):
            differences.append((got - expected).abs().max() / expected.abs().max().clamp(min=1))
    return float(torch.stack(differences).max())  # torch's max, which keeps a NaN


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' notes on their own insides; what they wrote is compared anyway."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
