"""Prompt flow's service, and the file share in which it stores flows."""

import base64
import hashlib
import re
from datetime import datetime, timezone
from uuid import uuid4
from xml.sax.saxutils import escape

from starlette.responses import Response

from .arm import ArmPath, complete, route, shown
from .messages import Answer, Refused
from .storage import ACCOUNT

SHARE = "code-flows"
WS = r".*/workspaces/[^/]+"


class Raw(Response, Answer):
    """An answer that consists of bytes."""


def open_share(azure, workspace):
    """Create a workspace's datastore for flows; clients read it by identity, without a key."""
    path = ArmPath(f"{workspace}/datastores/workspaceworkingdirectory")
    kind = {"datastoreType": "AzureFile", "fileShareName": SHARE, "accountName": ACCOUNT}
    body = {"properties": kind | {"credentials": {"credentialsType": "None"}}}
    azure.resources[path.key] = complete(azure, path, None, body)


@route("POST", rf"/flow/api{WS}/flows")
def create_flow(azure, request):
    workspace, body = (
        ArmPath(request.path.removeprefix("/flow/api").rsplit("/", 1)[0]),
        request.body,
    )
    shown(azure, workspace)  # 404 without the workspace
    if body["flowDefinitionFilePath"] not in azure.share:
        raise Refused(400, "UserError", f"{body['flowDefinitionFilePath']} does not exist.")
    name = str(uuid4())
    azure.flows[name] = body | {
        "flowId": name,
        "flowResourceId": f"azureml:{workspace.text}/flows/{name}",
        "workspace": workspace.key,
        "createdDate": datetime.now(timezone.utc).isoformat(),
        "isArchived": False,
        "owner": {"userObjectId": azure.client, "userTenantId": azure.tenant},
        "studioPortalEndpoint": f"https://ml.azure.com/prompts/flow/{name}/details",
    }
    return azure.flows[name]


@route("GET", rf"/flow/api{WS}/flows/[^/]+")
def get_flow(azure, request):
    flow = azure.flows.get(request.path.rsplit("/", 1)[1])
    if flow is None or flow["workspace"] not in request.path.lower():
        raise Refused(404, "UserError", "The flow was not found.")
    return flow


@route("POST", rf"/index/v1.0{WS}/entities")
def search(azure, request):
    """Return the workspace's flows, newest first. Filters are ignored, as there is one owner."""
    workspace = request.path.removeprefix("/index/v1.0").removesuffix("/entities").lower()
    flows = [flow for flow in azure.flows.values() if flow["workspace"] == workspace]
    entities = [
        {
            "entityId": flow["flowResourceId"],
            "properties": {
                name: flow[name] for name in ("flowId", "flowType", "flowDefinitionFilePath")
            },
            "annotations": {
                name: flow.get(name)
                for name in ("flowName", "description", "tags", "owner", "isArchived")
            },
        }
        for flow in flows[::-1]
    ]
    return {"value": entities[: request.body["pageSize"]], "totalCount": len(entities)}


# -- the file share --------------------------------------------------------------------------------


@route("PUT", rf"/{SHARE}/.*")
def put_file(azure, request):
    """Create Directory, Create File, Put Range."""
    files, name = azure.share, request.path.removeprefix(f"/{SHARE}").strip("/")
    if request.query.get("comp") == "range":
        first, last = map(int, re.findall(r"\d+", request.headers["x-ms-range"]))
        files[name] = files[name][:first] + request.raw + files[name][last + 1 :]
        digest = hashlib.md5(request.raw).digest()
        return stored(201, md5=digest)
    if name.rpartition("/")[0] not in files:
        return share_error(404, "ParentNotFound")
    if request.query.get("restype") == "directory":
        if name in files:
            return share_error(409, "ResourceAlreadyExists")
        files[name] = None
    else:
        files[name] = bytes(int(request.headers["x-ms-content-length"]))
    return stored(201)


@route("GET", rf"/{SHARE}/.*")
def get_file(azure, request):
    """Get Directory Properties, List Directories and Files, Get File."""
    files, name = azure.share, request.path.removeprefix(f"/{SHARE}").strip("/")
    folder = request.query.get("restype") == "directory"
    if name not in files or (files[name] is None) != folder:
        return share_error(404, "ResourceNotFound")
    if not folder:
        end = len(files[name]) - 1
        span = re.findall(r"\d+", request.headers.get("x-ms-range", f"0-{end}"))
        part = files[name][int(span[0]) : int(span[1]) + 1]
        headers = {"content-range": f"bytes {span[0]}-{int(span[0]) + len(part) - 1}/{end + 1}"}
        return stored(206, part, **headers)
    if request.query.get("comp") != "list":
        return stored(200)
    inside = [path for path in sorted(files) if path and path.rpartition("/")[0] == name]
    entries = "".join(entry(path.rpartition("/")[2], files[path]) for path in inside)
    text = f"<EnumerationResults><Entries>{entries}</Entries><NextMarker/></EnumerationResults>"
    return stored(200, text.encode(), **{"content-type": "application/xml"})


def entry(name, content):
    if content is None:
        return f"<Directory><Name>{escape(name)}</Name><Properties/></Directory>"
    size = f"<Properties><Content-Length>{len(content)}</Content-Length></Properties>"
    return f"<File><Name>{escape(name)}</Name>{size}</File>"


def share_error(status, code):
    return stored(status, **{"x-ms-error-code": code})


def stored(status, content=b"", md5=None, **headers):
    usual = {"last-modified": "Thu, 01 Jan 2026 00:00:00 GMT", "etag": '"0x1"'}
    if md5:
        usual["content-md5"] = base64.b64encode(md5).decode()
    return Raw(content, status, usual | headers)
