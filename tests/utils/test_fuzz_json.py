"""JSON files from strangers: read as they are, or refused in one line, never anything else."""

import copy
import json
import os
from types import SimpleNamespace

import pytest
from hypothesis import strategies as st

from dpm_plugin.apps.check_data.listing import list_folder
from dpm_plugin.apps.image_index import searching
from dpm_plugin.apps.image_index.indexing import check_model
from dpm_plugin.apps.image_index.store import read_index
from dpm_plugin.config import load_config
from dpm_plugin.data.synthetic.generate import generate, read_visibility
from dpm_plugin.data.synthetic.spec import SyntheticSpec
from dpm_plugin.evaluation.metric import MatchingCounts
from dpm_plugin.evaluation.results import write_results
from dpm_plugin.inference.open_run import open_run
from helpers.fuzz import Refused, fuzz, must_end, outcome, sizes  # noqa: F401, a fixture
from helpers.image_index import MODEL, draw_images, update
from helpers.runs import untrained_run

pytestmark = pytest.mark.filterwarnings("ignore:.*does not hold results")
SMALL = SyntheticSpec(
    train_ids=1, train_images=1, test_ids=1, query_images=1, gallery_images=1, distractor_ids=0, height=32, width=16
)
ROW = {"rank1": 0.5, "mAP": 0.5, "cmc": [0.5]}
RESULT = SimpleNamespace(
    rows={"a": SimpleNamespace(**ROW)}, headline="a", rank1=0.5, mAP=0.5, ranks=[1], unmatched=[], phases={}, masks=None
)
RESULT.counts = MatchingCounts(*[1] * len(MatchingCounts._fields))
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("\0")
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner))
WHOLE = [b"", b"null", b"[]", b"5", b"\xff\xfe", b"9" * 6000, b"NaN", b"[" * 100_000, b'{"a":' * 100_000, b"{"]


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    """Name -> (file, what reads it)."""
    top = tmp_path_factory.mktemp("json")
    draw_images(top / "images", 2)
    update(top / "images", top / "index")
    run, _, _ = untrained_run(top / "run")
    drawn = generate(SMALL, top, verbose=False)
    image = next((drawn / "query").glob("*.jpg"))

    def index():
        found = read_index(top / "index")
        check_model(found, MODEL)
        return found

    def write():
        (top / "results.json").write_bytes((run / "results.json").read_bytes())
        write_results(top / "results.json", "market1501", RESULT, epoch=2)

    def share():
        searching._visibility.cache_clear()
        return searching.hidden_share(image)

    return {
        "index": (top / "index" / "index.json", index),
        "run": (run / "results.json", lambda: open_run(run)),
        "results": (run / "results.json", write),
        "visibility": (drawn / "visibility.json", lambda: read_visibility(drawn)),
        "share": (drawn / "visibility.json", share),
        "spec": (drawn / "spec.json", lambda: generate(SMALL, top, verbose=False)),
        "checked": (drawn / "spec.json", lambda: list_folder(drawn)),
    }


def tampered(content, change):
    """The bytes of the JSON ``content`` with one value at any depth replaced or taken away."""
    steps, value, is_gone = change
    content = copy.deepcopy(content)
    place, key = {"": content}, ""
    for step in steps:
        inner = place[key]
        if not (isinstance(inner, (dict, list)) and inner):
            break
        place, key = inner, (sorted(inner) if isinstance(inner, dict) else range(len(inner)))[step % len(inner)]
    if key == "":
        return json.dumps(value).encode()
    if is_gone:
        del place[key]
    else:
        place[key] = value
    return json.dumps(content).encode()


NAMES = ["index", "run", "results", "visibility", "share", "spec", "checked"]
CHANGES = st.tuples(st.lists(st.integers(0, 60), min_size=1, max_size=5), VALUES, st.booleans())


@pytest.mark.parametrize("name", NAMES)
@sizes(25, 900)
def test_a_tampered_file_is_read_or_refused_in_one_line(fuzz, readers, name, capsys):  # noqa: F811
    path, read = readers[name]
    intact = path.read_bytes()

    def check(case):
        path.write_bytes(case if isinstance(case, bytes) else tampered(json.loads(intact), case))
        found = outcome(read)
        assert not isinstance(found, Refused) or "\n" not in found, found
        capsys.readouterr()

    try:
        fuzz(CHANGES | st.sampled_from(WHOLE) | st.binary(max_size=30), check)
    finally:
        path.write_bytes(intact)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes (Windows)")
@pytest.mark.parametrize("name", NAMES)
def test_a_pipe_in_its_place_is_refused_at_once(readers, name, capsys):
    path, read = readers[name]
    intact = path.read_bytes()
    if name == "results":  # read from a copy: the test above
        path, read = path.with_name("other.json"), lambda: write_results(path, "market1501", RESULT, epoch=2)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    try:
        with must_end():
            outcome(read)
    finally:
        path.unlink()
        if name != "results":
            path.write_bytes(intact)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes (Windows)")
def test_a_pipe_as_config_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "settings.yaml")
    with must_end():
        assert "it is no regular file" in outcome(load_config, tmp_path / "settings.yaml")
