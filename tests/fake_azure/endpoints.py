"""Online endpoints, their deployments, and the front end that scores."""

import random
import re
import secrets
import shutil
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

import isodate
import requests
from starlette.responses import JSONResponse, StreamingResponse

from . import assets
from .arm import acted_on, hook, operation_uri, refuse_during_change, route, start
from .identity import audience
from .messages import Answer, Refused
from .storage import ML
from .workspace import cores

START_S = 180  # limit for a container's start, and for its requests in flight when it stops
AUDIENCE = "https://ml.azure.com"
DEPLOYMENTS = f"{ML}/onlineEndpoints/deployments"
ENDPOINT_PROVIDERS = ("microsoft.cdn", "microsoft.policyinsights")  # an endpoint needs them too
NO_TRAFFIC = (404, "not_found", "Specified traffic group could not be found")


@hook("check", f"{ML}/onlineEndpoints")
def check_endpoint(azure, path, old, new):
    new["properties"].pop("keys", None)
    own = {"azureml.onlineendpointid": path.key}
    own["AzureAsyncOperationUri"] = operation_uri(azure, path)
    new["properties"]["properties"] = new["properties"]["properties"] | own
    if old is None:
        if _key_of(azure, path.name):
            raise Refused(409, "Conflict", f"The endpoint name {path.name} is taken.")
        names = ("primaryKey", "secondaryKey")
        azure.keys[path.key] = {name: secrets.token_urlsafe(24) for name in names}
    for field, most in (("traffic", 100), ("mirrorTraffic", 50)):
        weights = new["properties"][field]
        total = sum(weights.values())
        legal = total in (0, 100) if most == 100 else total <= most and len(weights) <= 1
        known = all(f"{path.key}/deployments/{name.lower()}" in azure.resources for name in weights)
        if not legal or not known or min(weights.values(), default=0) < 0:
            raise Refused(400, "BadArgument", f"{field} is not valid: {weights}")


@hook("work", f"{ML}/onlineEndpoints")
def need_providers(azure, path, new):
    """Fail like Azure in a subscription without the providers that an endpoint needs."""
    if azure.unregistered.intersection(ENDPOINT_PROVIDERS):
        text = "Resource provider [N/A] isn't registered with Subscription [N/A]."
        raise Refused(400, "SubscriptionNotRegistered", text)


@hook("check", DEPLOYMENTS)
def check_deployment(azure, path, old, new):
    if azure.roles_lag:
        azure.roles_lag -= 1
        raise Refused(403, "AuthorizationFailed", "The identity has no role on the resource yet.")
    own = {"AzureAsyncOperationUri": operation_uri(azure, path)}
    new["properties"]["properties"] = new["properties"]["properties"] | own


def _key_of(azure, endpoint):
    suffix = f"/onlineendpoints/{endpoint.lower()}"
    return next((key for key in list(azure.resources) if key.endswith(suffix)), None)


@route("POST", r".*/onlineEndpoints/[^/]+/listKeys")
def list_keys(azure, request):
    return azure.keys[acted_on(azure, request).key]


@route("POST", r".*/onlineEndpoints/[^/]+/regenerateKeys")
def regenerate_keys(azure, request):
    path, name = acted_on(azure, request), request.body["keyType"].lower() + "Key"
    refuse_during_change(azure, path)
    azure.keys[path.key][name] = request.body.get("keyValue") or secrets.token_urlsafe(24)
    return Answer(202, None, start(azure, path, method="POST"))


class Container:
    """A scoring script in its own process, with the model's files."""

    def __init__(self, azure, path, properties):
        folder = Path(tempfile.mkdtemp(dir=azure.folder, prefix=path.name + "-"))
        self.in_flight, self._lock, self._port = 0, azure.lock, folder / "port"
        code = properties.get("codeConfiguration") or {}
        script = folder / "code" / (code.get("scoringScript") or "score.py")
        if code.get("codeId"):
            assets.fetch(azure, path.workspace, code["codeId"], folder / "code")
        else:
            shutil.copytree(_stand_in(azure, properties), folder / "code")
        variables = dict(properties.get("environmentVariables") or {})
        if model := properties.get("model"):
            mounted = assets.fetch_model(azure, path.workspace, model, folder / "models")
            variables["AZUREML_MODEL_DIR"] = str(mounted)
        command = [sys.executable, Path(__file__).with_name("runner.py"), script, self._port]
        if broken := azure.planned("container", path.text):
            command = [sys.executable, "-c", f"raise SystemExit({broken['message']!r})"]
        log = azure.logs[path.key] = folder / "log.txt"
        self.process = azure.spawn(command, script.parent, azure.bare_environment(variables), log)

    def wait(self):
        """Wait until the container answers. Raises Refused if it ends before."""
        until = time.monotonic() + START_S
        while not self._port.exists():
            if self.process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise Refused(400, "ResourceNotReady", "User container has crashed or terminated.")
            time.sleep(0.05)
        self.url = f"http://127.0.0.1:{self._port.read_text()}"

    def stop(self):
        """Wait for the requests in flight, then end the process; the log stays."""
        until = time.monotonic() + START_S
        while self.in_flight and time.monotonic() < until:
            time.sleep(0.02)
        self.process.kill()
        self.process.wait()

    def leave(self):
        with self._lock:
            self.in_flight -= 1


def _stand_in(azure, properties):
    environment = azure.resources.get((properties.get("environmentId") or "").lower(), {})
    image = environment.get("properties", {}).get("image") or "mlflow"
    if image not in azure.stand_ins:
        raise Refused(400, "ImageNotKnown", f"the fake has no stand-in for the image {image}")
    return azure.stand_ins[image]


@hook("keep", DEPLOYMENTS)
def keep_live(azure, path):
    weight = azure.resources[path.parent]["properties"]["traffic"].get(path.name)
    if weight:
        raise Refused(400, "BadArgument", f"{path.name} has {weight} % of the traffic.")


@hook("work", DEPLOYMENTS)
def run_deployment(azure, path, new):
    family, count = cores(new["properties"].get("instanceType", ""))
    needed = count * new["sku"]["capacity"]
    limit, used = azure.quotas.get(family, (needed, 0))
    if needed > limit - used:
        raise Refused(400, "OutOfQuota", f"{family}: {needed} cores wanted, {limit - used} left.")
    container = Container(azure, path, new["properties"])
    container.wait()
    stop_deployment(azure, path, container)


@hook("undo", DEPLOYMENTS)
def stop_deployment(azure, path, successor=None):
    with azure.lock:
        old = azure.containers.pop(path.key, None)
        if successor:
            azure.containers[path.key] = successor
    if old:
        old.stop()


@route("POST", r".*/deployments/[^/]+/getLogs")
def deployment_logs(azure, request):
    log = azure.logs.get(acted_on(azure, request).key)
    lines = log.read_text(errors="replace").splitlines() if log else []
    return {"content": "\n".join(lines[-(request.body.get("tail") or 1000) :])}


def score(azure, request):
    """Answer POST https://{endpoint}.{region}.inference.ml.azure.com/score; other paths are possible."""
    key = _key_of(azure, request.host.split(".")[0])
    if not key:
        return _refuse(404, "endpoint_not_found", "the endpoint does not exist")
    endpoint = azure.resources[key]["properties"]
    token = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
    by_key = endpoint["authMode"].lower() == "key"
    valid = token in azure.keys[key].values() if by_key else audience(azure, request) == AUDIENCE
    if not valid:
        return _refuse(401, "key_auth_bad_header_forbidden", "the key or the token is wrong")
    live = {name: weight for name, weight in endpoint["traffic"].items() if weight > 0}
    requested = request.headers.get("azureml-model-deployment")
    if not requested and not live:
        return _refuse(*NO_TRAFFIC)
    chosen = requested or random.choices(list(live), list(live.values()))[0]
    for mirror, weight in endpoint["mirrorTraffic"].items():
        if random.random() * 100 < weight:
            copied = (azure, f"{key}/deployments/{mirror.lower()}", request)
            threading.Thread(target=_forward, args=copied, daemon=True).start()
    return _forward(azure, f"{key}/deployments/{chosen.lower()}", request)


def _forward(azure, key, request):
    with azure.lock:
        container = azure.containers.get(key)
        if container is None:
            return _refuse(*NO_TRAFFIC)
        settings = azure.resources[key]["properties"]["requestSettings"]
        instances = azure.resources[key]["sku"]["capacity"]
        if container.in_flight >= 2 * settings["maxConcurrentRequestsPerInstance"] * instances:
            return _refuse(429, "too_many_requests", "too many requests are in flight")
        container.in_flight += 1
    azure.scored[key.rsplit("/", 1)[1]] += 1
    passed = {k: v for k, v in request.headers.items() if re.match("content-type|accept$|x-ms-", k)}
    options = {"data": request.raw, "headers": passed, "stream": True}
    options["timeout"] = isodate.parse_duration(settings["requestTimeout"]).total_seconds()
    try:
        with requests.Session() as session:
            session.trust_env = False  # do not use the product's proxy
            answer = session.post(container.url + request.path, **options)
    except requests.RequestException as error:
        container.leave()
        slow = isinstance(error, requests.Timeout)
        return _refuse(408 if slow else 502, "model_error", "the container did not answer")
    headers = _ids() | {"content-type": answer.headers.get("content-type", "")}
    if failed := answer.status_code != 200:
        headers["ms-azureml-model-error-statuscode"] = str(answer.status_code)
        headers["ms-azureml-model-error-reason"] = "model_error"
    body = _body(container, answer)
    next(body)  # a generator that has begun is closed even if nobody reads it
    return StreamingResponse(body, 424 if failed else 200, headers)


def _body(container, answer):
    try:
        yield b""
        yield from answer.iter_content(None)
    finally:
        answer.close()
        container.leave()


def _ids():
    return {"x-ms-request-id": str(uuid.uuid4())}


def _refuse(status, code, message):
    return JSONResponse({"error": {"code": code, "message": message}}, status, _ids())
