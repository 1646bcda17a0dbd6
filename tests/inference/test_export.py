"""tools/export.py: the written file computes what PyTorch does, for any batch size, and says how to prepare."""

import importlib.util
import inspect
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dpm_plugin import DPMError, DPMExtractor, query_mask_distance
from dpm_plugin.commands.export import main
from dpm_plugin.inference import export
from dpm_plugin.inference.export import RetrievalGraph
from helpers.runs import untrained_run
from helpers.scripts import check_mistake

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
SIZE = (32, 16)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    changes = dict(vit__stride=[6, 4], data__norm_mean=[0.5, 0.4, 0.3], data__norm_std=[0.5, 0.6, 0.7])
    return untrained_run(tmp_path_factory.mktemp("export") / "run", **changes)[0]


@pytest.fixture(scope="module")
def extractor(run):
    return DPMExtractor(run, device="cpu")


def images(count):
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(count))


def check(found, extractor, count):
    expected = extractor(images(count))
    assert expected.mask.std() > 0.05 and (count == 1 or expected.embedding.std(dim=0).min() > 1e-3)
    for got, wanted in zip(found, (expected.embedding, expected.mask), strict=True):
        assert np.abs(np.asarray(got) - wanted.numpy()).max() <= 1e-4


@pytest.fixture(scope="module")
def onnx_file(run):
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")
    path = run.parent / "new folder" / "model.onnx"
    assert main([str(run), str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def torch_file(run):
    path = run.parent / "model.pt2"
    assert main([str(run), str(path)]) == 0
    return path


@pytest.mark.parametrize("kind", ["onnx_file", "torch_file"])
def test_a_file_says_no_folder_of_this_machine(kind, request):
    path = request.getfixturevalue(kind)
    if kind == "onnx_file":
        content = path.read_bytes()
    else:
        with zipfile.ZipFile(path) as archive:
            content = b"".join(map(archive.read, archive.namelist()))
    folders = [Path(export.__file__).parents[2], Path(torch.__file__).parents[1], path.parent, Path.cwd()]
    assert not [folder for folder in folders if str(folder).encode() in content]


def prepared_by_its_metadata(image, metadata):
    """With Pillow and numpy alone, as a user of the file would."""
    height, width = json.loads(metadata["image_size"])
    mean, std = (np.float32(json.loads(metadata[name])) for name in ("mean", "std"))
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32) / 255
    return ((pixels - mean) / std).transpose(2, 0, 1)


def check_preparation(metadata, extractor):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 21, 3), dtype=np.uint8))
    assert metadata["channels"] == "RGB" and metadata["model"] == "dpm_vit_tiny"
    found = prepared_by_its_metadata(image, metadata)
    np.testing.assert_allclose(found, extractor.prepare(image).numpy(), atol=1e-5)


def test_an_onnx_file_computes_what_pytorch_does_for_any_batch_size(onnx_file, extractor):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(onnx_file), providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["images"]
    assert [each.name for each in session.get_outputs()] == ["embedding", "mask"]
    for count in (1, 2, 7):
        check(session.run(None, {"images": images(count).numpy()}), extractor, count)
    check_preparation(session.get_modelmeta().custom_metadata_map, extractor)
    assert [path.name for path in onnx_file.parent.iterdir()] == ["model.onnx"]


def test_a_torch_export_file_computes_what_pytorch_does_for_any_batch_size(run, extractor, tmp_path, capsys):
    path = tmp_path / "model.pt2"
    assert main([str(run), str(path)]) == 0
    printed = capsys.readouterr().out
    assert "images (B, 3, 32, 16) -> embedding (B, 16), mask (B, 16)" in printed
    assert float(re.search(r"largest difference from PyTorch: (\S+)", printed).group(1)) <= 1e-4
    extra = {"preparation.json": ""}
    program = torch.export.load(path, extra_files=extra).module()
    for count in (1, 2, 7):
        check([value.detach() for value in program(images(count))], extractor, count)
    check_preparation(json.loads(extra["preparation.json"]), extractor)


def test_a_model_with_parts_is_exported_with_features_and_masks_of_all_its_parts(tmp_path, capsys):
    folder, model, _ = untrained_run(tmp_path / "run", vit__parts=3, vit__part_dim=4)
    torch.nn.init.normal_(model.mask_generator.part_linear.weight, std=8.0)
    extractor = DPMExtractor(model, image_size=SIZE, mean=[0.5] * 3, std=[0.5] * 3, device="cpu")
    for name in ["model.pt2"] + ["model.onnx"] * all(importlib.util.find_spec(name) for name in PACKAGES):
        done = export.export(extractor, tmp_path / name)
        assert done.difference <= 1e-4 and done.outputs == ("embedding", "mask")
    found = torch.export.load(tmp_path / "model.pt2").module()(images(2))
    assert [tuple(each.shape) for each in found] == [(2, 16 + 3 * 4)] * 2
    check([each.detach() for each in found], extractor, 2)


def test_without_mask_branch_there_is_an_embedding_alone(tmp_path):
    folder, model, _ = untrained_run(tmp_path / "run", model__name="vit_baseline_tiny")
    graph = RetrievalGraph(model)
    assert graph.outputs == ("embedding",)
    (embedding,) = graph(images(2))
    torch.testing.assert_close(embedding, DPMExtractor(folder, device="cpu")(images(2)).embedding)


def test_the_four_lines_of_numpy_are_the_masked_distance(extractor):
    lines = re.search(r"::\n\n((?:    .+\n)+)", inspect.getdoc(export)).group(1)
    assert lines.count("\n") == 4
    query, gallery = extractor(images(5)), extractor(images(8))
    given = {"np": np, "q": query.embedding.numpy(), "m": query.mask.numpy(), "g": gallery.embedding.numpy()}
    exec(inspect.cleandoc(lines), given)
    expected = query_mask_distance(query.embedding, gallery.embedding, query.mask).numpy()
    np.testing.assert_allclose(1 - given["similarity"], expected, atol=1e-5)
    assert (given["order"] == np.argsort(expected, axis=1)).all()
    assert not np.allclose(expected, query_mask_distance(query.embedding, gallery.embedding, None), atol=1e-3)


@pytest.mark.parametrize("error", [3e-4, float("nan")])
def test_a_file_that_computes_something_else_is_not_written(run, tmp_path, monkeypatch, capsys, error):
    def wrong(graph, size, metadata):
        return b"content", lambda images: [value + error * (2 * len(images)) for value in graph(images)]

    monkeypatch.setattr(export, "_torch", wrong)
    (tmp_path / "model.pt2").write_text("the old one", encoding="utf-8")
    check_mistake(main, [run, tmp_path / "model.pt2"], capsys, "would differ from PyTorch")
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt2"]
    assert (tmp_path / "model.pt2").read_text(encoding="utf-8") == "the old one"


@pytest.mark.parametrize(
    "source, out, said",
    [
        ("{run}", "{tmp}/model.txt", "must end in .onnx or .pt2"),
        ("{run}", "{tmp}", "must end in"),
        ("{tmp}/gone", "{tmp}/model.pt2", "gone' does not exist"),
        ("{tmp}/cut/model/last.pth.tar", "{tmp}/model.pt2", "cannot be read as plain weights"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2_and_leaves_nothing(run, tmp_path, capsys, source, out, said):
    cut = tmp_path / "cut"
    (cut / "model").mkdir(parents=True)
    (cut / "results.json").write_bytes((run / "results.json").read_bytes())
    (cut / "model" / "last.pth.tar").write_bytes((run / "model" / "last.pth.tar").read_bytes()[:3000])
    check_mistake(main, [source.format(run=run, tmp=tmp_path), out.format(tmp=tmp_path)], capsys, said)
    assert [path.name for path in tmp_path.iterdir()] == ["cut"]


def test_a_folder_that_cannot_be_written_is_named(extractor, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_torch", lambda graph, size, metadata: (b"content", graph))
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(DPMError, match="file/model.pt2' cannot be written"):
        export.export(extractor, tmp_path / "file" / "model.pt2")


def test_missing_packages_are_named_with_the_command_that_installs_them(extractor, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else found(name))
    with pytest.raises(DPMError, match=r"onnxscript: pip install \"dpm-torchreid\[export\]\""):
        export.export(extractor, tmp_path / "model.onnx")
