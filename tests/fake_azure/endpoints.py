"""Online endpoints, their deployments, and the front end that scores.

Documented ("Troubleshoot online endpoints", "Blue-green deployment"): 401 for a wrong key, 404 for an
unknown deployment or no traffic, 408 after `requestTimeout`, 424 with `ms-azureml-model-error-*` for
what a container answers beside 200, 429 over twice its concurrency, `x-ms-request-id`, traffic that
sums to 0 or 100, mirrored traffic of at most 50 % to one deployment, two keys of which either works.
Read in azure-ai-ml 1.32.0: `regenerateKeys` sends the present key as `keyValue`; logs are text.
Invented: error texts, that live traffic stops a deletion, that a name is taken once per region, that
requests in flight end before their container does, quota that is compared to one deployment's cores
alone. A container without a scoring script (MLflow's, an image's) runs the folder that
`FakeAzure.stand_ins` names for it, and fails without one.
"""

import random
import re
import secrets
import shutil
import subprocess
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
from .arm import Answer, Refused, acted_on, start
from .identity import audience, signed
from .workspace import cores

START_S = 180  # until a container answers, and until one that goes has answered
KEYS = ("primaryKey", "secondaryKey")
AUDIENCES = {"amltoken": "aml_token", "aadtoken": "https://ml.azure.com"}
NO_TRAFFIC = (404, "not_found", "Specified traffic group could not be found")


def check_endpoint(azure, path, old, new):
    new["properties"].pop("keys", None)
    if old is None:
        azure.keys[path.key] = {name: secrets.token_urlsafe(24) for name in KEYS}
        ends = f"/onlineendpoints/{path.name.lower()}"
        if any(key.endswith(ends) for key in azure.resources):
            raise Refused(409, "Conflict", f"The endpoint name {path.name} is taken.")
    for name, most in (("traffic", 100), ("mirrorTraffic", 50)):
        weights = new["properties"][name]
        total = sum(weights.values())
        legal = total in (0, 100) if most == 100 else total <= most and len(weights) <= 1
        known = all(f"{path.key}/deployments/{each.lower()}" in azure.resources for each in weights)
        if not legal or not known or min(weights.values(), default=0) < 0:
            raise Refused(400, "BadArgument", f"{name} is not possible: {weights}")


def list_keys(azure, request):
    return azure.keys[acted_on(azure, request).key]


def regenerate_keys(azure, request):
    path, name = acted_on(azure, request), request.body["keyType"].lower() + "Key"
    given, present = request.body.get("keyValue"), azure.keys[path.key][name]
    fresh = secrets.token_urlsafe(24)
    azure.keys[path.key][name] = fresh if given in (None, present) else given
    return Answer(202, None, start(azure, path))


def get_token(azure, request):
    acted_on(azure, request)
    token = signed(azure, AUDIENCES["amltoken"])
    return {"accessToken": token, "expiryTimeUtc": int(time.time()) + 3600}


class Container:
    """A scoring folder in a process of its own, with the model's files beside it."""

    def __init__(self, azure, path, properties):
        self.folder = Path(tempfile.mkdtemp(dir=azure.folder, prefix=path.name + "-"))
        self.in_flight, self._log, self._azure = 0, self.folder / "log.txt", azure
        azure.logs[path.key] = self.log
        code, model = properties.get("codeConfiguration") or {}, properties.get("model")
        script = self.folder / "code" / (code.get("scoringScript") or "score.py")
        if code.get("codeId"):
            assets.fetch(azure, path.workspace, code["codeId"], self.folder / "code")
        else:
            shutil.copytree(_stand_in(azure, properties), self.folder / "code")
        variables = dict(properties.get("environmentVariables") or {})
        if model:
            mounted = assets.fetch_model(azure, path.workspace, model, self.folder / "models")
            variables["AZUREML_MODEL_DIR"] = str(mounted)
        runner = Path(__file__).with_name("runner.py")
        command = [sys.executable, str(runner), str(script), str(self.folder / "port")]
        broken = azure.planned("container", path.text)
        if broken:
            command = [sys.executable, "-c", f"raise SystemExit({broken['message']!r})"]
        environment = azure.bare_environment(variables)
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=script.parent, env=environment, stdout=log, stderr=log
            )
        azure.processes.append(self.process)

    def wait(self):
        """Until it answers. Raises Refused when it ends before."""
        port, until = self.folder / "port", time.monotonic() + START_S
        while not port.exists():
            if self.process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise Refused(400, "ResourceNotReady", "User container has crashed or terminated.")
            time.sleep(0.05)
        self.url = f"http://127.0.0.1:{port.read_text()}/score"

    def log(self):
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def stop(self):
        """Let what is in flight end, then end the process; the log stays."""
        until = time.monotonic() + START_S
        while self.in_flight and time.monotonic() < until:
            time.sleep(0.02)
        self.process.kill()
        self.process.wait()

    def leave(self):
        with self._azure.lock:
            self.in_flight -= 1


def _stand_in(azure, properties):
    environment = azure.resources.get((properties.get("environmentId") or "").lower(), {})
    image = environment.get("properties", {}).get("image") or "mlflow"
    if image not in azure.stand_ins:
        raise Refused(400, "ImageNotKnown", f"the fake has no stand-in for {image}")
    return azure.stand_ins[image]


def keep_live(azure, path):
    weight = azure.resources[path.parent]["properties"]["traffic"].get(path.name)
    if weight:
        raise Refused(400, "BadArgument", f"{path.name} has {weight} % of the traffic.")


def run_deployment(azure, path, new):
    family, count = cores(new["properties"].get("instanceType", ""))
    needed = count * new["sku"]["capacity"]
    limit, used = azure.quotas.get(family, (needed, 0))
    if needed > limit - used:
        raise Refused(400, "OutOfQuota", f"{family}: {needed} cores wanted, {limit - used} left.")
    container = Container(azure, path, new["properties"])
    container.wait()
    stop_deployment(azure, path, container)


def stop_deployment(azure, path, successor=None):
    with azure.lock:
        old = azure.containers.pop(path.key, None)
        if successor:
            azure.containers[path.key] = successor
    if old:
        old.stop()


def deployment_logs(azure, request):
    lines = azure.logs.get(acted_on(azure, request).key, str)().splitlines()
    return {"content": "\n".join(lines[-(request.body.get("tail") or 1000) :])}


def score(azure, request):
    """POST https://{endpoint}.{region}.inference.ml.azure.com/score."""
    ends = f"/onlineendpoints/{request.host.split('.')[0]}"
    found = [key for key in list(azure.resources) if key.endswith(ends)]
    if not found:
        return _refuse(404, "endpoint_not_found", "there is no such endpoint")
    key, endpoint = found[0], azure.resources[found[0]]["properties"]
    if not _may_score(azure, key, endpoint["authMode"].lower(), request):
        return _refuse(401, "key_auth_bad_header_forbidden", "the key or the token is wrong")
    live = {name: weight for name, weight in endpoint["traffic"].items() if weight > 0}
    named = request.headers.get("azureml-model-deployment")
    if not named and not live:
        return _refuse(*NO_TRAFFIC)
    chosen = named or random.choices(list(live), list(live.values()))[0]
    for mirror, weight in endpoint["mirrorTraffic"].items():
        if random.random() * 100 < weight:
            copied = (azure, f"{key}/deployments/{mirror.lower()}", request)
            threading.Thread(target=_forward, args=copied, daemon=True).start()
    return _forward(azure, f"{key}/deployments/{chosen.lower()}", request)


def _may_score(azure, endpoint, mode, request):
    given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
    if mode == "key":
        return given in azure.keys[endpoint].values()
    return audience(azure, request) == AUDIENCES[mode]


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
    seconds = isodate.parse_duration(settings["requestTimeout"]).total_seconds()
    try:
        with requests.Session() as session:
            session.trust_env = False  # not through the proxy that the product is given
            answer = session.post(
                container.url, request.raw, headers=passed, stream=True, timeout=seconds
            )
    except requests.RequestException as error:
        container.leave()
        slow = isinstance(error, requests.Timeout)
        return _refuse(408 if slow else 502, "model_error", "the container did not answer")
    headers = _ids() | {"content-type": answer.headers.get("content-type", "")}
    failed = answer.status_code != 200
    if failed:
        headers["ms-azureml-model-error-statuscode"] = str(answer.status_code)
        headers["ms-azureml-model-error-reason"] = "model_error"
    body = _body(container, answer)
    next(body)  # begun, it ends even when nobody reads it
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


ROUTES = [
    ("POST", r".*/onlineEndpoints/[^/]+/listKeys", list_keys),
    ("POST", r".*/onlineEndpoints/[^/]+/regenerateKeys", regenerate_keys),
    ("POST", r".*/onlineEndpoints/[^/]+/token", get_token),
    ("POST", r".*/deployments/[^/]+/getLogs", deployment_logs),
]
