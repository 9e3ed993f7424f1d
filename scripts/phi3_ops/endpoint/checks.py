"""What the endpoint refuses before it starts anything: a missing key or model, and wrong traffic."""

from __future__ import annotations

from collections.abc import Sequence

from ..network import is_loopback
from .container import Deployment, EndpointError


def check_key(key: str, host: str = "127.0.0.1") -> None:
    """Raise EndpointError if the key is empty.

    Args:
        key: the key that clients must send.
        host: the address to listen on.
    """
    if key and key.strip():
        return
    if is_loopback(host):
        raise EndpointError("the endpoint's key is empty", "Give it a key.")
    what = f"refusing to listen on {host} without a key: other machines can reach it"
    raise EndpointError(what, "Give the endpoint a key.")


def check_traffic(deployments: Sequence[Deployment]) -> None:
    """Raise EndpointError if there is no deployment, a name occurs twice, or the weights are wrong.

    Azure accepts weights whose sum is 100, or 0 for no traffic.
    """
    names = [deployment.name for deployment in deployments]
    duplicate = next((name for name in names if names.count(name) > 1), None)
    if duplicate:
        raise EndpointError(f"two deployments have the name {duplicate}")
    total = sum(deployment.weight for deployment in deployments)
    if not names or total not in (0, 100):
        raise EndpointError(
            f"the traffic of the deployments is {total} % in total, not 100 % (or 0 %)"
        )


def check_models(deployments: Sequence[Deployment]) -> None:
    """Raise EndpointError if a model folder does not exist, cannot be read or is empty.

    The scoring script checks the files in it when it loads the model.
    """
    for model in (deployment.model for deployment in deployments):
        try:
            if not model.is_dir():
                what = f"{model} is not a folder" if model.exists() else f"{model} does not exist"
            elif next(model.iterdir(), None) is None:
                what = f"{model} is empty"
            else:
                continue
        except OSError as error:
            what = f"{model} cannot be read: {error.strerror}"
        fix = "Make one with `phi3 finetune --local`, or give --model smollm2 or another folder."
        raise EndpointError(f"the model folder {what}", fix)
