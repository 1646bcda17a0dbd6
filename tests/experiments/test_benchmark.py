"""The benchmark's frame: every part runs, and its figures are those of the calls."""

import json
import subprocess
import sys
import time
from pathlib import Path

import benchmark
import pytest
import torch
from PIL import Image

from dpm_plugin import MaskedArcFace
from experiments.benchmark.report import compared, format_comparison
from experiments.benchmark.timing import ratio, take_turns
from experiments.oracles import plain_head

pytestmark = pytest.mark.slow

TOOL = Path(__file__).resolve().parents[2] / "tools" / "benchmark.py"


@pytest.mark.parametrize(
    "part",
    [  # what ddp starts, test_torchrun.py starts too
        pytest.param(part, marks=[pytest.mark.fuzz] * (part == "ddp")) for part in benchmark.PARTS
    ],
)
def test_every_part_runs_at_a_tiny_size_and_writes_its_figures(part, tmp_path, capsys):
    path = tmp_path / "figures.json"
    assert benchmark.main([part, "--tiny", "--rounds", "2", "--device", "cpu", "--json", str(path)]) == 0
    shown, written = capsys.readouterr().out, json.loads(path.read_text())
    assert written["machine"]["torch"] == torch.__version__
    assert {each["part"] for each in written["comparisons"]} == {part}
    for each in written["comparisons"]:
        assert each["case"] in shown
        assert each["difference"] is None or each["difference"] < 1e-4


@pytest.mark.parametrize("part, rows", [("head", 1), ("search", 1), ("retrieval", 0)])
def test_time_and_memory_against_size_are_drawn_where_a_part_grows(part, rows, tmp_path, capsys):
    path = tmp_path / "growth.png"
    code = benchmark.main([part, "--tiny", "--rounds", "1", "--device", "cpu", "--plot", str(path)])
    if rows:
        with Image.open(path) as plot:
            assert plot.format == "PNG" and plot.size == (1000, 400 * rows)
    else:
        assert "several sizes" in capsys.readouterr().err and not path.exists()
    assert code == (0 if rows else 2)


def test_contenders_take_turns_and_the_ratio_is_of_their_rounds():
    calls = []

    def contender(name, seconds):
        def call():
            calls.append(name)
            time.sleep(seconds)
            return name

        return call

    timings = take_turns({"plain": contender("plain", 0.02), "ours": contender("ours", 0.002)}, rounds=3, warmup=1)
    assert calls == ["plain", "ours"] * 4
    assert timings["ours"].result == "ours" and len(timings["ours"].seconds) == 3
    expected = sorted(a / b for a, b in zip(timings["plain"].seconds, timings["ours"].seconds))[1]
    assert ratio(timings, "plain", "ours") == expected


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory restarts on Linux only")
def test_memory_is_the_contenders_own():
    # In a fresh process: in this one, memory that earlier tests left with the allocator is used again unseen.
    code = """if True:
        import sys, types
        sys.path[:0] = [".", "tools"]
        package = sys.modules["dpm_plugin"] = types.ModuleType("dpm_plugin")  # without all that it imports
        package.__path__ = ["dpm_plugin"]
        import torch
        from experiments.benchmark.timing import take_turns
        use = lambda megabytes: lambda: torch.ones(megabytes * 250_000).sum().item()  # 4 bytes each
        timings = take_turns({"large": use(200), "small": use(50)}, rounds=1, warmup=0)
        print(timings["large"].memory_mb, timings["small"].memory_mb)
    """
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=TOOL.parents[1]
    )
    large, small = map(float, shown.stdout.split()[-2:])
    assert large == pytest.approx(200, abs=15) and small == pytest.approx(50, abs=15)


def test_a_line_begins_with_the_ratio():
    timings = take_turns({"plain": lambda: 1, "ours": lambda: 1}, rounds=1)
    timings["plain"].seconds, timings["ours"].seconds = [3.0], [1.5]
    assert format_comparison(compared("head", "a case", timings)).split()[0] == "2.00x"


def test_the_plain_head_is_the_same_mathematics():
    generator = torch.Generator().manual_seed(3)
    x, w, m = (
        torch.randn(6, 9, generator=generator),
        torch.randn(5, 9, generator=generator),
        torch.rand(6, 9, generator=generator),
    )
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    x[0] = -w[0]  # an angle that the margin would push beyond pi
    assert torch.allclose(plain_head.masked_arcface(x, w, m, labels), MaskedArcFace()(x, w, m, labels), atol=1e-4)


@pytest.mark.parametrize(
    "argv, said",
    [
        (["everything"], "invalid choice"),
        (["head", "--rounds", "0"], "at least 1"),
        (["head", "--device", "abacus"], "abacus"),
        (["head", "--tiny", "--json", "/proc/no/file"], "cannot be written"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(argv, said, capsys):
    try:
        code = benchmark.main(argv)
    except SystemExit as stopped:
        code = stopped.code
    error = capsys.readouterr().err
    assert code == 2 and said in error and error.count("\n") == 1
