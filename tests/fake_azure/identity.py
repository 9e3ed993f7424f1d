"""Sign-in, role definitions and role assignments."""

import re
import time
from urllib.parse import parse_qs

import jwt

from .arm import TABLE, ArmPath, Refused, hook, route

ROLES = TABLE["roles"]
DEFINITIONS = "Microsoft.Authorization/roleDefinitions"


@route("GET", r"/[^/]+/v2.0/.well-known/openid-configuration")
def configuration(azure, request):
    here = f"https://{request.host}/{request.path.split('/')[1]}"
    ends = {name: f"{here}/oauth2/v2.0/{name}" for name in ("authorize", "token")}
    found = {"authorization_endpoint": ends["authorize"], "token_endpoint": ends["token"]}
    return found | {"issuer": f"{here}/v2.0"}


@route("POST", r"/[^/]+/oauth2/v2.0/token")
def token(azure, request):
    scope = parse_qs(request.raw.decode())["scope"][0].split()[0]
    claims = {"aud": scope.removesuffix("/.default").rstrip("/"), "exp": time.time() + 3600}
    claims |= {"tid": azure.tenant, "oid": azure.client}
    claims |= {"iss": f"https://sts.windows.net/{azure.tenant}/"}  # Azurite reads these
    claims |= dict.fromkeys(("iat", "nbf"), int(time.time()))
    access = jwt.encode(claims, azure.secret, algorithm="HS256")
    return {"token_type": "Bearer", "expires_in": 3600, "access_token": access}


def audience(azure, request):
    """Who the request's token is for; "" without a valid one."""
    text = request.headers.get("authorization", "").removeprefix("Bearer ")
    try:
        options = {"verify_aud": False}
        return jwt.decode(text, azure.secret, algorithms=["HS256"], options=options)["aud"]
    except jwt.InvalidTokenError:
        return ""


@route("GET", rf".*/providers/{DEFINITIONS}")
def role_definitions(azure, request):
    wanted = re.search(r"roleName eq '([^']*)'", request.query.get("$filter", ""))
    base = "/".join(request.path.split("/")[:3]) + f"/providers/{DEFINITIONS}"
    found = []
    for name, role in ROLES.items():
        if not wanted or name == wanted.group(1):
            properties = {"roleName": name, "type": "BuiltInRole"}
            found.append({"id": f"{base}/{role}", "name": role, "properties": properties})
    return {"value": found}


@hook("check", "Microsoft.Authorization/roleAssignments")
def check_assignment(azure, path, old, new):
    new["properties"]["scope"] = path.scope
    for key, other in azure.resources.items():
        same = ArmPath(key).type == path.type and _meaning(other) == _meaning(new)
        if same and key != path.key:
            raise Refused(409, "RoleAssignmentExists", "The role assignment already exists.")


def _meaning(document):
    names = ("principalId", "roleDefinitionId", "scope")
    return [document["properties"][name].lower() for name in names]
