"""The files of assets: code, models, data, outputs of jobs, paths of datastores."""

import re

from .arm import hook
from .messages import Refused
from .storage import ML, container_of

DATASTORE = re.compile(r"azureml:/.*?datastores/(?P<store>[^/]+)/(?:paths/)?(?P<path>.*)")
OUTPUT = re.compile(
    r"azureml:/.*?jobs/(?P<job>[^/]+)/outputs/(?P<name>[^/]+)(/paths)?/?(?P<path>.*)"
)
BLOB = re.compile(r"https://[^/]+/(?P<container>[^/]+)/?(?P<path>[^?]*)")
ASSET = re.compile(r"(azureml:)?/*(?P<id>subscriptions/.*/(?P<kind>codes|models|data)/.*)")
FILES = {"codes": "codeUri", "models": "modelUri", "data": "dataUri"}


def default_output(job, output):
    if output == "default":  # jobs.stream reads it, without `paths/`
        return f"azureml://datastores/workspaceartifactstore/ExperimentRun/dcid.{job}"
    return f"azureml://datastores/workspaceblobstore/paths/azureml/{job}/{output}/"


def of_job(azure, address):
    """Return the datastore's address for a job's output, and any other address unchanged."""
    if not (match := OUTPUT.fullmatch(address)):
        return address
    suffix = f"/jobs/{match['job'].lower()}"
    jobs = [document for key, document in azure.resources.items() if key.endswith(suffix)]
    output = jobs[0]["properties"]["outputs"].get(match["name"], {}) if jobs else {}
    base = output.get("uri") or default_output(match["job"], match["name"])
    return f"{base.rstrip('/')}/{match['path']}"


@hook("check", f"{ML}/models/versions")
def keep_path(azure, path, old, new):
    """Store a model's full path in the datastore, never a job's path, as Azure does."""
    scope = re.sub("/providers/[^/]+|/models/.*", "", path.text)
    uri = of_job(azure, new["properties"]["modelUri"])
    full = uri.replace("azureml://datastores", f"azureml:/{scope}/datastores")
    new["properties"]["modelUri"] = full


def locate(azure, workspace, address):
    """Return the container and the path in it. Raises Refused for an unknown address."""
    if match := ASSET.fullmatch(address):
        document = azure.resources.get(f"/{match['id'].lower()}")
        if document is None:
            raise Refused(404, "ResourceNotFound", f"{address} was not found.")
        return locate(azure, workspace, document["properties"][FILES[match["kind"]]])
    address = of_job(azure, address)
    if match := BLOB.fullmatch(address):
        return match["container"], match["path"]
    if match := DATASTORE.fullmatch(address):
        return container_of(workspace, match["store"]), match["path"]
    raise Refused(400, "BadArgument", f"the fake cannot read the address {address}")


def fetch(azure, workspace, address, target):
    """Copy the files of an address to `target`. Raises Refused if there are none."""
    if not azure.storage.fetch(*locate(azure, workspace, address), target):
        raise Refused(404, "AssetNotFound", f"there are no files at {address}")


def fetch_model(azure, workspace, model, target):
    """Copy a model; return the folder that AZUREML_MODEL_DIR names."""
    folder = target.joinpath(*re.search("/models/([^/]+)/versions/([^/]+)", model).groups())
    name = locate(azure, workspace, model)[1].rstrip("/").rsplit("/", 1)[-1]
    fetch(azure, workspace, model, folder / name)
    return folder
