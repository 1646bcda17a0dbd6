"""Files of ``dpm export --normalize`` in trackers, which prepare images in their own way: features are ours."""

import importlib.util
import json

import cv2
import numpy as np
import pytest
import torch

from dpm_plugin import DPMExtractor
from dpm_plugin.commands.export import main
from dpm_plugin.inference import export
from dpm_plugin.inference.export import NORMALIZATIONS
from dpm_plugin.torchreid_host import utils
from helpers.runs import untrained_run
from helpers.scripts import check_mistake

SIZE = (32, 16)
IMAGENET = NORMALIZATIONS["imagenet"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    changes = dict(data__norm_mean=[0.5, 0.4, 0.3], data__norm_std=[0.5, 0.6, 0.7])
    return untrained_run(tmp_path_factory.mktemp("trackers") / "run", **changes)[0]


@pytest.fixture(scope="module")
def extractor(run):
    return DPMExtractor(run, bgr=True, device="cpu")


@pytest.fixture(scope="module")
def written(run):
    """``written("imagenet", "--half")`` exports the run so, once; returns the file."""

    def write(normalize, *options, ending=".pt2"):
        path = run.parent / f"{'-'.join([normalize, *options])}{ending}"
        if not path.exists():
            assert main([str(run), str(path), "--normalize", normalize, *options]) == 0
        return path

    return write


def crops(*sizes):
    """Images of these sizes (H, W, 3), BGR: smooth, as resized ones differ by their filter elsewhere."""
    rng = np.random.default_rng(0)
    return [cv2.resize(rng.integers(0, 256, (6, 4, 3), dtype=np.uint8), size[::-1]) for size in sizes]


def as_trackers_do(images, normalize):
    """BGR images (H, W, 3) by OpenCV and numpy to (B, 3, H, W), as boxmot's OpenCV path with other constants."""
    rgb = [cv2.cvtColor(cv2.resize(each, SIZE[::-1]), cv2.COLOR_BGR2RGB) for each in images]
    pixels = np.stack(rgb).astype(np.float32).transpose(0, 3, 1, 2)
    if normalize == "uint8":
        return torch.from_numpy(pixels)
    mean, std = {"imagenet": IMAGENET, "half": ([0.5] * 3, [0.5] * 3)}[normalize]
    mean, std = (np.float32(each).reshape(3, 1, 1) for each in (mean, std))
    return torch.from_numpy((pixels / np.float32(255) - mean) / std)


def unit(features):
    return torch.nn.functional.normalize(torch.as_tensor(features).float(), dim=1)


def check_same(found, expected, tolerance=1e-3):
    difference = (unit(found) - unit(expected)).abs().max()
    assert difference <= tolerance, difference


@pytest.mark.parametrize("normalize", ["imagenet", pytest.param("half", marks=pytest.mark.slow), "uint8"])
def test_a_file_takes_images_as_the_program_normalises_them(written, extractor, normalize):
    extra = {"preparation.json": ""}
    program = torch.export.load(written(normalize), extra_files=extra).module()
    images = crops(SIZE, SIZE, SIZE)
    embedding, mask = program(as_trackers_do(images, normalize))
    expected = extractor(images)
    check_same(embedding.detach(), expected.embedding)
    torch.testing.assert_close(mask.detach(), expected.mask, atol=1e-4, rtol=0)
    metadata = json.loads(extra["preparation.json"])
    assert metadata["normalize"] == normalize and json.loads(metadata["image_size"]) == list(SIZE)
    # A program that only knows mean and std of the metadata is right too.
    mean, std = (np.float32(json.loads(metadata[name])).reshape(3, 1, 1) for name in ("mean", "std"))
    raw = as_trackers_do(images, "uint8").numpy()
    np.testing.assert_allclose((raw / 255 - mean) / std, as_trackers_do(images, normalize), rtol=1e-4, atol=1e-4)


def test_a_file_of_another_normalisation_gives_other_features(written, extractor):
    program = torch.export.load(written("imagenet")).module()
    images = crops(SIZE, SIZE)
    wrong, _ = program(as_trackers_do(images, "half"))
    assert (unit(wrong.detach()) - unit(extractor(images).embedding)).abs().max() > 0.02


@pytest.mark.slow
def test_half_has_float16_weights_takes_float32_and_differs_by_little(written, extractor):
    program = torch.export.load(written("uint8", "--half")).module()
    images = crops(SIZE, SIZE, SIZE)
    embedding, mask = program(as_trackers_do(images, "uint8"))
    expected = extractor(images)
    assert embedding.dtype == mask.dtype == torch.float32
    check_same(embedding.detach(), expected.embedding, 5e-3)
    weights = [value for value in program.state_dict().values() if value.is_floating_point()]
    halves = sum(value.numel() for value in weights if value.dtype == torch.float16)
    assert halves > 0.99 * sum(value.numel() for value in weights)


def test_the_screen_says_size_filter_and_normalisation(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export, "_torch", lambda graph, size, metadata: (b"content", None))
    assert main([str(run), str(tmp_path / "model.pt2"), "--normalize", "uint8"]) == 0
    printed = capsys.readouterr().out
    assert "resize to 32, 16 (height, width), bilinear" in printed and "RGB, values 0 to 255" in printed


def test_an_unknown_normalisation_is_one_line(run, tmp_path, capsys):
    check_mistake(main, [run, tmp_path / "model.pt2", "--normalize", "image"], capsys, "--normalize")


@pytest.mark.torchreid
def test_torchreids_extractor_of_deep_sort_realtime_prepares_for_such_a_file(written, run, extractor):
    theirs = utils.FeatureExtractor("dpm_vit_tiny", str(run / "model" / "last.pth.tar"), image_size=SIZE, device="cpu")
    program = torch.export.load(written("imagenet")).module()
    theirs.model = lambda images: program(images)[0]
    images = crops((50, 21), (32, 16), (20, 12))  # it resizes by Pillow, as we do
    found = theirs([np.ascontiguousarray(image[..., ::-1]) for image in images])
    check_same(found.detach(), extractor(images).embedding, 1e-4)


# ---- the packages themselves, where they are installed ----


@pytest.fixture(scope="module")
def onnx_packages():
    missing = [each for each in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(each) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")


@pytest.mark.parametrize("options, tolerance", [((), 1e-3), (("--half",), 5e-3)])
def test_boxmots_own_backend_gives_our_features(written, extractor, onnx_packages, options, tolerance):
    runtime = pytest.importorskip("boxmot.reid.core.runtime", reason="boxmot is not installed")
    images = crops(SIZE, SIZE, (24, 12))  # it resizes by OpenCV, which differs where it makes an image smaller
    frame = np.zeros((80, 80, 3), dtype=np.uint8)
    boxes = []
    for number, image in enumerate(images):
        height, width = image.shape[:2]
        frame[5 : 5 + height, 20 * number : 20 * number + width] = image
        boxes.append([20 * number, 5, 20 * number + width, 5 + height])
    theirs = runtime.ReID(written("imagenet", *options, ending=".onnx"), device="cpu")
    assert tuple(theirs.model.input_shape) == SIZE
    check_same(theirs(frame, np.float32(boxes)), extractor(images).embedding, tolerance)


def test_deep_sort_realtimes_own_embedder_gives_our_features(written, run, extractor):
    embedders = pytest.importorskip(
        "deep_sort_realtime.embedder.embedder_pytorch", reason="deep-sort-realtime, or pkg_resources, is not installed"
    )
    weights = str(run / "model" / "last.pth.tar")
    theirs = embedders.TorchReID_Embedder(model_name="dpm_vit_tiny", model_wts_path=weights, gpu=False)
    program = torch.export.load(written("imagenet")).module()
    theirs.model.model = lambda images: program(torch.nn.functional.interpolate(images, SIZE))[0]
    images = crops((256, 128), (256, 128))  # the size that it always resizes to
    expected = [image[::8, ::8] for image in images]  # what interpolate takes of each
    check_same(theirs.predict(images), extractor(expected).embedding)
