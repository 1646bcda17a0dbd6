"""Write a trained model to an ONNX or torch.export file, after comparing it with PyTorch."""

import importlib.util
import io
import json
import logging
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from dpm_plugin.inference.export.graph import RetrievalGraph, preparation, traced
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.files import write_file

TOLERANCE = 1e-4  # of the largest magnitude of an output, or of 1 where that is smaller
BATCHES = (1, 3)  # compared; neither is the batch size of the tracing
LARGEST = 2**31 - 1  # bytes of an ONNX file, which is one protobuf message
INSTALL = 'pip install "dpm-torchreid[export]"'


class Exported(NamedTuple):
    """What was written.

    Attributes:
        outputs: their names.
        size: of the file in bytes.
        difference: largest one from PyTorch, in units of :data:`TOLERANCE`'s measure; None where it was not
            compared because onnxruntime is not installed.
    """

    outputs: tuple
    size: int
    difference: float | None


def export(extractor, path):
    """Write the model of ``extractor`` to ``path``, whole or not at all.

    Args:
        extractor: :class:`dpm_plugin.DPMExtractor` on the CPU.
        path: ends in ``.onnx``, or in ``.pt2`` for ``torch.export.load``. Its metadata (ONNX: metadata_props;
            .pt2: the extra file ``preparation.json``) say how to prepare a picture.

    Returns:
        Exported.

    Raises:
        DPMError: an unknown ending, missing packages, a file that does not compute what PyTorch does, or a
            folder that cannot be written.
    """
    path = Path(path)
    kinds = {".onnx": _onnx, ".pt2": _torch}
    if path.suffix not in kinds:
        raise DPMError(f"'{path}' must end in .onnx or .pt2")
    if path.suffix == ".onnx":
        _need("onnx", "onnxscript")
    graph = RetrievalGraph(extractor.model).eval()
    with _quiet():
        content, run = kinds[path.suffix](graph, extractor)
    difference = None if run is None else _compare(graph, run, extractor.image_size)
    if difference is not None and not difference <= TOLERANCE:
        raise DPMError(
            f"'{path}' would differ from PyTorch by {difference:.1e}, more than {TOLERANCE:.0e}; nothing was written"
        )
    write_file(path, content)
    return Exported(graph.outputs, len(content), difference)


def _onnx(graph, extractor):
    """(bytes of the file, function from images to outputs or None)."""
    program = torch.onnx.export(
        traced(graph, extractor.image_size),
        dynamo=True,
        input_names=["images"],
        output_names=list(graph.outputs),
        verbose=False,
    )
    program.model.metadata_props.update(preparation(extractor))
    message = program.model_proto
    if message.ByteSize() > LARGEST:
        raise DPMError(
            f"the model has {message.ByteSize():,} bytes, more than the 2 GB of an .onnx file; export it as .pt2"
        )
    content = message.SerializeToString()
    if importlib.util.find_spec("onnxruntime") is None:
        return content, None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = list(graph.outputs)
    return content, lambda images: map(torch.from_numpy, session.run(names, {"images": images.numpy()}))


def _torch(graph, extractor):
    buffer = io.BytesIO()
    torch.export.save(
        traced(graph, extractor.image_size),
        buffer,
        extra_files={"preparation.json": json.dumps(preparation(extractor), indent=1)},
    )
    return buffer.getvalue(), torch.export.load(io.BytesIO(buffer.getvalue())).module()


@torch.no_grad()
def _compare(graph, run, image_size):
    """The largest difference of ``run`` from ``graph``, each output against its own magnitude (at least 1)."""
    differences = []
    for size in BATCHES:
        images = torch.randn(size, 3, *image_size, generator=torch.Generator().manual_seed(size))
        for expected, got in zip(graph(images), run(images), strict=True):
            scale = expected.abs().max().clamp(min=1)
            differences.append((got - expected).abs().max() / scale)
    return float(torch.stack(differences).max())  # torch's max, which keeps a NaN


def _need(*packages):
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise DPMError(f"an .onnx file needs the packages {' and '.join(missing)}: {INSTALL}")


@contextmanager
def _quiet():
    """Without the exporters' notes on their own insides; what they wrote is compared anyway."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
