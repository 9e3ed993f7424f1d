"""Images that are really built and run without a Docker daemon: buildah, on Debian's packages.

It needs root, and the programs buildah, crun and debootstrap. The base image stands for
`python:3.11-slim`: it has the same Python, and comes from the Debian mirror.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAMS = ("buildah", "crun", "debootstrap")
BASE = "docker.io/library/python:3.11-slim"
MICROSOFT_BASE = "mcr.microsoft.com/mirror/docker/library/python:3.11-slim"
PACKAGES = "python3,python3-pip,python3-venv,ca-certificates"
LIMIT_S = 1500
# Settings of pip that say where packages come from.
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host")
CERTIFICATES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


class Images:
    """A store of images in a folder.

    Args:
        folder: for everything that is made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.options = ["--root", folder / "root", "--runroot", folder / "run"]
        self.options += ["--storage-driver", "vfs"]

    def buildah(self, command: str, *words: object) -> str:
        """Run `buildah COMMAND …` and return its output."""
        done = subprocess.run(
            ["buildah", *map(str, self.options), command, *map(str, words)],
            env={**os.environ, "BUILDAH_ISOLATION": "chroot"},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout.strip()

    def make_base(self) -> None:
        """Make the base image."""
        root = self.folder / "base"
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", root]
        subprocess.run(command, check=True, capture_output=True, timeout=LIMIT_S)
        (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
        for marker in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
            marker.unlink()
        shutil.rmtree(root / "dev")  # a copy of /dev/zero would never end
        (root / "dev").mkdir()
        container = self.buildah("from", "scratch")
        self.buildah("copy", "-q", container, root, "/")
        self.buildah("commit", "-q", container, BASE)
        self.buildah("tag", BASE, MICROSOFT_BASE)
        self.buildah("rm", container)
        shutil.rmtree(root)

    def build(self, context: Path) -> str:
        """Build a folder with an unchanged Dockerfile; return the image's id.

        The settings of this machine's pip are mounted, so that the image does not contain them.
        """
        config = self.folder / "pip.conf"
        config.write_text(_pip_config())
        mounts = ["-v", f"{config}:/etc/pip.conf:ro"]
        bundle = next((os.environ[name] for name in CERTIFICATES if os.environ.get(name)), None)
        if bundle:
            mounts += ["-v", f"{bundle}:/etc/ssl/certs/ca-certificates.crt:ro"]
        network = ["--pull-never", "--network", "host"]
        return self.buildah("build", "-q", *network, *mounts, context).splitlines()[-1]

    def installed(self, image: str) -> str:
        """Return the list of the Python packages in an image."""
        container = self.buildah("from", "--pull-never", image)
        try:
            return self.buildah("run", container, "--", "python", "-m", "pip", "list")
        finally:
            self.buildah("rm", container)

    @contextmanager
    def running(self, image: str, command: str, env: Mapping[str, str]) -> Iterator[None]:
        """Run a command in a new container of an image, as its user `flow`."""
        container = self.buildah("from", "--pull-never", image)
        variables = [word for name, value in env.items() for word in ("-e", f"{name}={value}")]
        process = subprocess.Popen(
            ["buildah", *map(str, self.options), "run", "--network", "host", "--user", "flow"]
            + [*variables, container, "--", "sh", "-c", command],
            env={**os.environ, "BUILDAH_ISOLATION": "chroot"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(20)
            self.buildah("rm", container)


def _pip_config() -> str:
    lines = ["[global]"]
    for name in PIP_SETTINGS:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "config", "get", f"global.{name}"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode == 0:
            lines.append(f"{name} = {' '.join(done.stdout.split())}")
    return "\n".join([*lines, ""])


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    """A store with the base image. The test is skipped where images cannot be built."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing or not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip(f"needs root and {', '.join(missing or PROGRAMS)}")
    folder = tmp_path_factory.mktemp("images")
    store = Images(folder)
    try:
        store.make_base()
        yield store
    finally:
        shutil.rmtree(folder, ignore_errors=True)
