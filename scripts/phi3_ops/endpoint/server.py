"""The local endpoint: the documented front end of Azure ML, in front of the deployments' scoring script.

This process is the front end (`front`). Each deployment's model is loaded in another process
(`container`, `worker`), like in a container on Azure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ..network import base_url, bind_socket
from .checks import check_key, check_models, check_traffic
from .container import INSTALL, Container, Deployment, EndpointError

if TYPE_CHECKING:
    from .fault_rules import Rule


def serve_models(
    deployments: Sequence[Deployment],
    *,
    host: str = "127.0.0.1",
    port: int = 8710,
    key: str,
    faults: Sequence[Rule] | None = None,
    loading: Callable[[], None] = lambda: None,
    ready: Callable[[str, Mapping[str, str]], None] | None = None,
) -> None:
    """Serve models until SIGTERM or SIGINT, finish the requests in flight, and return.

    After the first signal the endpoint accepts no connections, and requests in flight have
    `http_server.GRACE_S` seconds. A second signal ends them at once.

    Args:
        deployments: the models and their traffic.
        host: address to listen on; one that other machines can reach needs a key.
        port: port to listen on; 0 picks a free one.
        key: key that clients send as `Bearer`.
        faults: as for `create_app`.
        loading: called once, when the settings are checked and the models begin to load.
        ready: called once, in a thread, when the endpoint answers, with its base URL
            (`http://127.0.0.1:8710`) and what runs the model of each deployment, by the deployment's
            name. If it raises, the endpoint stops, and the exception is raised here.

    Raises:
        EndpointError: the key, the traffic or a model is not valid, or a package is missing.
        OpsError: the address or the port cannot be used.
    """
    check_key(key, host)
    check_traffic(deployments)
    check_models(deployments)  # first: a port in use must not hide a wrong model
    sock = bind_socket(host, port)
    containers = [Container(deployment) for deployment in deployments]
    try:
        try:
            from .app import create_app
            from .http_server import run_server
        except ImportError as error:
            raise EndpointError(f"the package {error.name} is not installed", INSTALL) from error
        app = create_app(containers, key=key, faults=faults)
        loading()
        for container in containers:
            container.start()
        for container in containers:
            container.wait()
        runtimes = {container.deployment.name: container.runtime for container in containers}

        def on_ready(url: str) -> None:
            if ready is not None:
                ready(url, runtimes)

        max_in_flight = sum(deployment.max_in_flight for deployment in deployments)
        run_server(app, sock, base_url(host, sock), on_ready, max_in_flight=max_in_flight)
    finally:
        for container in containers:
            container.close()
        sock.close()
