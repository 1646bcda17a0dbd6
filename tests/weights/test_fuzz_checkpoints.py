"""Checkpoint files of any content: the weights that were saved, or an error that names the file."""

import io
import json
import pickle
import struct
import tarfile
import zipfile

import pytest
import safetensors.torch
import torch
from hypothesis import strategies as st

from dpm_plugin.apps.convert_checkpoint import convert
from dpm_plugin.inference.open_run import open_trained
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.weights import files as checkpoint
from dpm_plugin.weights.load import load_pretrained, load_weights
from helpers.fuzz import Refused, fuzz, outcome, sizes  # noqa: F401, a fixture
from helpers.model import tiny_model, to_released
from helpers.published_names import clip_reid, clip_tower, dinov2, part_tokens, prefixed

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's, on protocols and types that it then refuses
DTYPES = [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int8, torch.bool, torch.complex64]
CHANGES = "none drop rename dtype shape value expand sparse meta no_tensor module wrap itself".split()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return tiny_model(depth=2)


@pytest.fixture(scope="module")
def states(model):
    """Naming -> state dict."""
    own, prefix = {key: value.clone() for key, value in model.state_dict().items()}, "backbone.transformer."
    timm = {key.removeprefix(prefix): value for key, value in own.items() if key.startswith(prefix)}
    released = to_released(own)
    transreid = {key: value for key, value in released.items() if not key.startswith("base.ConvLayer")}
    transreid["b1.0.norm1.weight"] = released["base.norm.weight"]
    published = {"pass": prefixed(part_tokens(timm), "backbone."), "clip-reid": clip_reid(clip_tower())}
    published["dinov2"] = dinov2({**timm, "reg_token": torch.zeros(1, 4, 24), "blocks.0.ls1.gamma": torch.zeros(24)})
    return {"dpm": own, "timm": timm, "released": released, "transreid": transreid, **published}


#: (naming, [(change, which tensor, seed), ...], form of the file) of a state dict.
CONTENTS = st.tuples(
    st.sampled_from(["dpm", "timm", "released", "transreid", "pass", "clip-reid", "dinov2"]),
    st.lists(st.tuples(st.sampled_from(CHANGES), st.integers(0, 200), st.integers(0, 99)), max_size=3),
    st.sampled_from(["zip", "old", "st"]),
)


def changed(state, changes):
    """A copy of the state dict with the changes done to it."""
    state = dict(state)
    for change, which, seed in changes:
        names = [name for name, value in state.items() if isinstance(value, torch.Tensor)]
        if not names:
            break
        name = names[which % len(names)]
        value = state[name]
        if change == "drop":
            del state[name]
        elif change == "rename":
            parts = name.split(".")
            parts[seed % len(parts)] = ["x", "-1", "", "999999999999999999999", "norm1"][seed % 5]
            state[".".join(parts)] = state.pop(name)
        elif change == "dtype":
            state[name] = value.to(DTYPES[seed % len(DTYPES)])
        elif change == "shape":
            shape = [min(side, 9) for side in value.shape] + [1]
            shape[seed % len(shape)] = [0, 1, 2, 7][seed % 4]
            shaped = (torch.zeros(shape), value.flatten(), value[None], torch.zeros(()), torch.zeros(10**9, 0))
            state[name] = shaped[seed % 5]
        elif change == "value" and value.is_floating_point() and value.numel():
            state[name] = value.clone()
            state[name].view(-1)[seed % value.numel()] = [float("nan"), float("inf"), -float("inf")][seed % 3]
        elif change == "expand":
            state[name] = torch.zeros(1).expand(10**12 if seed % 2 else value.shape.numel() + 1)
        elif change == "sparse":
            state[name] = torch.zeros(2, 3).to_sparse()
        elif change == "meta":
            state[name] = torch.empty(value.shape, device="meta")
        elif change == "no_tensor":
            state[name] = [None, "text", 3, [1], {"a": 1}][seed % 5]
        elif change == "module":
            state["module." + name] = value if seed % 2 else state.pop(name)
        elif change == "wrap":
            state = {["state_dict", "model", "net"][seed % 3]: state, "epoch": seed}
        elif change == "itself":
            state["state_dict"] = state
    return state


def write(state, path, form):
    """As torch zip, as old torch file or as safetensors; False where that form cannot hold it."""
    try:
        if form == "st":
            safetensors.torch.save_file({key: value.contiguous() for key, value in state.items()}, path)
        else:
            torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    except (AttributeError, TypeError, ValueError, RuntimeError, RecursionError, NotImplementedError):
        return False
    return True


def try_everything(model, path, before):
    """Every reader of a checkpoint on ``path``; returns what load_weights said. The model stays sound."""
    model.load_state_dict(before)
    report = outcome(load_weights, model, path)
    after = model.state_dict()
    if isinstance(report, Refused):
        assert path.name in report and all(torch.equal(after[key], value) for key, value in before.items())
    else:
        assert all(value.isfinite().all() for value in after.values())
        untouched = set(before) - set(report.loaded)
        assert all(torch.equal(after[key], before[key]) for key in untouched)
    model.load_state_dict(before)
    outcome(load_pretrained, model.backbone, path)
    assert all(value.isfinite().all() for value in model.state_dict().values())
    converted = path.with_suffix(".converted")
    done = outcome(convert, path, converted)
    assert isinstance(done, Refused) or isinstance(outcome(checkpoint.read_state, converted), dict)
    return report


@sizes(12, 300)
def test_state_dicts_with_other_names_types_shapes_and_wrappers(fuzz, model, states, tmp_path, capsys):  # noqa: F811
    before = {key: value + 1 if value.is_floating_point() else value for key, value in states["dpm"].items()}
    path = tmp_path / "weights.pth"

    def check(case):
        naming, changes, form = case
        if not write(changed(states[naming], changes), path, form):
            return
        report = try_everything(model, path, before)
        if naming in ("dpm", "released") and not changes:
            assert report.naming == naming and not report.missing and not report.skipped
        capsys.readouterr()

    fuzz(CONTENTS, check)


@st.composite
def damages(draw):
    """A function of the bytes of a file."""
    kind = draw(st.sampled_from(["bits", "cut", "insert", "fill", "swap"]))
    places = draw(st.lists(st.floats(0, 1), min_size=1, max_size=4))
    extra = draw(st.binary(min_size=1, max_size=16))
    near_ends = draw(st.booleans())  # where the headers are

    def damage(content):
        content = bytearray(content)
        for place in places:
            place = int(place * (len(content) - 1))
            if near_ends:
                place = place % 600 if place % 2 else len(content) - 1 - place % 600
            if kind == "bits":
                content[place] ^= 1 << extra[0] % 8
            elif kind == "cut":
                del content[max(1, place) :]
            elif kind == "insert":
                content[place:place] = extra
            elif kind == "fill":
                content[place : place + len(extra)] = extra[:1] * len(content[place : place + len(extra)])
            else:
                other = (place + extra[0] + 1) % len(content)
                content[place], content[other] = content[other], content[place]
        return bytes(content)

    return draw(st.sampled_from(["zip", "old", "st"])), damage


@sizes(15, 400)
def test_damaged_files(fuzz, model, states, tmp_path, capsys):  # noqa: F811
    before = {key: torch.full_like(value, 3) for key, value in model.state_dict().items()}
    intact = {}
    for form in ("zip", "old", "st"):
        path = tmp_path / f"intact.{form}"
        assert write(states["dpm"], path, form)
        intact[form] = path.read_bytes()
    path = tmp_path / "damaged.pth"

    def check(case):
        form, damage = case
        path.write_bytes(damage(intact[form]))
        report = try_everything(model, path, before)
        if form == "zip" and not isinstance(report, Refused):  # its checksums tell every changed weight
            found = checkpoint.read_state(path)
            assert all(torch.equal(found[key], states["dpm"][key]) for key in set(found) & set(states["dpm"]))
        capsys.readouterr()

    fuzz(damages(), check)


@sizes(15, 500)
def test_files_of_any_bytes(fuzz, tmp_path):  # noqa: F811
    heads = [b"", b"PK\3\4", b"\x80\x02", pickle.dumps(0x1950A86A20F9469CFC6C, 2), b"\x93NUMPY"]
    heads += [struct.pack("<Q", 2) + b"{}", struct.pack("<Q", 2**62) + b"{"]
    path = tmp_path / "bytes.pth"

    def check(case):
        path.write_bytes(case[0] + case[1])
        found = outcome(checkpoint.read_state, path)
        assert isinstance(found, Refused) and path.name in found and "\n" not in found

    fuzz(st.tuples(st.sampled_from(heads), st.binary(max_size=120)), check)


def test_one_changed_bit_in_the_weights_of_a_torch_file_is_seen(states, tmp_path):
    """torch itself does not look at the checksums that it writes."""
    path = tmp_path / "flipped.pth"
    torch.save(states["dpm"], path)
    content = bytearray(path.read_bytes())
    weights = states["dpm"]["classifier.weight"].numpy().tobytes()
    content[content.index(weights) + 5] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DPMError, match="flipped.pth' cannot be read .*checksum of its record .* is wrong"):
        checkpoint.read_checkpoint(path)


# ---- files that declare more than they hold ----


def safetensors_file(shape, offsets, data=b""):
    text = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}).encode()
    return struct.pack("<Q", len(text)) + text + data


def zipped(state, packing=zipfile.ZIP_STORED, times=1):
    """A torch file whose records were packed again, every one ``times`` times under its name."""
    packed, plain = io.BytesIO(), zipfile.ZipFile(io.BytesIO(saved(state)))
    with zipfile.ZipFile(packed, "w", packing) as target:
        for name in plain.namelist() * times:
            target.writestr(name, plain.read(name))
    return packed.getvalue()


def saved(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def tar_with_pipe():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("storages", "tensors", "pickle"):
            pipe = tarfile.TarInfo(name)
            pipe.type = tarfile.FIFOTYPE
            archive.addfile(pipe)
    return buffer.getvalue()


BOMBS = {
    "huge tensor": safetensors_file([2**40], [0, 2**42]),
    "overflowing shape": safetensors_file([2**62, 8], [0, 4], bytes(4)),
    "offset beyond the end": safetensors_file([1], [2**60, 2**60 + 4], bytes(4)),
    "huge header": struct.pack("<Q", 2**63) + b"{" + bytes(100),
    "packed records": zipped({"a": torch.zeros(10**6)}, zipfile.ZIP_DEFLATED),  # ten thousand zeros for each byte
    "lzma records": zipped({"a": torch.zeros(10**6)}, zipfile.ZIP_LZMA),
    "records of one name": zipped({"a": torch.zeros(9)}, times=2),
    "two zips": zipped({"a": torch.zeros(9)}) + zipped({"a": torch.ones(9)}),  # readers differ in which they mean
    "expanded": saved({"a": torch.zeros(1).expand(10**12)}),
    "strided": saved({"a": torch.zeros(1).as_strided((2**20, 2**20), (0, 0))}),
    "tar with pipes": tar_with_pipe(),
    "itself": saved(changed({"a": torch.zeros(1)}, [("itself", 0, 0)])),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_file_that_declares_more_than_it_holds_is_refused_at_once(kind, tmp_path):
    path = tmp_path / "bomb.pth"
    path.write_bytes(BOMBS[kind])
    found = outcome(checkpoint.read_state, path)
    assert isinstance(found, Refused) and "bomb.pth" in found


@pytest.mark.parametrize(
    "name, shape",
    [("classifier.weight", (10**9, 0)), ("classifier.weight", ()), ("backbone.camera_embedding", (10**9, 0))],
)
def test_a_checkpoint_that_declares_a_billion_classes_is_not_built(name, shape, states, tmp_path):
    torch.save({**states["dpm"], name: torch.zeros(shape)}, tmp_path / "last.pth.tar")
    (tmp_path / "settings.yaml").write_text("model: {name: dpm_vit_tiny}\nloss: {name: dpm}\n")
    found = outcome(open_trained, tmp_path / "last.pth.tar", "cpu", tmp_path / "settings.yaml")
    assert isinstance(found, Refused) and f"tensor '{name}'" in found and "has shape" in found


def test_the_tensors_of_a_weight_file_may_be_of_any_float_type(model, states, tmp_path, capsys):
    path = tmp_path / "half.safetensors"
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        state = {key: value.to(dtype) if value.is_floating_point() else value for key, value in states["dpm"].items()}
        safetensors.torch.save_file(state, path)
        assert not load_weights(model, path).missing
