"""Workspaces and their parts: template deployments, datastores, code, quota, discovery."""

from .arm import TABLE, ArmPath, acted_on, hook, put, route, stable_id
from .messages import Refused
from .storage import DATASTORES, ML, container_of, url

SIZES, PARTS = TABLE["sizes"], TABLE["parts"]
REGION_QUOTA = "Total Cluster Dedicated Regional vCPUs"


@hook("work", "Microsoft.Resources/deployments")
def deploy_template(azure, path, new):
    """Create the resources of the SDK's workspace template from its parameters."""
    parameters = new["properties"]["parameters"].items()
    values = {key: parameter.get("value") for key, parameter in parameters}
    common = {"location": values["location"], "tags": values.get("tagValues")}
    properties = {"friendlyName": values["friendlyName"], "description": values["description"]}
    for key, kind in PARTS.items():
        option, name = values.get(f"{key}Option", "new"), values.get(f"{key}Name")
        if not name or option == "none":
            continue
        group = values.get(f"{key}ResourceGroupName", values["resourceGroupName"])
        part = ArmPath(f"{path.scope.rsplit('/', 1)[0]}/{group}/providers/{kind}/{name}")
        properties[key] = part.text
        if option == "new":
            put(azure, part, common)
    properties.pop("logAnalytics", None)
    workspace = ArmPath(f"{path.scope}/providers/{ML}/{values['workspaceName']}")
    properties["systemDatastoresAuthMode"] = values.get("systemDatastoresAuthMode", "accesskey")
    body = {"kind": values["kind"], "identity": values.get("identity"), "properties": properties}
    put(azure, workspace, common | body)


@route("GET", r".*/deployments/[^/]+/operations")
def template_steps(azure, request):
    return {"value": []}


@hook("check", ML)
def open_workspace(azure, path, old, new):
    """Give a new workspace its datastores."""
    for name in DATASTORES if old is None else ():
        container = container_of(path.name, name)
        azure.storage.create(container)
        azure.resources[path.key] = new
        properties = {"containerName": container, "isDefault": name == "workspaceblobstore"}
        if new["properties"].get("systemDatastoresAuthMode") == "identity":
            properties["credentials"] = {"credentialsType": "None"}
        put(azure, ArmPath(f"{path.text}/datastores/{name}"), {"properties": properties})


@route("POST", r".*/datastores/[^/]+/listSecrets")
def list_secrets(azure, request):
    path = acted_on(azure, request)
    if azure.resources[path.key]["properties"]["credentials"]["credentialsType"] == "None":
        raise Refused(
            400, "UserError", f"{path.name} has no credentials: its access is by identity."
        )
    if path.name.lower() == "workspaceartifactstore":
        # jobs.stream signs with this value, so it has to be the account's key.
        return {"secretsType": "Sas", "sasToken": azure.storage.key}
    return {"secretsType": "Sas", "sasToken": "?" + azure.storage.sas(container_of(path.workspace))}


@route("POST", r".*/versions/[^/]+/startPendingUpload")
def start_upload(azure, request):
    """Create a container for the asset."""
    container = stable_id(request.path)
    azure.storage.create(container)
    signed = f"{url(container)}?{azure.storage.sas(container)}"
    blob = {"blobUri": url(container), "credential": {"credentialType": "SAS", "sasUri": signed}}
    return {"pendingUploadType": "TemporaryBlobReference", "blobReferenceForConsumption": blob}


@route("GET", r".*/codes/[^/]+/versions")
def any_code(azure, request):
    """With ?hash=: return the same files under any name."""
    kind, wanted = f"{ML}/codes/versions", request.query.get("hash")
    codes = [document for document in azure.resources.values() if document["type"] == kind]
    matches = [code for code in codes if wanted in code["properties"]["properties"].values()]
    return {"value": matches}


@hook("show", f"{ML}/connections")
def hide_credentials(azure, path, document):
    document["properties"]["credentials"] = None


@route("POST", r".*/connections/[^/]+/listSecrets")
def connection_secrets(azure, request):
    return azure.resources[acted_on(azure, request).key]


@route("GET", r"/subscriptions/[^/]+/providers/[^/]+")
def provider(azure, request):
    name = request.path.split("/")[4]
    state = "NotRegistered" if name.lower() in azure.unregistered else "Registered"
    return {"namespace": name, "registrationState": state}


@route("POST", r"/subscriptions/[^/]+/providers/[^/]+/register")
def register(azure, request):
    name = request.path.split("/")[4]
    azure.unregistered.discard(name.lower())
    return {"namespace": name, "registrationState": "Registering"}


@route("GET", r".*/locations/[^/]+/usages")
def usages(azure, request):
    entries = []
    for name, (limit, used) in azure.quotas.items():
        names = {"value": name, "localizedValue": name}
        entries.append({"unit": "Count", "currentValue": used, "limit": limit, "name": names})
    return {"value": entries}


@route("GET", r".*/locations/[^/]+/vmSizes")
def sizes(azure, request):
    names = ("family", "vCPUs", "gpus", "memoryGB")
    return {"value": [{"name": name} | dict(zip(names, value)) for name, value in SIZES.items()]}


def cores(size):
    """Return the family and the cores of a size. Raises Refused for an unknown size."""
    for name, (family, count, _, _) in SIZES.items():
        if name.lower() == size.lower():
            return family, count
    raise Refused(400, "InvalidVmSize", f"The VM size {size} is not available here.")


@route("GET", r"/discovery")
def discovery(azure, request):
    return dict.fromkeys(("api", "history", "experimentation"), f"https://{request.host}")


@route("GET", r"/registrymanagement/v1.0/registries/azureml/discovery")
def registry(azure, request):
    uri = "https://cert-eastus.experiments.azureml.net/"
    names = {"registryName": "azureml", "resourceGroup": "registry-builtin"}
    return names | {"subscriptionId": azure.subscription, "primaryRegionResourceProviderUri": uri}


@route("GET", r".*/registries/azureml/models/[^/]+(/versions(/[^/]+)?)?")
def catalog_model(azure, request):
    name = request.path.split("/models/")[1].split("/")[0]
    if name not in azure.catalog:
        raise Refused(404, "UserError", f"Could not find asset with ID: azureml:{name}")
    version = azure.catalog[name]
    asset_id = f"azureml://registries/azureml/models/{name}/versions/{version}"
    properties = {"modelType": "mlflow_model", "tags": {}, "properties": {}, "flavors": {}}
    properties |= {"modelUri": f"{asset_id}/file", "latestVersion": version}
    model = {"id": asset_id, "name": version, "systemData": {}, "properties": properties}
    return {"value": [model]} if request.path.endswith("/versions") else model
