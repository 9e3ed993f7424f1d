"""The environment of the training job: it has every package that the training code imports."""

import ast
import sys

import yaml
from training_run import TRAINING

# Packages whose name differs from that of their module.
PACKAGE_NAMES = {"mlflow": "mlflow-skinny", "yaml": "pyyaml"}
# Packages that a listed package requires, so that pip installs them too.
REQUIRED_BY = {
    "huggingface_hub": "transformers",
    "tokenizers": "transformers",
    "psutil": "accelerate",
    "safetensors": "transformers",
}


def test_every_imported_package_is_in_the_environment():
    environment = yaml.safe_load((TRAINING / "conda.yaml").read_text(encoding="utf-8"))
    requirements = environment["dependencies"][-1]["pip"]
    listed = {requirement.partition("==")[0] for requirement in requirements}
    own_modules = {path.stem for path in TRAINING.glob("*.py")}
    for module in imported_modules() - own_modules - sys.stdlib_module_names:
        package = REQUIRED_BY.get(module) or PACKAGE_NAMES.get(module, module)
        assert package in listed, f"train.py imports {module}"


def imported_modules() -> set[str]:
    """Return the top-level names of all imports in the training code."""
    names = set()
    for path in TRAINING.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add((node.module or "").partition(".")[0])
    return names
