"""Workspaces and what belongs to one: template deployments, datastores, code, quota, discovery."""

from .arm import TABLE, ArmPath, Refused, acted_on, hook, put, route, stable_id
from .storage import DATASTORES, ML, box_of, url

SIZES, PARTS = TABLE["sizes"], TABLE["parts"]
REGION_QUOTA = "Total Cluster Dedicated Regional vCPUs"


@hook("work", "Microsoft.Resources/deployments")
def deploy_template(azure, path, new):
    """Create what the SDK's workspace template would, from its parameters."""
    given = {key: each.get("value") for key, each in new["properties"]["parameters"].items()}
    common = {"location": given["location"], "tags": given.get("tagValues")}
    properties = {"friendlyName": given["friendlyName"], "description": given["description"]}
    for key, kind in PARTS.items():
        option, name = given.get(f"{key}Option", "new"), given.get(f"{key}Name")
        if not name or option == "none":
            continue
        group = given.get(f"{key}ResourceGroupName", given["resourceGroupName"])
        part = ArmPath(f"{path.scope.rsplit('/', 1)[0]}/{group}/providers/{kind}/{name}")
        properties[key] = part.text
        if option == "new":
            put(azure, part, common)
    properties.pop("logAnalytics", None)
    workspace = ArmPath(f"{path.scope}/providers/{ML}/{given['workspaceName']}")
    body = {"kind": given["kind"], "identity": given.get("identity"), "properties": properties}
    put(azure, workspace, common | body)


@route("GET", r".*/deployments/[^/]+/operations")
def template_steps(azure, request):
    return {"value": []}


@hook("check", ML)
def open_workspace(azure, path, old, new):
    """Give a new workspace its datastores."""
    for name in DATASTORES if old is None else ():
        box = box_of(path.name, name)
        azure.storage.create(box)
        azure.resources[path.key] = new
        properties = {"containerName": box, "isDefault": name == "workspaceblobstore"}
        put(azure, ArmPath(f"{path.text}/datastores/{name}"), {"properties": properties})


@route("POST", r".*/datastores/[^/]+/listSecrets")
def list_secrets(azure, request):
    path = acted_on(azure, request)
    if path.name.lower() == "workspaceartifactstore":
        # jobs.stream signs with what it gets as a SAS, so it has to be the account's key.
        return {"secretsType": "Sas", "sasToken": azure.storage.key}
    return {"secretsType": "Sas", "sasToken": "?" + azure.storage.sas(box_of(path.workspace))}


@route("POST", r".*/versions/[^/]+/startPendingUpload")
def start_upload(azure, request):
    """A container of its own for the asset."""
    box = stable_id(request.path)
    azure.storage.create(box)
    signed = f"{url(box)}?{azure.storage.sas(box)}"
    blob = {"blobUri": url(box), "credential": {"credentialType": "SAS", "sasUri": signed}}
    return {"pendingUploadType": "TemporaryBlobReference", "blobReferenceForConsumption": blob}


@route("GET", r".*/codes/[^/]+/versions")
def any_code(azure, request):
    """With ?hash=: the same files under any name."""
    codes = [each for each in azure.resources.values() if each["type"] == f"{ML}/codes/versions"]
    wanted = request.query.get("hash")
    found = [each for each in codes if wanted in each["properties"]["properties"].values()]
    return {"value": found}


@hook("show", f"{ML}/connections")
def hide_credentials(azure, path, document):
    document["properties"].pop("credentials", None)


@route("POST", r".*/connections/[^/]+/listSecrets")
def connection_secrets(azure, request):
    return azure.resources[acted_on(azure, request).key]


@route("GET", r".*/locations/[^/]+/usages")
def usages(azure, request):
    found = []
    for name, (limit, used) in azure.quotas.items():
        names = {"value": name, "localizedValue": name}
        found.append({"unit": "Count", "currentValue": used, "limit": limit, "name": names})
    return {"value": found}


@route("GET", r".*/locations/[^/]+/vmSizes")
def sizes(azure, request):
    names = ("family", "vCPUs", "gpus", "memoryGB")
    return {"value": [{"name": name} | dict(zip(names, value)) for name, value in SIZES.items()]}


def cores(size):
    """The family and the cores of a size. Raises Refused for one that the fake does not know."""
    for name, (family, count, _, _) in SIZES.items():
        if name.lower() == size.lower():
            return family, count
    raise Refused(400, "InvalidVmSize", f"The VM size {size} is not available here.")


@route("GET", r"/discovery")
def discovery(azure, request):
    return dict.fromkeys(("api", "history", "experimentation"), f"https://{request.host}")
