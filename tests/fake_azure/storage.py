"""Blob storage: Azurite, Microsoft's emulator, with one account for all workspaces."""

import base64
import contextlib
import os
import re
import secrets
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobServiceClient, generate_container_sas

ML = "Microsoft.MachineLearningServices/workspaces"
ACCOUNT = "fakeazurestore"
AZURITE = Path(__file__).parent / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
OPTIONS = "--blobHost 127.0.0.1 --blobPort 0 --inMemoryPersistence --skipApiVersionCheck --silent"
OPTIONS += " --oauth basic"  # promptflow's downloader signs in with a token
DATASTORES = {"workspaceblobstore": "azureml-blobstore", "workspaceartifactstore": "azureml"}


class Storage:
    """A running Azurite. Its certificate file contains the key too."""

    def __init__(self, certificate, authority):
        if not AZURITE.is_file():
            raise FileNotFoundError("Azurite is missing: npm ci --prefix tests/fake_azure")
        self.key = base64.b64encode(secrets.token_bytes(64)).decode()
        tls = ["--cert", str(certificate), "--key", str(certificate)]
        self.process = subprocess.Popen(
            ["node", str(AZURITE), "--disableTelemetry", *OPTIONS.split(), *tls],
            env=os.environ | {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{self.key}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        output, listening = "", None
        while not listening:
            line = self.process.stdout.readline()
            output += line
            listening = re.search(r"successfully listen\w* \w+ \S+?:(\d+)", line)
            if not line:
                self.close()
                raise RuntimeError(f"Azurite did not start: {output}")
        self.port = int(listening.group(1))
        self._client = BlobServiceClient(
            f"https://127.0.0.1:{self.port}/{ACCOUNT}",
            credential={"account_name": ACCOUNT, "account_key": self.key},
            connection_verify=str(authority),
            use_env_settings=False,  # do not use the product's proxy
        )

    def close(self):
        self.process.terminate()
        self.process.wait(10)
        self.process.stdout.close()

    def create(self, container):
        with contextlib.suppress(ResourceExistsError):
            self._client.create_container(container)

    def clear(self):
        for container in self._client.list_containers():
            self._client.delete_container(container)

    def put(self, container, name, content):
        self._client.get_blob_client(container, name).upload_blob(content, overwrite=True)

    def put_folder(self, container, prefix, folder):
        for file in [path for path in sorted(folder.rglob("*")) if path.is_file()]:
            name = f"{prefix.rstrip('/')}/{file.relative_to(folder).as_posix()}"
            self.put(container, name, file.read_bytes())

    def names(self, container, prefix):
        """Return the blob of that name, or the blobs below it."""
        prefix, client = prefix.rstrip("/"), self._client.get_container_client(container)
        names = client.list_blob_names(name_starts_with=prefix)
        return [name for name in names if name == prefix or name.startswith(prefix + "/")]

    def fetch(self, container, prefix, target):
        """Copy a blob to `target`, or a folder of blobs below it; return whether there was any."""
        names = self.names(container, prefix)
        for name in names:
            file = target / name[len(prefix.rstrip("/")) :].lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            blob = self._client.get_blob_client(container, name)
            file.write_bytes(blob.download_blob().readall())
        return bool(names)

    def sas(self, container):
        """Return a token with all permissions on the container."""
        until = datetime.now(timezone.utc) + timedelta(hours=8)
        options = {"account_key": self.key, "permission": "racwdl", "expiry": until}
        return generate_container_sas(ACCOUNT, container, **options)


def container_of(workspace, datastore="workspaceblobstore"):
    """Return the container of a workspace's datastore."""
    return f"{DATASTORES[datastore]}-{workspace.lower().replace('_', '-')}"


def url(container, path=""):
    return f"https://{ACCOUNT}.blob.core.windows.net/{container}/{path}".rstrip("/")
