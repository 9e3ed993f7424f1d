"""Sign-in, role definitions and role assignments."""

import re
import time
from urllib.parse import parse_qs

import jwt

from .arm import TABLE, ArmPath, hook, route, shown
from .messages import Refused

ROLES = TABLE["roles"]
DEFINITIONS = "Microsoft.Authorization/roleDefinitions"


@route("GET", r"/[^/]+/v2.0/.well-known/openid-configuration")
def configuration(azure, request):
    authority = f"https://{request.host}/{request.path.split('/')[1]}"
    urls = {name: f"{authority}/oauth2/v2.0/{name}" for name in ("authorize", "token")}
    endpoints = {"authorization_endpoint": urls["authorize"], "token_endpoint": urls["token"]}
    return endpoints | {"issuer": f"{authority}/v2.0"}


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
    """Return the audience of the request's token; "" without a valid token."""
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
    definitions = []
    for name, role in ROLES.items():
        if not wanted or name == wanted.group(1):
            properties = {"roleName": name, "type": "BuiltInRole"}
            definitions.append({"id": f"{base}/{role}", "name": role, "properties": properties})
    return {"value": definitions}


@route("GET", r"/subscriptions/[^/]+")
def subscription(azure, request):
    return {"id": request.path, "displayName": "the fake's subscription", "state": "Enabled"}


@route("GET", r".*/resourceGroups/[^/]+/providers/Microsoft.Authorization/permissions")
def permissions(azure, request):
    shown(azure, ArmPath(request.path.split("/providers/")[0]))
    return {"value": [{"actions": azure.actions, "notActions": []}]}


@route("POST", r".*/providers/Microsoft.ContainerRegistry/checkNameAvailability")
def check_name(azure, request):
    free = request.body["name"] not in azure.taken
    return {"nameAvailable": free, "message": None if free else "The name is already in use."}


@route("POST", r".*/providers/Microsoft.PolicyInsights/checkPolicyRestrictions")
def check_policies(azure, request):
    shown(azure, ArmPath(request.path.split("/providers/")[0]))
    policy = azure.denied.get(request.body["resourceDetails"]["resourceContent"]["type"].lower())
    assignment = f"/providers/Microsoft.Authorization/policyAssignments/{policy}"
    denial = {"evaluationResult": "NonCompliant", "effectDetails": {"policyEffect": "Deny"}}
    denial["policyInfo"] = {"policyAssignmentId": assignment}
    return {"contentEvaluationResult": {"policyEvaluations": [denial] if policy else []}}


@hook("check", "Microsoft.Authorization/roleAssignments")
def check_assignment(azure, path, old, new):
    new["properties"]["scope"] = path.scope
    principal = new["properties"]["principalId"]
    azure.refused_principals[principal] += 1
    if azure.refused_principals[principal] <= azure.directory_lag:
        text = f"Principal {principal} does not exist in the directory {azure.tenant}."
        raise Refused(400, "PrincipalNotFound", text)
    for key, other in azure.resources.items():
        same = ArmPath(key).type == path.type and _content(other) == _content(new)
        if same and key != path.key:
            raise Refused(409, "RoleAssignmentExists", "The role assignment already exists.")


def _content(document):
    names = ("principalId", "roleDefinitionId", "scope")
    return [document["properties"][name].lower() for name in names]
