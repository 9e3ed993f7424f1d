"""Sign-in, role definitions and role assignments.

Documented: the sign-in routes, role ids, 409 RoleAssignmentExists for the same principal, role and
scope under another name, and that an assignment outlives its principal.
Read in azure-identity: which fields of the token's answer are used.
Invented: tokens are signed by a key of the fake; any client secret signs in; nobody's roles are
looked at, a 403 has to be planned by `FakeAzure.fail`.
"""

import re
import time
from urllib.parse import parse_qs

import jwt

from .arm import ArmPath, Refused

ROLES = {
    "Contributor": "b24988ac-6180-42a0-ab88-20f7382dd24c",
    "AcrPull": "7f951dda-4ed3-4680-a7ca-43fe172d538d",
    "Storage Blob Data Reader": "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1",
    "AzureML Data Scientist": "f6c7c914-8db3-469d-8ca1-694a8f32e121",
    "AzureML Metrics Writer (preview)": "635dd51f-9968-44d3-b7fb-6d9a6bd613ae",
    "Azure Machine Learning Workspace Connection Secrets Reader": (
        "ea01e6af-a1c1-4350-9563-ad00f8c72ec5"
    ),
}
DEFINITIONS = "Microsoft.Authorization/roleDefinitions"


def configuration(azure, request):
    here = f"https://{request.host}/{request.path.split('/')[1]}"
    return {
        "issuer": f"{here}/v2.0",
        "authorization_endpoint": f"{here}/oauth2/v2.0/authorize",
        "token_endpoint": f"{here}/oauth2/v2.0/token",
    }


def token(azure, request):
    scope = parse_qs(request.raw.decode())["scope"][0].split()[0]
    access = signed(azure, scope.removesuffix("/.default").rstrip("/"))
    return {"token_type": "Bearer", "expires_in": 3600, "access_token": access}


def signed(azure, audience):
    claims = {"aud": audience, "tid": azure.tenant, "oid": azure.client, "exp": time.time() + 3600}
    return jwt.encode(claims, azure.secret, algorithm="HS256")


def audience(azure, request):
    """Who the request's token is for; "" without a valid one."""
    text = request.headers.get("authorization", "").removeprefix("Bearer ")
    try:
        options = {"verify_aud": False}
        return jwt.decode(text, azure.secret, algorithms=["HS256"], options=options)["aud"]
    except jwt.InvalidTokenError:
        return ""


def role_definitions(azure, request):
    wanted = re.search(r"roleName eq '([^']*)'", request.query.get("$filter", ""))
    names = [name for name in ROLES if not wanted or name == wanted.group(1)]
    base = "/".join(request.path.split("/")[:3])
    return {"value": [_role(name, f"{base}/providers/{DEFINITIONS}") for name in names]}


def _role(name, base):
    properties = {"roleName": name, "type": "BuiltInRole"}
    return {"id": f"{base}/{ROLES[name]}", "name": ROLES[name], "properties": properties}


def check_assignment(azure, path, old, new):
    new["properties"]["scope"] = path.scope
    others = [key for key in azure.resources if ArmPath(key).type == path.type and key != path.key]
    for key in others:
        if _meaning(azure.resources[key]) == _meaning(new):
            raise Refused(409, "RoleAssignmentExists", "The role assignment already exists.")


def _meaning(document):
    names = ("principalId", "roleDefinitionId", "scope")
    return [document["properties"][name].lower() for name in names]


ROUTES = [
    ("GET", r"/[^/]+/v2.0/.well-known/openid-configuration", configuration),
    ("POST", r"/[^/]+/oauth2/v2.0/token", token),
    ("GET", rf".*/providers/{DEFINITIONS}", role_definitions),
]
