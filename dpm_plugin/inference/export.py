"""Trained models for other programs: ONNX and torch.export files with outputs ``embedding`` and ``mask``.

A file takes ``images`` (B, 3, H, W) float32, B free, prepared as its metadata says, and gives ``embedding``
(B, D), after the neck, and ``mask`` (B, D) for the neutral camera. A model without mask branch gives
``embedding`` alone. The masked search (paper section 4.1) is then four lines of numpy, for query rows ``q``
with masks ``m`` and gallery rows ``g``, by cos(q, m * g) = (q * m) . g / sqrt(m^2 . g^2) of unit rows::

    q = q / np.linalg.norm(q, axis=1, keepdims=True)                     # (Q, D)
    g = g / np.linalg.norm(g, axis=1, keepdims=True)                     # (G, D)
    similarity = (q * m) @ g.T / np.sqrt(m**2 @ (g**2).T)                # (Q, G), in [-1, 1]
    order = np.argsort(-similarity, axis=1)                              # best first

``1 - similarity`` is :func:`dpm_plugin.query_mask_distance`.
"""

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

TOLERANCE = 1e-4  # of the largest magnitude of an output, or of 1 where that is smaller
BATCHES = (1, 3)  # compared; neither is the batch size of the tracing
LARGEST = 2**31 - 1  # bytes of an ONNX file, which is one protobuf message
INSTALL = 'pip install "dpm-torchreid[export]"'

Run = Callable[[torch.Tensor], Iterable[torch.Tensor]]


class Exported(NamedTuple):
    """What was written."""

    outputs: tuple[str, ...]  # their names
    size: int  # of the file in bytes
    difference: float | None  # the largest from PyTorch, measured as TOLERANCE; None where onnxruntime is not installed


class RetrievalGraph(nn.Module):
    """``embed`` of one of the plugin's models without what a search does not need, for the neutral camera."""

    def __init__(self, model: DPM) -> None:
        super().__init__()
        self.model = model
        self.outputs = ("embedding", "mask") if model.has_mask else ("embedding",)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Images (B, 3, H, W) to embedding (B, D) and mask (B, D), float32; the embedding alone without mask branch."""
        heads = self.model.heads(self.model.backbone(images, None, blocks=self.model.map_blocks))
        return tuple(getattr(heads, name).float() for name in self.outputs)


def export(extractor: DPMExtractor, path: str | Path) -> Exported:
    """Write the model of ``extractor`` to ``path``, whole or not at all, after comparing it with PyTorch.

    Args:
        extractor: on the CPU.
        path: ends in ``.onnx``, or in ``.pt2`` for ``torch.export.load``. Its metadata (ONNX: metadata_props;
            .pt2: the extra file ``preparation.json``) say how to prepare an image.

    Raises:
        DPMError: an unknown ending, missing packages, a file that does not compute what PyTorch does, or a
            folder that cannot be written.
    """
    path = Path(path)
    kinds = {".onnx": _onnx, ".pt2": _torch}
    if path.suffix not in kinds:
        raise DPMError(f"'{path}' must end in .onnx or .pt2")
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing and path.suffix == ".onnx":
        raise DPMError(f"an .onnx file needs the packages {' and '.join(missing)}: {INSTALL}")
    graph = RetrievalGraph(extractor.model).eval()
    with _quiet():
        content, run = kinds[path.suffix](graph, extractor)
    difference = None if run is None else _difference(graph, run, extractor.image_size)
    if difference is not None and not difference <= TOLERANCE:
        differs = f"would differ from PyTorch by {difference:.1e}, more than {TOLERANCE:.0e}"
        raise DPMError(f"'{path}' {differs}; nothing was written")
    write_file(path, content)
    return Exported(graph.outputs, len(content), difference)


def _onnx(graph: RetrievalGraph, extractor: DPMExtractor) -> tuple[bytes, Run | None]:
    """The file's bytes, and what runs them where onnxruntime is installed."""
    names, traced = list(graph.outputs), _traced(graph, extractor.image_size)
    program: Any = torch.onnx.export(traced, dynamo=True, input_names=["images"], output_names=names, verbose=False)
    program.model.metadata_props.update(_preparation(extractor))
    message = program.model_proto
    if (size := message.ByteSize()) > LARGEST:
        raise DPMError(f"the model has {size:,} bytes, more than the 2 GB of an .onnx file; export it as .pt2")
    content = message.SerializeToString()
    if importlib.util.find_spec("onnxruntime") is None:
        return content, None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return content, lambda images: map(torch.from_numpy, session.run(names, {"images": images.numpy()}))


def _torch(graph: RetrievalGraph, extractor: DPMExtractor) -> tuple[bytes, Run]:
    buffer, metadata = io.BytesIO(), json.dumps(_preparation(extractor), indent=1)
    torch.export.save(_traced(graph, extractor.image_size), buffer, extra_files={"preparation.json": metadata})
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


def _preparation(extractor: DPMExtractor) -> dict[str, str]:
    """How to prepare images for the file; lists are JSON."""
    config = extractor.config
    lists = {name: json.dumps(list(getattr(extractor, name))) for name in ("image_size", "mean", "std")}
    return lists | {
        "channels": "RGB",
        "range": "0 to 1, then (x - mean) / std",
        "resize": "bilinear with antialiasing, as Pillow's",
        "model": extractor.model.backbone.backbone_name if config is None else config.model.name,
    }


@torch.no_grad()
def _difference(graph: RetrievalGraph, run: Run, image_size: tuple[int, int]) -> float:
    """The largest difference of ``run`` from ``graph``, each output against its own magnitude (at least 1)."""
    differences = []
    for size in BATCHES:
        images = torch.randn(size, 3, *image_size, generator=torch.Generator().manual_seed(size))
        for expected, got in zip(graph(images), run(images), strict=True):
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
