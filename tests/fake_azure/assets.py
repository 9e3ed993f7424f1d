"""Where an asset's files are: code, models, data, the outputs of jobs, paths of datastores."""

import re

from .arm import Refused, hook
from .storage import ML, box_of

DATASTORE = re.compile(r"azureml:/.*?datastores/(?P<store>[^/]+)/(?:paths/)?(?P<path>.*)")
OUTPUT = re.compile(
    r"azureml:/.*?jobs/(?P<job>[^/]+)/outputs/(?P<name>[^/]+)(/paths)?/?(?P<path>.*)"
)
BLOB = re.compile(r"https://[^/]+/(?P<container>[^/]+)/?(?P<path>[^?]*)")
ASSET = re.compile(r"(azureml:)?/*(?P<id>subscriptions/.*/(?P<kind>codes|models|data)/.*)")
FILES = {"codes": "codeUri", "models": "modelUri", "data": "dataUri"}


def default_output(job, output):
    if output == "default":  # jobs.stream reads it, and only without `paths/`
        return f"azureml://datastores/workspaceartifactstore/ExperimentRun/dcid.{job}"
    return f"azureml://datastores/workspaceblobstore/paths/azureml/{job}/{output}/"


def of_job(azure, address):
    """A job's output by the datastore that holds it; any other address as it is."""
    if not (found := OUTPUT.fullmatch(address)):
        return address
    ends = f"/jobs/{found['job'].lower()}"
    jobs = [each for key, each in azure.resources.items() if key.endswith(ends)]
    given = jobs[0]["properties"]["outputs"].get(found["name"], {}) if jobs else {}
    base = given.get("uri") or default_output(found["job"], found["name"])
    return f"{base.rstrip('/')}/{found['path']}"


@hook("check", f"{ML}/models/versions")
def keep_path(azure, path, old, new):
    """A model's path as Azure keeps it: never a job's, and in full."""
    scope = re.sub("/providers/[^/]+|/models/.*", "", path.text)
    uri = of_job(azure, new["properties"]["modelUri"])
    full = uri.replace("azureml://datastores", f"azureml:/{scope}/datastores")
    new["properties"]["modelUri"] = full


def locate(azure, workspace, address):
    """The container and the path in it. Raises Refused for an address that nothing answers to."""
    if found := ASSET.fullmatch(address):
        document = azure.resources.get(f"/{found['id'].lower()}")
        if document is None:
            raise Refused(404, "ResourceNotFound", f"{address} was not found.")
        return locate(azure, workspace, document["properties"][FILES[found["kind"]]])
    address = of_job(azure, address)
    if found := BLOB.fullmatch(address):
        return found["container"], found["path"]
    if found := DATASTORE.fullmatch(address):
        return box_of(workspace, found["store"]), found["path"]
    raise Refused(400, "BadArgument", f"the fake cannot read the address {address}")


def fetch(azure, workspace, address, target):
    """Copy what is at the address to `target`. Raises Refused when there is nothing."""
    if not azure.storage.fetch(*locate(azure, workspace, address), target):
        raise Refused(404, "AssetNotFound", f"there are no files at {address}")


def fetch_model(azure, workspace, model, target):
    """Copy a model; the folder that AZUREML_MODEL_DIR names."""
    folder = target.joinpath(*re.search("/models/([^/]+)/versions/([^/]+)", model).groups())
    name = locate(azure, workspace, model)[1].rstrip("/").rsplit("/", 1)[-1]
    fetch(azure, workspace, model, folder / name)
    return folder


@hook("show", f"{ML}/components/versions")
def compiled(azure, path, document):
    """A flow's component is answered as the parallel component that Azure makes of it."""
    spec = document["properties"]["componentSpec"]
    spec["type"] = spec["type"].replace("promptflow_parallel", "parallel")
