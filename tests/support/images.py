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
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "find-links")
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

    def make_base(self, packages: str) -> None:
        """Make the base image of Debian's packages, whose names are separated by commas."""
        root = self.folder / "base"
        command = ["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", root]
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
        network = ["--pull-never", "--network", "host"]
        return self.buildah("build", "-q", *network, *self.mounts(), context).splitlines()[-1]

    def mounts(self) -> list[str]:
        """Return the options that mount what pip needs: settings, folders with packages, certificates."""
        config = self.folder / "pip.conf"
        values = {name: _pip_setting(name).split() for name in PIP_SETTINGS}
        lines = [f"{name} = {' '.join(words)}" for name, words in values.items() if words]
        config.write_text("\n".join(["[global]", *lines, ""]))
        mounts = ["-v", f"{config}:/etc/pip.conf:ro"]
        for word in values["find-links"]:
            if Path(word).is_dir():
                mounts += ["-v", f"{word}:{word}:ro"]
        bundle = next((os.environ[name] for name in CERTIFICATES if os.environ.get(name)), None)
        if bundle:
            mounts += ["-v", f"{bundle}:/etc/ssl/certs/ca-certificates.crt:ro"]
        return mounts

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


def _pip_setting(name: str) -> str:
    if value := os.environ.get("PIP_" + name.upper().replace("-", "_")):
        return value
    command = [sys.executable, "-m", "pip", "config", "get", f"global.{name}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.stdout if done.returncode == 0 else ""


@contextmanager
def store_with_base(folder: Path, packages: str) -> Iterator[Images]:
    """Make a store with the base image, and remove it. The test is skipped where that cannot be done."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing or not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip(f"needs root and {', '.join(missing or PROGRAMS)}")
    store = Images(folder)
    try:
        store.make_base(packages)
        yield store
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    """A store with the base image."""
    with store_with_base(tmp_path_factory.mktemp("images"), PACKAGES) as store:
        yield store
