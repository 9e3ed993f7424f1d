"""Runs of prompt flow's service, which really run.

A run takes the flow from the file share, its data from blob storage and the workspace's connections, and
leaves its outputs in blob storage where promptflow's downloader looks. Its engine is prompt flow's own.
"""

import json
import re
import sys
from datetime import datetime, timezone

from . import assets
from .arm import ArmPath, Refused, route, shown
from .flows import WS
from .jobs import Work
from .storage import box_of, url

ROOT = "promptflow/PromptFlowArtifacts"
OUTPUTS = {"debug_info": "", "flow_outputs": "/flow_outputs"}
AT_ONCE = 25  # records in a file, as the client's uploader has it

ENGINE = """
import json, pathlib, sys
told = pathlib.Path("told.json")
given = json.loads(told.read_text())
told.unlink()
from promptflow.client import PFClient
from promptflow.connections import CustomConnection
from promptflow.entities import Run
client = PFClient()
for each in given["connections"]:
    client.connections.create_or_update(CustomConnection(**each))
run = client.runs.create_or_update(Run(**given["run"]), batch_use_async=True)
counted = run.properties["system_metrics"]
tokens = {f"azureml.promptflow.{k}": str(v) for k, v in counted.items() if k.endswith("_tokens")}
pathlib.Path(run._output_path, "tokens.json").write_text(json.dumps(tokens))
sys.exit(run.status != "Completed")
"""


class FlowRun(Work):
    """One run: its process, its state, what it left."""

    def __init__(self, azure, place, body):
        self.place, self.body, self.name = place, body, body["runId"]
        self.created, self._box = datetime.now(timezone.utc).isoformat(), box_of(place.name)
        path = ArmPath(f"{place.text}/bulkruns/{self.name}")
        super().__init__(azure, path, ["NotStarted", "Running"])

    @property
    def home(self):
        return self.folder / "home"

    @property
    def left(self):
        return self.home / ".runs" / self.name

    def history(self):
        """What the run history says of it."""
        status, error = self.state(), self.read("error.json") or {"message": self.error}
        ended = status in ("Completed", "Failed") and error["message"]
        own = {"azureml.promptflow.snapshot_id": self.name, **self.read("tokens.json")}
        outputs = {name: {"assetId": f"azureml://runs/{self.name}/{name}"} for name in OUTPUTS}
        found = {"runId": self.name, "runType": "azureml.promptflow.FlowRun", "status": status}
        found |= {
            "createdUtc": self.created,
            "createdBy": {},
            "properties": own,
            "outputs": outputs,
        }
        found |= {"displayName": self.body["runDisplayName"], "description": ""}
        return found | {"tags": self.body["tags"], "error": {"error": error} if ended else None}

    def read(self, name):
        """A JSON file that the run left, or nothing."""
        file = self.left / name
        return json.loads(file.read_text()) if file.is_file() else {}

    def do(self):
        self.home.mkdir()
        (self.home / "pf.yaml").write_text("telemetry: {enabled: false}")
        self._execute()
        self._keep()

    def _execute(self):
        body, given = self.body, ("connections", "environmentVariables")
        data = self.folder / body["batchDataInput"]["dataUri"].rsplit("/", 1)[-1]
        assets.fetch(self.azure, self.place.name, body["batchDataInput"]["dataUri"], data)
        connections, variables = (body[each] for each in given)
        run = {"flow": str(self._flow()), "data": str(data), "name": self.name}
        run |= {"column_mapping": body["inputsMapping"], "connections": connections}
        told = {"run": run, "connections": list(self._connections())}
        (self.folder / "told.json").write_text(json.dumps(told))
        own = {"PF_HOME_DIRECTORY": str(self.home), "PF_LOGGING_LEVEL": "INFO"}
        own["PF_DISABLE_TRACING"] = str(body["disableTrace"]).lower()
        environment, said = self.azure.bare_environment(variables | own), self.folder / "said.txt"
        process = self.azure.spawn([sys.executable, "-c", ENGINE], self.folder, environment, said)
        if process.wait():
            raise Refused(400, "UserError", said.read_text().strip().splitlines()[-1])

    def _flow(self):
        """The uploaded flow that the run names, from the share."""
        found = self.azure.flows[self.body["flowDefinitionResourceId"].rsplit("/", 1)[1]]
        root = found["flowDefinitionFilePath"].rsplit("/", 1)[0] + "/"
        for name, content in self.azure.share.items():
            if name.startswith(root) and content is not None:
                target = self.folder / "flow" / name.removeprefix(root)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
        return self.folder / "flow"

    def _connections(self):
        for key, each in list(self.azure.resources.items()):
            if key.startswith(f"{self.place.key}/connections/"):
                own = each["properties"]
                configs = {k: v for k, v in own["metadata"].items() if not k.startswith("azureml")}
                yield {
                    "name": each["name"],
                    "configs": configs,
                    "secrets": own["credentials"]["keys"],
                }

    def _keep(self):
        store, below = self.azure.storage, f"{ROOT}/{self.name}"
        records = sorted((self.left / "flow_artifacts").glob("*.jsonl"))
        for first in range(0, len(records), AT_ONCE):
            name = f"flow_artifacts/{first:09}_{first + AT_ONCE - 1:09}.jsonl"
            lines = [each.read_text().strip() for each in records[first : first + AT_ONCE]]
            store.put(self._box, f"{below}/{name}", "\n".join([*lines, ""]))
        for name in ("flow_outputs", "node_artifacts"):
            store.put_folder(self._box, f"{below}/{name}", self.left / name)
        store.put_folder(self._box, f"runs/{self.name}", self.left / "snapshot")


def place_of(request):
    return ArmPath(re.search(r"/subscriptions/.*/workspaces/[^/]+", request.path, re.I)[0])


def run_of(azure, request, name):
    """Raises Refused 404."""
    found = azure.runs.get(f"{place_of(request).key}/bulkruns/{name.lower()}")
    if found is None:
        raise Refused(404, "UserError", f"Run {name} not found.")
    return found


@route("GET", rf"/flow/api{WS}/TraceSessions")
def cosmos(azure, request):
    return {"traceCosmosConfiguration": "None", "traceCosmosStatus": "Initialized"}


@route("POST", rf"/flow/api{WS}/bulkruns/submit")
def submit(azure, request):
    place, body = place_of(request), request.body
    shown(azure, place)  # 404 without the workspace
    if body["flowDefinitionResourceId"].rsplit("/", 1)[1] not in azure.flows:
        raise Refused(404, "UserError", "The flow was not found.")
    key = f"{place.key}/bulkruns/{body['runId'].lower()}"
    if key in azure.runs:
        raise Refused(409, "UserError", f"The run {body['runId']} is there already.")
    azure.runs[key] = FlowRun(azure, place, body)
    return body["runId"]


@route("GET", rf"/flow/api{WS}/bulkruns/[^/]+")
def flow_run(azure, request):
    name = run_of(azure, request, request.path.split("/")[-1]).name
    return {"studioPortalTraceEndpoint": f"https://ml.azure.com/prompts/trace/run/{name}/details"}


@route("GET", rf"/flow/api{WS}/bulkruns/[^/]+/logContent")
def log_content(azure, request):
    file = run_of(azure, request, request.path.split("/")[-2]).left / "logs.txt"
    return file.read_text() if file.is_file() else ""


@route("POST", rf"/data/v1.0{WS}/dataversion/getByAssetId")
def data_version(azure, request):
    name, output = request.body["value"].split("/")[-2:]
    store = "azureml://datastores/workspaceblobstore/paths"
    return {"dataVersion": {"dataUri": f"{store}/{ROOT}/{name}{OUTPUTS[output]}"}}


@route("POST", rf"/content/v2.0{WS}/snapshots/sas")
def snapshot(azure, request):
    box = box_of(place_of(request).name)
    names = azure.storage.names(box, f"runs/{request.body['snapshotOrAssetId']}")
    files = {name: {"absoluteUrl": url(box, name), "children": {}} for name in names}
    return {"absoluteUrl": None, "children": files}


@route("POST", rf"/metric/v2.0{WS}/runs/[^/]+/lastvalues")
def metrics(azure, request):
    run = run_of(azure, request, request.path.split("/")[-2])
    values = run.read("metrics.json") | {"__pf__.lines.failed": len(run.read("error.json"))}
    return {"value": [{"name": k, "value": [{"data": {k: v}}]} for k, v in values.items()]}
