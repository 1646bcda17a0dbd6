"""Write a trained model for other programs: ``dpm export RUN_OR_CHECKPOINT OUT.onnx|OUT.pt2``."""

from collections.abc import Sequence

from dpm_plugin.inference.export import INSTALL, NORMALIZATIONS, RESIZE, export, preparation
from dpm_plugin.inference.extractor import DPMExtractor
from dpm_plugin.inference.open_run import NAMED
from dpm_plugin.utils.command import Parser, exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, 2 for an error in one line, 130 when interrupted."""
    parser = Parser(prog="dpm export", description="Write a trained model as ONNX (.onnx) or torch.export (.pt2) file.")
    parser.add_argument("source", metavar="RUN_OR_CHECKPOINT", help="a run's data.save_dir, a checkpoint, or zoo:NAME")
    parser.add_argument("out", metavar="OUT", help="file to write; ends in .onnx or .pt2")
    parser.add_argument("--config-file", help="yaml file with the settings of a checkpoint that does not say them")
    parser.add_argument("--checkpoint", choices=tuple(NAMED), help="which one of a run's folder (default: last)")
    its = "how the program that will use the file normalises images (default: as this run does)"
    parser.add_argument("--normalize", choices=tuple(NORMALIZATIONS), help=its)
    parser.add_argument("--half", action="store_true", help="float16 weights: half the size; inputs stay float32")
    options = parser.parse_args(argv)

    def work() -> None:
        which, settings = options.checkpoint, options.config_file
        extractor = DPMExtractor(options.source, checkpoint=which, config_file=settings, device="cpu")
        done = export(extractor, options.out, options.normalize, options.half)
        size = ", ".join(map(str, extractor.image_size))
        outputs = ", ".join(f"{name} (B, {extractor.model.feature_dim})" for name in done.outputs)
        print(f"{options.out}: images (B, 3, {size}) -> {outputs}, {done.size / 1e6:.1f} MB")
        print(f"prepare an image: resize to {size} (height, width), {RESIZE}")
        print(f"  {preparation(extractor, options.normalize)}; float32")
        if done.difference is None:
            print(f"not compared with PyTorch: onnxruntime is not installed; {INSTALL}")
        else:
            print(f"largest difference from PyTorch: {done.difference:.1e}")

    return exit_code(work)
