"""The push of a complete result to the hub."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from console import print_line
from inputs import Recipe, TrainError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TOKEN = "HF_TOKEN"  # noqa: S105 - the variable's name


def check_push(recipe: Recipe, path: Path, variables: Mapping[str, str] = os.environ) -> None:
    """Check that a run that is pushed at its end has a token.

    Raises:
        TrainError: the token is missing.
    """
    if recipe.push_to_hub and not variables.get(TOKEN):
        problem = f"the recipe has `push_to_hub`, and the variable {TOKEN} is not set"
        fix = f"set {TOKEN} to a token that may write, or remove `push_to_hub`"
        raise TrainError(problem, path, fix)


def push(recipe: Recipe, output_dir: Path, api: HfApi | None = None) -> None:
    """Push the complete result to the hub in one commit: `model/`, or `adapter/` without a merge.

    Source: "Upload files to the Hub" of huggingface_hub's documentation.

    Args:
        recipe: recipe of the run.
        output_dir: folder of the complete result.
        api: the hub's client; None creates one with the token of the environment.

    Raises:
        TrainError: the hub refused it. The error does not quote the hub's answer, and so no token.
    """
    if not recipe.push_to_hub or recipe.hub_model_id is None:
        return
    folder = output_dir / ("model" if recipe.merge else "adapter")
    try:
        if api is None:
            from huggingface_hub import HfApi

            api = HfApi(token=os.environ.get(TOKEN))
        is_public = _upload(recipe, recipe.hub_model_id, folder, api)
    except Exception as error:
        problem = f"the result is complete, but it was not pushed to {recipe.hub_model_id}"
        fix = f"push it with `hf upload {recipe.hub_model_id} {folder}` ({_reason(error)})"
        raise TrainError(problem, folder, fix) from None
    if is_public:
        problem = f"{recipe.hub_model_id} is public, so nothing was pushed to it"
        fix = "make it private on the hub, or set `hub_private: false`"
        raise TrainError(problem, folder, f"{fix}; the result is complete")
    print_line(f"pushed {folder} to {recipe.hub_model_id}")


def _upload(recipe: Recipe, repository: str, folder: Path, api: Any) -> bool:
    """Upload a folder and return False; return True if the repository is public by mistake."""
    api.create_repo(repository, private=recipe.hub_private, exist_ok=True)
    if recipe.hub_private and not api.repo_info(repository).private:
        return True
    api.upload_folder(
        repo_id=repository,
        folder_path=folder,
        commit_message=f"Fine-tuned with the recipe {recipe.name}",
    )
    return False


def _reason(error: Exception) -> str:
    """Return an error's type, and the status of the hub's answer if there is one."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"{type(error).__name__}{f' {status}' if status else ''}"
