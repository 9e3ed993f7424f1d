"""Azure Resource Manager: resources by path, long-running operations, lists, errors."""

import copy
import re
import secrets
import threading
import uuid
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlencode

import yaml

from .messages import Answer, Refused, now

TABLE = yaml.safe_load(Path(__file__).with_name("resources.yaml").read_text())
# Defaults of a row, and the hooks, which do nothing until a module defines one.
ROW = {"operations": "", "lasting": True, "tracked": False, "versioned": False, "immutable": ""}
ROW |= {"created": 201, "located": False, "by_job_type": {}}
ROW |= {
    "system": "createdAt createdBy createdByType lastModifiedAt lastModifiedBy lastModifiedByType"
}
ROW |= {"defaults": {}} | dict.fromkeys(("check", "keep", "work", "undo", "show"), lambda *_: None)
KINDS = {
    name.lower(): SimpleNamespace(type=name, **ROW | row) for name, row in TABLE["kinds"].items()
}
ROUTES = []  # method, pattern of the path, handler; other requests are on a resource
RUNNING = ("InProgress", "Updating")
RETRY = {"retry-after-ms": "50"}  # without it, a poll takes 5 to 30 s
CERTIFICATE = "MII" + "A" * 2500  # as long as the one in the recorded URLs of operations
NO_TIME = "0001-01-01T00:00:00+00:00"  # the recorded end of an operation that goes on
LISTED = ("id", "name", "type", "location", "tags", "sku", "kind", "identity")


def route(method, path):
    """Register a handler: (azure, request) -> an Answer, or the body of a 200."""

    def add(function):
        ROUTES.append((method, re.compile(path, re.IGNORECASE), function))
        return function

    return add


def hook(name, kind):
    """Register a function for a type; it takes the cloud, the resource's ArmPath, and more.

    check (old, new): refuses a PUT, or completes its document. work (new): runs in a PUT's operation.
    keep (): refuses a deletion. undo (): runs in a deletion's operation. show (copy): edits the answer to
    a GET.
    """

    def add(function):
        setattr(KINDS[kind.lower()], name, function)
        return function

    return add


class ArmPath:
    """A path in Resource Manager. Its `key`, in lower case, is the resource's key in the store."""

    def __init__(self, text):
        text = re.sub("/resourcegroups(?=/)", "/resourceGroups", text, flags=re.IGNORECASE)
        self.text = "/" + "/".join(part for part in text.split("/") if part)
        self.key = self.text.lower()
        self.scope, separator, rest = self.text.rpartition("/providers/")
        if not separator:  # a resource group
            parts = self.text.split("/")
            self.scope, rest = "/".join(parts[:3]), "/".join(["Microsoft.Resources", *parts[3:]])
        namespace, *parts = rest.split("/")
        self.type = "/".join([namespace, *parts[0::2]]).lower()
        self.kind = KINDS.get(self.type)
        self.name = parts[-1] if len(parts) % 2 == 0 else ""  # "": a collection
        self.parent = self.text.rsplit("/", 2)[0].lower() if len(parts) > 3 else self.scope.lower()
        workspace = re.search("/workspaces/([^/]+)", self.text, re.IGNORECASE)
        self.workspace = workspace.group(1) if workspace else ""


class Operation:
    """A long-running operation: in progress for `FakeAzure.polls` polls, and while its work runs."""

    def __init__(self, azure, path, work, end, method):
        self.id, self.error, self._polls = str(uuid.uuid4()), None, 0
        self.began, self.ended, self.signature = now(), NO_TIME, secrets.token_urlsafe(256)
        self.of_endpoints = path.kind.operations == "mfeOperations"
        if self.of_endpoints:
            self.id = operation_id(path, self.id)
        self._method = method
        self._azure, self._path, self._work, self._end = azure, path, work, end
        azure.operations[self.id] = azure.pending[path.key] = self
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            if fault := self._azure.planned("operation", self._path.text):
                raise Refused(400, fault["code"], fault["message"])
            self._work()
        except Refused as refused:
            self.error = refused.error
            if self.of_endpoints:
                invalid = {"code": "BadRequest", "message": "The request is invalid."}
                self.error = invalid | {"details": [refused.error], "additionalInfo": []}
        except Exception as error:
            self.error = {"code": "InternalServerError", "message": repr(error)}

    def poll(self):
        """Return the state: InProgress or, of endpoints, Updating; at last Succeeded or Failed."""
        self._polls += 1
        if self._polls <= self._azure.polls or self._thread.is_alive():
            return "Updating" if self.of_endpoints else "InProgress"
        self.ended = now() if self.ended == NO_TIME else self.ended
        end, self._end = self._end, lambda _: None
        end(self.error)
        return "Failed" if self.error else "Succeeded"

    @property
    def headers(self):
        """The headers by which a client follows the operation."""
        kind, subscription = self._path.kind, "/".join(self._path.text.split("/")[:3])
        provider = f"{subscription}/providers/{kind.type.split('/')[0]}"
        location = f"{provider}/locations/{self._azure.region}"
        route = f"https://management.azure.com{location}/{kind.operations}"
        version = f"?api-version={kind.versions.split()[0]}"
        signed = (
            f"{version}&t={len(self.began)}&c={CERTIFICATE}&s={self.signature}&h={self.id[-12:]}"
        )
        urls = {"Azure-AsyncOperation": f"{route}Status/{self.id}{signed}"}
        if self._method != "PUT":
            urls["Location"] = f"{route}Results/{self.id}{signed}"
        elif self.of_endpoints:
            urls["Location"] = f"https://management.azure.com{self._path.text}{version}"
            urls["x-ms-async-operation-timeout"] = "PT30M"
        return RETRY | urls


def operation_id(path, name):
    """Return the id of an operation on an endpoint or a deployment."""
    kind = "odidp" if path.type.endswith("/deployments") else "oeidp"
    return f"{kind}:{stable_id(path.workspace)}:{name}"


def operation_uri(azure, path):
    """Return the URL of an operation as Azure stores it in an endpoint's properties: not signed."""
    subscription = "/".join(path.text.split("/")[:3])
    location = (
        f"{subscription}/providers/Microsoft.MachineLearningServices/locations/{azure.region}"
    )
    operation = operation_id(path, stable_id(path.key))
    return f"https://management.azure.com{location}/mfeOperationsStatus/{operation}"


def start(azure, path, work=lambda: None, end=lambda error: None, method="PUT"):
    """Begin an operation; return the headers by which a client follows it."""
    return Operation(azure, path, work, end, method).headers


@route("GET", r".*/\w+(Status|Statuses|Results)/[^/]+")
def operation_state(azure, request):
    """Answer …OperationsStatus/{id} with a body, and …OperationsResults/{id} with a status."""
    operation = azure.operations[request.path.split("/")[-1]]
    if request.query.get("s") != operation.signature:
        raise Refused(403, "InvalidAuthenticationToken", "The operation's URL is not signed.")
    state = operation.poll()
    if "Status" not in request.path:
        return Answer(202 if state in RUNNING else 204, None, RETRY)
    body = {"status": state}
    if operation.of_endpoints:
        body |= {"id": request.path, "name": operation.id, "percentComplete": 0.0}
        body |= {"startTime": operation.began, "endTime": operation.ended}
    elif state not in RUNNING:
        body["percentComplete"] = 100.0
    return Answer(200, body | ({"error": operation.error} if operation.error else {}), RETRY)


def under_way(azure, path):
    """Return the resource's unfinished operation, or None. This counts as a poll."""
    operation = azure.pending.get(path.key)
    if operation and operation.poll() in RUNNING:
        return operation
    azure.pending.pop(path.key, None)
    return None


def refuse_during_change(azure, path):
    if under_way(azure, path):
        raise Refused(409, "Conflict", f"{path.text} is being changed.")


def stable_id(key):
    """Return a uuid that is the same for the same resource."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, key.lower()))


def merge(low, high):
    """Return `low` overridden by `high`; a null takes the default, as in Azure."""
    result = copy.deepcopy(low)
    for name, value in high.items():
        if isinstance(value, dict) and isinstance(result.get(name), dict):
            result[name] = merge(result[name], value)
        elif value is not None or name not in result:
            result[name] = copy.deepcopy(value)
    return result


def fill(template, names):
    """Return the template with placeholders such as `{name}` replaced in its strings."""
    if isinstance(template, dict):
        return {name: fill(value, names) for name, value in template.items()}
    return template.format(**names) if isinstance(template, str) else template


def resource(azure, request):
    """Answer a request on a resource or a collection that has no route of its own."""
    path = ArmPath(request.path)
    if path.kind is None:
        raise Refused(404, "InvalidResourceType", f"the fake does not know {path.type}")
    version = request.query.get("api-version")
    if version not in path.kind.versions.split():
        text = f"{path.type} has the versions {path.kind.versions}, not {version}"
        raise Refused(400, "NoRegisteredProviderFound", text)
    if request.method == "PUT" and path.type.split("/")[0] in azure.unregistered:
        namespace, code = path.type.split("/")[0], "MissingSubscriptionRegistration"
        text = f"The subscription is not registered to use namespace '{namespace}'."
        refused = Refused(409, code, text)
        refused.error["details"] = [{"code": code, "target": namespace, "message": text}]
        raise refused
    if request.method == "PUT" and path.type in azure.denied:
        assignment = f"/providers/Microsoft.Authorization/policyAssignments/{path.name}"
        policy = {"policyAssignmentDisplayName": azure.denied[path.type]}
        policy |= {"policyAssignmentId": assignment, "policyDefinitionEffect": "Deny"}
        text = f"Resource '{path.name}' was disallowed by policy."
        raise Refused(403, "RequestDisallowedByPolicy", text, PolicyViolation=policy)
    if not path.name:
        return list_all(azure, request, path)
    if request.method == "DELETE":
        return delete(azure, path)
    if request.method == "GET":
        return Answer(200, shown(azure, path))
    base = shown(azure, path) if request.method == "PATCH" else {}
    return put(azure, path, merge(base, request.body or {}))


def put(azure, path, body):
    kind, old = path.kind, azure.resources.get(path.key)
    parent = ArmPath(path.parent).parent if kind.versioned else path.parent
    if parent.count("/") > 2 and parent not in azure.resources:
        what = "ResourceGroup" if parent.count("/") == 4 else "ParentResource"
        raise Refused(404, f"{what}NotFound", f"{parent} could not be found.")
    refuse_during_change(azure, path)
    new = complete(azure, path, old, body)
    kind.check(azure, path, old, new)
    for name in kind.immutable.split() if old else ():
        if old["properties"].get(name) != new["properties"].get(name):
            raise Refused(409, "Conflict", f"{path.text} exists with another {name}.")
    azure.resources[path.key] = new
    if kind.versioned:
        asset = ArmPath(path.text.rsplit("/", 2)[0])
        following = str(int(path.name) + 1) if path.name.isdigit() else "1"
        counted = {"properties": {"latestVersion": path.name, "nextVersion": following}}
        azure.resources[asset.key] = complete(azure, asset, azure.resources.get(asset.key), counted)
    status, headers = 200 if old else kind.created, {}
    if kind.operations and kind.lasting:
        new["properties"]["provisioningState"] = "Updating" if old else "Creating"

        def end(error):
            new["properties"]["provisioningState"] = "Failed" if error else "Succeeded"

        headers = start(azure, path, lambda: kind.work(azure, path, new), end)
    elif kind.located:
        headers = {"Location": f"https://management.azure.com{path.text}"}
    return Answer(status, shown(azure, path), headers)


def complete(azure, path, old, body):
    """Return the document that Azure creates from a body."""
    above = azure.resources.get(path.parent, {})
    location = body.get("location") or above.get("location") or azure.region
    names = {"name": path.name, "id": path.text, "location": location.replace(" ", "").lower()}
    names |= {"uid": stable_id(path.key), "client": stable_id(path.key + "/client")}
    special = path.kind.by_job_type.get((body.get("properties") or {}).get("jobType"), {})
    defaults = merge(path.kind.defaults, {"properties": special})
    new = merge(fill(defaults, names | {"tenant": azure.tenant, "now": now()}), body)
    created = old["systemData"]["createdAt"] if old else now()
    times = {"createdAt": created, "createdBy": "fake", "createdByType": "User"}
    times |= {"lastModifiedAt": now(), "lastModifiedBy": "fake", "lastModifiedByType": "User"}
    new |= {"id": path.text, "name": path.name, "type": path.kind.type, "systemData": times}
    identity = new.get("identity") or {}
    users = identity.get("userAssignedIdentities") or {}
    for user in [user for user, value in users.items() if value is not None]:
        document = azure.resources.get(user.lower())
        if document is None:
            raise Refused(400, "FailedIdentityOperation", f"The identity {user} was not found.")
        properties = document["properties"]
        users[user] = {name: properties[name] for name in ("principalId", "clientId")}
    if "system" in identity.get("type", "").lower():
        identity |= {"principalId": stable_id(path.key + "/system"), "tenantId": azure.tenant}
    return new


def shown(azure, path):
    """Return the answer to a GET. Raises Refused 404."""
    under_way(azure, path)
    if path.key not in azure.resources:
        kind = "ResourceGroup" if path.type.endswith("resourcegroups") else "Resource"
        raise Refused(404, f"{kind}NotFound", f"The resource {path.text} was not found.")
    document = copy.deepcopy(azure.resources[path.key])
    path.kind.show(azure, path, document)
    system = document.pop("systemData")
    if path.kind.system:
        document["systemData"] = {name: system[name] for name in path.kind.system.split()}
    return document


def acted_on(azure, request):
    """Return the path of the resource in a POST to …/{resource}/{action}. Raises Refused 404."""
    path = ArmPath(request.path.rsplit("/", 1)[0])
    shown(azure, path)
    return path


def list_all(azure, request, path):
    above = path.text.rsplit("/", 1)[0] if path.type.count("/") > 1 else path.scope
    paths = [ArmPath(document["id"]) for document in list(azure.resources.values())]
    inside = [p for p in paths if p.type == path.type and p.key.startswith(above.lower() + "/")]
    query = {name.lower(): value for name, value in request.query.items()}
    if "$orderby" in query:
        inside.sort(key=lambda p: azure.resources[p.key]["systemData"]["createdAt"], reverse=True)
    documents = [shown(azure, p) for p in inside]
    if query.get("isdefault") == "true":
        documents = [d for d in documents if d["properties"].get("isDefault")]
    if "$top" in query:
        return Answer(200, {"value": documents[: int(query["$top"])]})
    return Answer(200, page_of(azure, request, documents))


def page_of(azure, request, items):
    """Return one page of a list, with the link to the next one."""
    start = int(request.query.get("$skip", 0))
    end = start + azure.page
    page = {"value": items[start:end]}
    if end < len(items):
        query = urlencode(request.query | {"$skip": end})
        page["nextLink"] = f"https://{request.host}{request.path}?{query}"
    return page


@route("GET", r"/subscriptions/[^/]+(/resourcegroups/[^/]+)?/resources")
def tracked(azure, request):
    scope = request.path.rsplit("/", 1)[0].lower() + "/"
    documents = [document for key, document in azure.resources.items() if key.startswith(scope)]
    listed = [document for document in documents if KINDS[document["type"].lower()].tracked]
    items = [{name: document.get(name) for name in LISTED} for document in listed]
    return page_of(azure, request, items)


def delete(azure, path):
    old = azure.resources.get(path.key)
    if old is None:
        return Answer(204)
    present = under_way(azure, path)
    if present and old["properties"]["provisioningState"] == "Deleting":
        return Answer(202, None, present.headers)
    refuse_during_change(azure, path)
    path.kind.keep(azure, path)
    doomed = [ArmPath(key) for key in azure.resources if f"{key}/".startswith(path.key + "/")]
    old["properties"]["provisioningState"] = "Deleting"

    def work():
        for item in doomed:
            item.kind.undo(azure, item)

    def end(error):
        for item in [] if error else doomed:
            azure.resources.pop(item.key, None)

    if path.kind.operations:
        return Answer(202, None, start(azure, path, work, end, "DELETE"))
    work()
    end(None)
    return Answer(200)
