"""Workspaces and what belongs to one: template deployments, datastores, code, quota, discovery.

Documented: a workspace comes with a storage account, a key vault, application insights and log
analytics; its two datastores; quota by family and by region; a connection's secrets have a route.
Read in azure-ai-ml 1.32.0: the template's parameters, `listSecrets`, `startPendingUpload`, that code
is looked up by its hash across all assets, and the discovery document's names.
Invented: the template is not evaluated, its parameters are read; nothing reserves quota.
"""

from .arm import ArmPath, Refused, acted_on, put, stable_id
from .storage import DATASTORES, box_of, url

ML = "Microsoft.MachineLearningServices/workspaces"
SIZES = {  # name: family, cores, GPUs, memory in GB
    "Standard_DS3_v2": ("standardDSv2Family", 4, 0, 14),
    "Standard_E4s_v3": ("standardESv3Family", 4, 0, 32),
    "Standard_NC4as_T4_v3": ("standardNCASv3_T4Family", 4, 1, 28),
    "Standard_NC24ads_A100_v4": ("standardNCADSA100v4Family", 24, 1, 220),
    "Standard_NC40ads_H100_v5": ("standardNCADSH100v5Family", 40, 1, 320),
    "Standard_NV36ads_A10_v5": ("StandardNVADSA10v5Family", 36, 1, 440),
}
REGION_QUOTA = "Total Cluster Dedicated Regional vCPUs"
PARTS = {  # by the template's parameters `{name}Name` and `{name}Option`
    "storageAccount": "Microsoft.Storage/storageAccounts",
    "keyVault": "Microsoft.KeyVault/vaults",
    "applicationInsights": "Microsoft.Insights/components",
    "containerRegistry": "Microsoft.ContainerRegistry/registries",
    "logAnalytics": "Microsoft.OperationalInsights/workspaces",
}


def deploy_template(azure, path, new):
    """Create what the SDK's workspace template would, from its parameters."""
    given = {key: each.get("value") for key, each in new["properties"]["parameters"].items()}
    common = {"location": given["location"], "tags": given.get("tagValues")}
    properties = {"friendlyName": given["friendlyName"], "description": given["description"]}
    made = new["properties"]["made"] = []
    for key, kind in PARTS.items():
        option, name = given.get(f"{key}Option", "new"), given.get(f"{key}Name")
        if not name or option == "none":
            continue
        group = given.get(f"{key}ResourceGroupName", given["resourceGroupName"])
        part = ArmPath(f"{path.scope.rsplit('/', 1)[0]}/{group}/providers/{kind}/{name}")
        properties[key] = part.text
        if option == "new":
            put(azure, part, common)
            made.append(part.text)
    properties.pop("logAnalytics", None)
    workspace = ArmPath(f"{path.scope}/providers/{ML}/{given['workspaceName']}")
    body = {"kind": given["kind"], "identity": given.get("identity"), "properties": properties}
    put(azure, workspace, common | body)
    made.append(workspace.text)


def template_operations(azure, request):
    """GET deployments/{d}/operations."""
    end = "/".join(request.path.split("/")[-3:-1]).lower()
    found = [each for key, each in azure.resources.items() if key.endswith(end)]
    made = found[0]["properties"].get("made", []) if found else []
    return {"value": [_step(ArmPath(each)) for each in made]}


def _step(path):
    properties = {
        "provisioningState": "Succeeded",
        "provisioningOperation": "Create",
        "duration": "PT1S",
        "targetResource": {"id": path.text, "resourceName": path.name, "resourceType": path.type},
    }
    return {"operationId": stable_id(path.key), "properties": properties}


def open_workspace(azure, path, old, new):
    """Give a new workspace its datastores."""
    for name in DATASTORES if old is None else ():
        box = box_of(path.name, name)
        azure.storage.create(box)
        azure.resources[path.key] = new
        properties = {"containerName": box, "isDefault": name == "workspaceblobstore"}
        put(azure, ArmPath(f"{path.text}/datastores/{name}"), {"properties": properties})


def list_secrets(azure, request):
    path = acted_on(azure, request)
    if path.name.lower() == "workspaceartifactstore":
        # jobs.stream signs with what it gets as a SAS, so it has to be the account's key.
        return {"secretsType": "Sas", "sasToken": azure.storage.key}
    return {"secretsType": "Sas", "sasToken": "?" + azure.storage.sas(box_of(path.workspace))}


def start_upload(azure, request):
    """POST codes/{name}/versions/{v}/startPendingUpload: a container of its own for the asset."""
    box = stable_id(request.path)
    azure.storage.create(box)
    signed = f"{url(box)}?{azure.storage.sas(box)}"
    blob = {"blobUri": url(box), "credential": {"credentialType": "SAS", "sasUri": signed}}
    return {"pendingUploadType": "TemporaryBlobReference", "blobReferenceForConsumption": blob}


def any_code(azure, request):
    """GET codes/{name}/versions?hash=: the same files under any name."""
    codes = [each for each in azure.resources.values() if each["type"] == f"{ML}/codes/versions"]
    wanted = request.query.get("hash")
    return {
        "value": [each for each in codes if wanted in each["properties"]["properties"].values()]
    }


def hide_credentials(azure, path, document):
    document["properties"].pop("credentials", None)


def connection_secrets(azure, request):
    return azure.resources[acted_on(azure, request).key]


def usages(azure, request):
    found = []
    for name, (limit, used) in azure.quotas.items():
        names = {"value": name, "localizedValue": name}
        found.append({"unit": "Count", "currentValue": used, "limit": limit, "name": names})
    return {"value": found}


def sizes(azure, request):
    names = ("family", "vCPUs", "gpus", "memoryGB")
    return {"value": [{"name": name} | dict(zip(names, value)) for name, value in SIZES.items()]}


def cores(size):
    """The family and the cores of a size. Raises Refused for one that the fake does not know."""
    for name, (family, count, _, _) in SIZES.items():
        if name.lower() == size.lower():
            return family, count
    raise Refused(400, "InvalidVmSize", f"The VM size {size} is not available here.")


def discovery(azure, request):
    return dict.fromkeys(("api", "history", "experimentation"), f"https://{request.host}")


ROUTES = [
    ("GET", r".*/deployments/[^/]+/operations", template_operations),
    ("POST", r".*/datastores/[^/]+/listSecrets", list_secrets),
    ("POST", r".*/versions/[^/]+/startPendingUpload", start_upload),
    ("GET", r".*/codes/[^/]+/versions", any_code),
    ("POST", r".*/connections/[^/]+/listSecrets", connection_secrets),
    ("GET", r".*/locations/[^/]+/usages", usages),
    ("GET", r".*/locations/[^/]+/vmSizes", sizes),
    ("GET", r"/discovery", discovery),
]
