"""Nothing read is executed and nothing comes by plain HTTP: over the source's syntax, and tried with payloads."""

import ast
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from dpm_plugin import build, torchreid_host
from dpm_plugin.config import load_config
from dpm_plugin.evaluation.search import Gallery
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.weights.files import read_checkpoint
from dpm_plugin.weights.load import load_pretrained, load_weights
from helpers.data import write_occluded_duke
from helpers.model import tiny_model
from helpers.payload import Payload

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*(ROOT / "dpm_plugin").rglob("*.py"), *(ROOT / "tools").rglob("*.py"), ROOT / "setup.py"])

# ---- the source ----

UNSAFE_MODULES = set("pickle cPickle _pickle dill cloudpickle joblib shelve marshal telnetlib ftplib".split())
UNSAFE_CALLS = set(
    """
    os.system os.popen yaml.load yaml.load_all yaml.full_load yaml.unsafe_load yaml.Loader yaml.UnsafeLoader
    yaml.FullLoader urllib.request.urlretrieve torch.jit.load torch.hub.load torch.hub.load_state_dict_from_url
    pd.read_pickle tempfile.mktemp
    """.split()
)
UNSAFE_METHODS = {"extractall", "extract", "load_url", "merge_from_file"}
ALLOWED = {
    ("script.py", "exec"),  # python -m dpm_plugin SCRIPT runs the user's own script
    ("torchreid_host.py", "'http://"),  # looked for, to refuse it
}


def dotted(node):
    """``a.b.c`` of a name or attribute, else ""."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}" if dotted(node.value) else node.attr
    return node.id if isinstance(node, ast.Name) else ""


def keyword(call, name):
    """The constant value of a keyword of a call; None where it is absent or computed."""
    constants = {each.arg: each.value.value for each in call.keywords if isinstance(each.value, ast.Constant)}
    return constants.get(name)


def offences(text):
    """Everything in Python source that would execute what a file holds, or fetch by plain HTTP."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in UNSAFE_MODULES)
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in names if name in UNSAFE_CALLS or name.partition(".")[0] in UNSAFE_MODULES)
            yield from (name for name in names if name in ("torch.load", "numpy.load"))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "http://" in node.value:
            yield node.value[:60]
        elif isinstance(node, ast.Attribute) and dotted(node) in UNSAFE_CALLS:
            yield dotted(node)
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            is_builtin = isinstance(node.func, ast.Name) and name in ("eval", "exec")  # model.eval() is another
            is_method = isinstance(node.func, ast.Attribute) or name != "extract"  # which is a function of ours
            if is_builtin or (is_method and name.rpartition(".")[2] in UNSAFE_METHODS):
                yield name
            if name == "torch.load" and keyword(node, "weights_only") is not True:
                yield name
            if name in ("np.load", "numpy.load") and keyword(node, "allow_pickle") is not False:
                yield name
            if keyword(node, "shell") is True or keyword(node, "trust_remote_code") is True:
                yield f"{name}(shell)"
            if keyword(node, "verify") is False:
                yield f"{name}(verify=False)"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_of_the_source_executes_what_it_reads_or_fetches_by_plain_http(path):
    found = [name for name in offences(path.read_text(encoding="utf-8")) if (path.name, name) not in ALLOWED]
    assert found == []


UNSAFE = """
import pickle
from pickle import loads
torch.load('a')
torch.load('a', weights_only=False)
torch.load('a', weights_only=flag)
from torch import load
yaml.load(x, yaml.Loader)
yaml.unsafe_load(x)
yaml.load(x, Loader=yaml.SafeLoader)
np.load('a.npy')
np.load('a', allow_pickle=True)
eval('1')
tar.extractall('a')
zipfile.ZipFile('a').extract('b')
os.system('ls')
subprocess.run('ls', shell=True)
URL = 'http://example.org'
import urllib.request; urllib.request.urlretrieve(u)
from os import system
model_zoo.load_url(u)
config.merge_from_file('a.py')
"""


@pytest.mark.parametrize("text", UNSAFE.strip().splitlines())
def test_the_search_for_such_code_finds_it(text):
    assert list(offences(text))


# ---- payloads ----


def numpy_objects(content, path):
    with open(path, "wb") as file:
        np.save(file, np.array([content], dtype=object), allow_pickle=True)


SAVERS = {
    "torch zip": torch.save,
    "old torch": lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
    "pickle": lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2)),
    "numpy objects": numpy_objects,
    "script module": lambda content, path: torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), path),
}


@pytest.fixture(scope="module")
def model():
    return tiny_model(depth=2)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("save", SAVERS.values(), ids=SAVERS)
@pytest.mark.parametrize("name", ["model.pth", "model.safetensors", "model.npz"])
def test_no_reader_of_weights_or_galleries_executes_a_payload(save, name, model, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # which torch heeds where nothing is said
    mark, path = tmp_path / "executed", tmp_path / name
    save({"state_dict": {"a": torch.zeros(1)}, "epoch": 1, "x": Payload(mark)}, path)
    for read in (
        read_checkpoint,
        lambda file: load_weights(model, file),
        Gallery.open,
        lambda file: load_pretrained(model.backbone, file),
        lambda file: torchreid_host.utils.load_checkpoint(str(file)),
        lambda file: torchreid_host.utils.load_pretrained_weights(model, str(file)),
        lambda file: torchreid_host.utils.resume_from_checkpoint(str(file), model),
    ):
        with pytest.raises(DPMError) as caught:
            read(path)
        assert name in str(caught.value) or read == Gallery.open
    assert not mark.exists()


def test_a_yaml_tag_that_would_call_a_function_does_not(tmp_path):
    path = tmp_path / "a.yaml"
    call = f"!!python/object/apply:os.mkdir ['{tmp_path}/executed']"
    path.write_text(f"data: {{root: {call}}}\n", encoding="utf-8")
    for given in (dict(file=path), dict(opts=["data.sources", call])):
        with pytest.raises(DPMError):
            load_config(**given)
    assert not (tmp_path / "executed").exists()


# ---- the network ----


@pytest.fixture
def no_network(monkeypatch):
    for name in ("urllib.request.urlretrieve", "urllib.request.urlopen", "gdown.download", "os.system"):
        monkeypatch.setattr(name, lambda *a, **k: pytest.fail("it tried to download"))


SETS = {"image": "market1501 viper grid ilids", "video": "ilidsvid dukemtmcvidreid mars prid2011"}


@pytest.mark.parametrize("kind, name", [(kind, name) for kind, names in SETS.items() for name in names.split()])
def test_torchreids_own_data_managers_download_nothing(kind, name, no_network, tmp_path):
    manager = {"image": torchreid_host.data.ImageDataManager, "video": torchreid_host.data.VideoDataManager}[kind]
    with pytest.raises(DPMError, match="nothing is downloaded"):
        manager(root=str(tmp_path), sources=name, use_gpu=False)
    overrides = {"data.type": kind, "data.sources": [name], "data.targets": [name], "data.root": str(tmp_path)}
    config = load_config(overrides=overrides)
    with pytest.raises(DPMError, match="nothing was downloaded"):
        build.build_datamanager(config)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:occluded_duke")
def test_weights_that_torchreid_fetches_by_plain_http_are_refused(no_network, tmp_path):
    write_occluded_duke(tmp_path)
    words = "data.sources [occluded_duke] data.targets [occluded_duke] train.batch_size 4 data.workers 0"
    words += " test.ranks [1] model.name xception use_gpu False"
    config = load_config(opts=words.split(), overrides={"data.root": str(tmp_path)})
    data = build.build_datamanager(config)
    with pytest.raises(DPMError, match="'xception' by plain HTTP"):
        build.build_model(config, data)
    by_http = {name for name in torchreid_host.model_names() if torchreid_host.weights_by_plain_http(name)}
    assert {"inceptionresnetv2", "inceptionv4", "se_resnet50", "xception"} < by_http
    assert not by_http & {"dpm_vit", "resnet50", "osnet_x1_0", "mobilenetv2_x1_0"}
