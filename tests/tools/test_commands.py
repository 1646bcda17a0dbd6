"""dpm, and python -m dpm_plugin: words for what tools/ does, and what each of them says of a mistake."""

import importlib
import json
import os
from pathlib import Path

import pytest

from dpm_plugin import __main__, commands
from dpm_plugin.commands import COMMANDS, train
from dpm_plugin.config import load_config
from dpm_plugin.utils.place import CONFIGS
from helpers.readme_commands import FILES
from helpers.runs import SETTINGS, finished_run, untrained_run
from helpers.scripts import TOOLS


def exit_of(main, *argv):
    """The exit code, by a return or by argparse."""
    try:
        return main([str(word) for word in argv])
    except SystemExit as stop:
        return stop.code


def error_of(main, capsys, *argv):
    """The one line on stderr of a command that must end with exit code 2."""
    assert exit_of(main, *argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


@pytest.mark.parametrize("word", [word for word in COMMANDS if word != "eval"])
def test_each_word_is_the_code_of_a_file_of_tools(word):
    name = word.replace("-", "_")
    tool = importlib.import_module(FILES.get(word, name))
    assert Path(tool.__file__).parent == TOOLS
    assert tool.main is importlib.import_module(f"dpm_plugin.commands.{name}").main


def test_every_command_has_a_word_and_explains_itself_under_it(capsys):
    files = {path.stem.replace("_", "-") for path in Path(commands.__file__).parent.glob("*.py")}
    assert files - {"--init--", "dispatch"} == set(COMMANDS)
    for word in COMMANDS:
        assert exit_of(commands.main, word, "--help") == 0
        assert capsys.readouterr().out.startswith(f"usage: dpm {word} ")
    assert exit_of(commands.main, "--help") == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {word} " in shown for word in COMMANDS)


@pytest.mark.parametrize("main", [commands.main, __main__.main])
def test_an_unknown_word_is_one_line_that_names_the_nearest(main, capsys):
    assert "unknown command 'trian'; did you mean 'train'?" in error_of(main, capsys, "trian", "--root", "x")
    assert "Known: train, eval, check" in error_of(main, capsys, "prepare_occduke")
    assert "COMMAND" in error_of(main, capsys)
    assert "--foo" in error_of(main, capsys, "--foo", "train")


def test_the_versions_are_those_of_the_packages_that_are_used(capsys):
    assert exit_of(commands.main, "--version") == 0
    shown = capsys.readouterr().out
    assert shown.count("\n") == 1
    for name in ("torch", "timm", "torchreid"):
        assert f", {name} {importlib.metadata.version(name)}" in shown
    assert shown.startswith(f"dpm-torchreid {commands.dispatch.__version__},")


def test_a_word_that_is_a_file_or_ends_in_py_is_a_script(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ran = []
    monkeypatch.setattr(__main__.script, "run", lambda script, args: ran.append((script, *args)))
    Path("train").write_text("")
    Path("check").mkdir()
    assert __main__.main(["train", "--root", "x"]) == 0 and __main__.main(["gone.py"]) == 0
    assert ran == [("train", "--root", "x"), ("gone.py",)]
    assert "NAME_OR_PATH" in error_of(__main__.main, capsys, "check")  # a folder is no script


# ---- configurations by name ----


def test_a_shipped_configuration_is_found_by_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in CONFIGS.rglob("*.yaml"):
        name = path.relative_to(CONFIGS).as_posix()
        assert load_config(name) == load_config(name.removesuffix(".yaml")) == load_config(path)


def test_a_file_of_that_name_in_the_current_folder_wins_and_a_folder_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("dpm_occduke").mkdir()
    assert load_config("dpm_occduke").train.max_epoch == 150
    Path("dpm_occduke.yaml").write_text("train: {max_epoch: 7}")
    assert load_config("dpm_occduke.yaml").train.max_epoch == 7
    assert load_config("dpm_occduke").train.max_epoch == 150


@pytest.mark.parametrize(
    "name, near",
    [
        ("dpm_occduk", "is 'dpm_occduke'"),
        ("released/dpm_occducke.yaml", "is 'released/dpm_occduke'"),
        ("configs/dpm_synthetic.yaml", "is 'dpm_synthetic'"),
        ("xyz", "shipped are dpm_dukemtmc, "),
    ],
)
def test_an_unknown_configuration_is_one_line_that_names_the_nearest(tmp_path, monkeypatch, capsys, name, near):
    monkeypatch.chdir(tmp_path)
    error = error_of(train.main, capsys, "--config-file", name)
    assert f"'{name}' cannot be read: No such file or directory; " in error and near in error
    assert not os.listdir()


# ---- eval ----


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("eval")


@pytest.mark.slow
@pytest.mark.torchreid
@pytest.mark.parametrize("model", ["dpm_vit_tiny", "osnet_x0_25"])
def test_eval_of_a_run_finds_what_its_training_found(place, model, capsys):
    stock = {} if model.startswith("dpm") else dict(loss__name="softmax", train__lr_scheduler="cosine")
    run, *_ = finished_run(place / model, place / "data", model__name=model, **stock)
    trained = json.loads((run / "results.json").read_text())
    for source in (run, run / "model" / "last.pth.tar"):
        assert commands.main(["eval", str(source), "test.batch_size", "7"]) == 0, capsys.readouterr().err
        written = max((run / "evaluations").iterdir(), key=lambda path: path.stat().st_mtime_ns)
        found = json.loads((written / "results.json").read_text())
        assert found["run"]["config"]["test"]["evaluate"] and found["run"]["config"]["test"]["batch_size"] == 7
        entries = [content["datasets"]["synthetic_occluded"] for content in (found, trained)]
        assert entries[0]["rows"] == entries[1]["rows"]
    assert trained == json.loads((run / "results.json").read_text())


def test_eval_with_a_config_file_is_train_with_evaluate(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(train, "run", lambda config, processes: asked.append(config))
    argv = ["--config-file", "dpm_occduke", "--root", str(tmp_path), "model.load_weights", "zoo:occluded_duke"]
    assert commands.main(["eval", *argv]) == 0 and train.main([*argv, "test.evaluate", "True"]) == 0
    assert asked[0] == asked[1] and asked[0].test.evaluate


def test_eval_takes_the_checkpoint_and_the_data_that_are_asked_for(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(train, "run", lambda config, processes: asked.append(config))
    run, *_ = untrained_run(tmp_path / "run", train__overwrite=True)
    (run / "model" / "last.pth.tar").rename(run / "model" / "best.pth.tar")
    assert commands.main(["eval", str(run), "--checkpoint", "best", "--root", "elsewhere"]) == 0
    (config,) = asked
    assert config.model.resume == str(run / "model" / "best.pth.tar") and config.data.save_dir == str(run)
    assert config.data.root == "elsewhere" and config.test.evaluate and not config.train.overwrite
    assert config.vit.embed_dim == SETTINGS["vit.embed_dim"]


def test_a_mistake_of_eval_is_one_line(tmp_path, capsys):
    assert "'gone' does not exist; name a run's folder" in error_of(commands.main, capsys, "eval", "gone")
    assert "last.pth.tar' does not exist" in error_of(commands.main, capsys, "eval", tmp_path)
    both = error_of(commands.main, capsys, "eval", tmp_path, "--config-file", "dpm_occduke")
    assert "--config-file has no place" in both
    assert "model.load_weights" in error_of(commands.main, capsys, "eval", "--config-file", "dpm_synthetic")
