"""Azure Resource Manager: resources by path, long-running operations, lists, errors.

Documented: PUT/GET/PATCH/DELETE/HEAD on a resource's path, whatever its case; the error body
`{"error": {"code", "message"}}`; operations followed by `Azure-AsyncOperation` or `Location`;
children that go with their parent; identities filled in with their principal; lists by tag.
Read in azure-ai-ml 1.32.0 and azure-core: the routes, `retry-after-ms`, the operation's body,
`$orderBy=createdtime desc&$top`, `isDefault`, which versions are asked for (kinds.yaml).
Invented: errors' wording, how many looks an operation takes, that a GET counts as a look, no pages.
"""

import copy
import re
import threading
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone

RETRY = {"retry-after-ms": "50"}  # without it, a poll takes 5 to 30 s
LISTED = ("id", "name", "type", "location", "tags", "sku", "kind", "identity")
READS = re.compile("(keys|secrets|getlogs|token|uris|rundata)$", re.IGNORECASE)


@dataclass(frozen=True)
class Request:
    """What a client asked for; the body is parsed where it is JSON."""

    method: str
    path: str
    body: object = None
    host: str = "management.azure.com"
    query: dict = field(default_factory=dict)
    headers: dict = field(default_factory=dict)
    raw: bytes = b""

    @property
    def is_write(self):
        """Whether it changes something in Azure: what a dry run must not send."""
        reads = self.method in ("GET", "HEAD") or (
            self.method == "POST" and READS.search(self.path)
        )
        return self.host == "management.azure.com" and not reads


@dataclass
class Answer:
    status: int = 200
    body: object = None
    headers: dict = field(default_factory=dict)


class Refused(Exception):
    """A request that Azure turns down, or an operation that it ends as failed."""

    def __init__(self, status, code, message):
        super().__init__(message)
        self.status = status
        self.error = {"code": code, "message": message}


class ArmPath:
    """A path in Resource Manager. Its `key`, in lower case, is where the store has the resource."""

    def __init__(self, text):
        text = re.sub("/resourcegroups(?=/)", "/resourceGroups", text, flags=re.IGNORECASE)
        self.text = "/" + "/".join(part for part in text.split("/") if part)
        self.key = self.text.lower()
        self.scope, found, rest = self.text.rpartition("/providers/")
        if not found:  # a resource group
            parts = self.text.split("/")
            self.scope, rest = "/".join(parts[:3]), "/".join(["Microsoft.Resources", *parts[3:]])
        namespace, *parts = rest.split("/")
        self.type = "/".join([namespace, *parts[0::2]]).lower()
        self.name = parts[-1] if len(parts) % 2 == 0 else ""  # "": a collection
        self.parent = self.text.rsplit("/", 2)[0].lower() if len(parts) > 3 else self.scope.lower()
        workspace = re.search("/workspaces/([^/]+)", self.text, re.IGNORECASE)
        self.workspace = workspace.group(1) if workspace else ""


class Operation:
    """In progress for so many looks at it, and for as long as its work takes."""

    def __init__(self, looks, work, end):
        self.id, self.error = str(uuid.uuid4()), None
        self._looks, self._work, self._end = looks, work, end
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            self._work()
        except Refused as refused:
            self.error = refused.error
        except Exception as error:
            self.error = {"code": "InternalServerError", "message": repr(error)}

    def look(self):
        if self._looks > 0 or self._thread.is_alive():
            self._looks -= 1
            return "InProgress"
        end, self._end = self._end, lambda _: None
        end(self.error)
        return "Failed" if self.error else "Succeeded"


def stable_id(key):
    """A uuid that is the same for the same resource."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, key.lower()))


def merge(low, high):
    """`high` over `low`; a null takes the default, as Azure fills it in."""
    result = copy.deepcopy(low)
    for name, value in high.items():
        if isinstance(value, dict) and isinstance(result.get(name), dict):
            result[name] = merge(result[name], value)
        elif value is not None or name not in result:
            result[name] = copy.deepcopy(value)
    return result


def fill(template, names):
    """The template with `{name}` and the like replaced in its strings."""
    if isinstance(template, dict):
        return {name: fill(value, names) for name, value in template.items()}
    return template.format(**names) if isinstance(template, str) else template


def resource(azure, request):
    """Any request on a resource or a collection that has no route of its own."""
    path = ArmPath(request.path)
    kind = azure.kinds.get(path.type)
    if kind is None:
        raise Refused(404, "InvalidResourceType", f"the fake knows no {path.type}")
    version = request.query.get("api-version")
    if version not in kind.versions.split():
        text = f"{path.type} has no version {version}, but {kind.versions}"
        raise Refused(400, "NoRegisteredProviderFound", text)
    if not path.name:
        return list_all(azure, request, path)
    if request.method == "HEAD":
        return Answer(204 if path.key in azure.resources else 404)
    if request.method == "DELETE":
        return delete(azure, path)
    if request.method == "GET":
        return Answer(200, shown(azure, path))
    base = shown(azure, path) if request.method == "PATCH" else {}
    return put(azure, path, merge(base, request.body or {}))


def put(azure, path, body):
    kind, old = azure.kinds[path.type], azure.resources.get(path.key)
    parent = ArmPath(path.parent).parent if kind.versioned else path.parent
    if parent.count("/") > 2 and parent not in azure.resources:
        what = "ResourceGroup" if parent.count("/") == 4 else "ParentResource"
        raise Refused(404, f"{what}NotFound", f"{parent} could not be found.")
    if under_way(azure, path):
        raise Refused(409, "Conflict", f"{path.text} is being changed.")
    new = complete(azure, path, old, body)
    kind.check(azure, path, old, new)
    for name in kind.immutable.split() if old else ():
        if old["properties"].get(name) != new["properties"].get(name):
            raise Refused(409, "Conflict", f"{path.text} exists with another {name}.")
    azure.resources[path.key] = new
    if kind.versioned:
        count_version(azure, path)
    status, headers = 200 if old else 201, {}
    if kind.operations and kind.lasting:
        new["properties"]["provisioningState"] = "Updating" if old else "Creating"

        def end(error):
            new["properties"]["provisioningState"] = "Failed" if error else "Succeeded"

        headers = start(azure, path, lambda: kind.work(azure, path, new), end)
    return Answer(status, shown(azure, path), headers)


def complete(azure, path, old, body):
    """The document that Azure makes of a body."""
    kind, above = azure.kinds[path.type], azure.resources.get(path.parent, {})
    location = body.get("location") or above.get("location") or azure.region
    now = datetime.now(timezone.utc).isoformat()
    ids = {"uid": stable_id(path.key), "client": stable_id(path.key + "/client")}
    names = {"name": path.name, "id": path.text, "location": location.replace(" ", "").lower()}
    new = merge(fill(kind.defaults, names | ids | {"tenant": azure.tenant, "now": now}), body)
    created = old["systemData"]["createdAt"] if old else now
    times = {"createdAt": created, "createdBy": "fake", "lastModifiedAt": now}
    new |= {"id": path.text, "name": path.name, "type": kind.type, "systemData": times}
    identity = new.get("identity") or {}
    users = identity.get("userAssignedIdentities") or {}
    for user in [user for user, value in users.items() if value is not None]:
        found = azure.resources.get(user.lower())
        if found is None:
            raise Refused(400, "FailedIdentityOperation", f"The identity {user} was not found.")
        users[user] = {name: found["properties"][name] for name in ("principalId", "clientId")}
    if "system" in identity.get("type", "").lower():
        identity |= {"principalId": stable_id(path.key + "/system"), "tenantId": azure.tenant}
    return new


def count_version(azure, path):
    box = ArmPath(path.text.rsplit("/", 2)[0])
    following = str(int(path.name) + 1) if path.name.isdigit() else "1"
    counted = {"properties": {"latestVersion": path.name, "nextVersion": following}}
    azure.resources[box.key] = complete(azure, box, azure.resources.get(box.key), counted)


def start(azure, path, work=lambda: None, end=lambda error: None):
    """Begin an operation; the headers by which a client follows it."""

    def planned():
        fault = azure.planned("operation", path.text)
        if fault:
            raise Refused(400, fault["code"], fault["message"])
        work()

    operation = Operation(azure.polls, planned, end)
    azure.operations[operation.id] = azure.pending[path.key] = operation
    return following(azure, path, operation)


def following(azure, path, operation):
    kind = azure.kinds[path.type]
    provider = f"{'/'.join(path.text.split('/')[:3])}/providers/{kind.type.split('/')[0]}"
    route = f"https://management.azure.com{provider}/locations/{azure.region}/{kind.operations}"
    end = f"/{operation.id}?api-version={kind.versions.split()[0]}"
    return RETRY | {
        "Azure-AsyncOperation": route + "Status" + end,
        "Location": route + "Results" + end,
    }


def shown(azure, path):
    """The resource as a GET answers it. Raises Refused 404."""
    under_way(azure, path)
    if path.key not in azure.resources:
        kind = "ResourceGroup" if path.type.endswith("resourcegroups") else "Resource"
        raise Refused(404, f"{kind}NotFound", f"The resource {path.text} was not found.")
    document = copy.deepcopy(azure.resources[path.key])
    azure.kinds[path.type].show(azure, path, document)
    return document


def under_way(azure, path):
    """The resource's operation, if it has one that is not done; it counts as looked at."""
    found = azure.pending.get(path.key)
    if found and found.look() == "InProgress":
        return found
    azure.pending.pop(path.key, None)
    return None


def acted_on(azure, request):
    """The resource of a POST to …/{resource}/{action}. Raises Refused 404."""
    path = ArmPath(request.path.rsplit("/", 1)[0])
    shown(azure, path)
    return path


def list_all(azure, request, path):
    above = path.text.rsplit("/", 1)[0] if path.type.count("/") > 1 else path.scope
    paths = [ArmPath(each["id"]) for each in list(azure.resources.values())]
    chosen = [each for each in paths if each.type == path.type]
    found = [shown(azure, each) for each in chosen if each.key.startswith(above.lower() + "/")]
    query = {name.lower(): value for name, value in request.query.items()}
    if "$orderby" in query:
        found.sort(key=lambda each: each["systemData"]["createdAt"], reverse=True)
    if query.get("isdefault") == "true":
        found = [each for each in found if each["properties"].get("isDefault")]
    return Answer(200, {"value": found[: int(query.get("$top", len(found)))]})


def delete(azure, path):
    kind, old = azure.kinds[path.type], azure.resources.get(path.key)
    if old is None:
        return Answer(204)
    present = under_way(azure, path)
    if present and old["properties"]["provisioningState"] == "Deleting":
        return Answer(202, None, following(azure, path, present))
    if present:
        raise Refused(409, "Conflict", f"{path.text} is being changed.")
    kind.keep(azure, path)
    doomed = [ArmPath(key) for key in azure.resources if f"{key}/".startswith(path.key + "/")]
    old["properties"]["provisioningState"] = "Deleting"

    def work():
        for each in doomed:
            azure.kinds[each.type].undo(azure, each)

    def end(error):
        for each in [] if error else doomed:
            azure.resources.pop(each.key, None)

    if kind.operations:
        return Answer(202, None, start(azure, path, work, end))
    work()
    end(None)
    return Answer(200)


def followed(azure, request):
    """GET …OperationsStatus/{id}, whose body tells, or …OperationsResults/{id}, whose status does."""
    found = azure.operations[request.path.split("/")[-1]]
    state = found.look()
    if "Status" in request.path:
        return Answer(200, {"status": state, "error": found.error}, RETRY)
    return Answer(202 if state == "InProgress" else 204, None, RETRY)


def by_tag(azure, request):
    """GET resources?$filter=tagName eq 'x' and tagValue eq 'y'."""
    wanted = re.findall(r"'([^']*)'", request.query.get("$filter", ""))
    scope, found = request.path.rsplit("/", 1)[0].lower(), []
    for key, document in azure.resources.items():
        tags = document.get("tags") or {}
        carried = [name for name, value in tags.items() if [name, value][: len(wanted)] == wanted]
        kept = azure.kinds[ArmPath(key).type].tracked and key.startswith(scope + "/")
        if kept and (carried or not wanted):
            found.append({name: document.get(name) for name in LISTED})
    return {"value": found}


ROUTES = [
    ("GET", r".*/\w+(Status|Statuses|Results)/[^/]+", followed),
    ("GET", r"/subscriptions/[^/]+(/resourcegroups/[^/]+)?/resources", by_tag),
]
