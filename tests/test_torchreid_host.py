"""Both torchreid layouts are the same to everything but one file."""
import re
import subprocess
import sys
from pathlib import Path

from dpm_plugin import torchreid_host

ROOT = Path(__file__).resolve().parents[1]


def test_the_suite_runs_on_the_layout_it_was_asked_for(torchreid_layout):
    module = torchreid_host.models.__name__
    if torchreid_layout == "upstream":
        assert module == "torchreid.models" and "torchreid_upstream_" in torchreid_host.models.__file__


def test_only_one_file_imports_torchreid():
    importing = re.compile(r"^\s*(import|from)\s+torchreid\b", re.MULTILINE)
    files = [path for path in (ROOT / "dpm_plugin").rglob("*.py") if importing.search(path.read_text())]
    assert files == [ROOT / "dpm_plugin" / "torchreid_host.py"]


def test_the_model_factory_builds_on_the_other_layout_too(tmp_path, torchreid_layout):
    """A quick look at upstream's layout in every run; ``--torchreid-layout upstream`` runs everything on it."""
    from conftest import rearrange_torchreid

    rearrange_torchreid(tmp_path)
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n"
        "import dpm_plugin, torchreid\n"
        "assert torchreid.models.__name__ == 'torchreid.models', torchreid.models.__name__\n"
        "model = torchreid.models.build_model('dpm_vit_tiny', 3, pretrained=False)\n"
        "assert type(model).__name__ == 'DPM' and torchreid.engine.ImageDPMEngine and torchreid.losses.DPMLoss\n"
        "assert torchreid.data.datasets.__image_datasets['occluded_duke']\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
