"""Runs of Prompt flow's service, which really run.

A run takes the flow from the file share, its data from blob storage, and the workspace's connections. It
writes its outputs into blob storage, where promptflow's downloader reads them. Prompt flow's local engine
runs the lines.
"""

import json
import re
import sys
from datetime import datetime, timezone

from . import assets
from .arm import ArmPath, route, shown
from .flows import WS
from .jobs import Work
from .messages import Refused
from .storage import container_of, url

ROOT = "promptflow/PromptFlowArtifacts"
OUTPUTS = {"debug_info": "", "flow_outputs": "/flow_outputs"}
RECORDS_PER_FILE = 25  # like the client's uploader

ENGINE = """
import json, pathlib, sys
file = pathlib.Path("run.json")
settings = json.loads(file.read_text())
file.unlink()
from promptflow.client import PFClient
from promptflow.connections import CustomConnection
from promptflow.entities import Run
client = PFClient()
for fields in settings["connections"]:
    client.connections.create_or_update(CustomConnection(**fields))
run = client.runs.create_or_update(Run(**settings["run"]), batch_use_async=True)
counted = run.properties["system_metrics"]
tokens = {f"azureml.promptflow.{k}": str(v) for k, v in counted.items() if k.endswith("_tokens")}
pathlib.Path(run._output_path, "tokens.json").write_text(json.dumps(tokens))
sys.exit(run.status != "Completed")
"""


class FlowRun(Work):
    """One run: its process, its state, its output."""

    def __init__(self, azure, workspace, body):
        self.workspace, self.body, self.name = workspace, body, body["runId"]
        self.created = datetime.now(timezone.utc).isoformat()
        self._container = container_of(workspace.name)
        path = ArmPath(f"{workspace.text}/bulkruns/{self.name}")
        super().__init__(azure, path, ["NotStarted", "Running"])

    @property
    def home(self):
        return self.folder / "home"

    @property
    def run_folder(self):
        return self.home / ".runs" / self.name

    def history(self):
        """Return its record in the run history."""
        status, error = self.state(), self.read("error.json") or {"message": self.error}
        ended = status in ("Completed", "Failed") and error["message"]
        properties = {"azureml.promptflow.snapshot_id": self.name, **self.read("tokens.json")}
        outputs = {name: {"assetId": f"azureml://runs/{self.name}/{name}"} for name in OUTPUTS}
        record = {"runId": self.name, "runType": "azureml.promptflow.FlowRun", "status": status}
        record |= {
            "createdUtc": self.created,
            "createdBy": {},
            "properties": properties,
            "outputs": outputs,
        }
        record |= {"displayName": self.body["runDisplayName"], "description": ""}
        return record | {"tags": self.body["tags"], "error": {"error": error} if ended else None}

    def read(self, name):
        """Return a JSON file of the run, {} without it."""
        file = self.run_folder / name
        return json.loads(file.read_text()) if file.is_file() else {}

    def do(self):
        self.home.mkdir()
        (self.home / "pf.yaml").write_text("telemetry: {enabled: false}")
        self._execute()
        self._store()

    def _execute(self):
        body = self.body
        data = self.folder / body["batchDataInput"]["dataUri"].rsplit("/", 1)[-1]
        assets.fetch(self.azure, self.workspace.name, body["batchDataInput"]["dataUri"], data)
        connections, variables = body["connections"], body["environmentVariables"]
        run = {"flow": str(self._flow()), "data": str(data), "name": self.name}
        run |= {"column_mapping": body["inputsMapping"], "connections": connections}
        settings = {"run": run, "connections": list(self._connections())}
        (self.folder / "run.json").write_text(json.dumps(settings))
        pf = {"PF_HOME_DIRECTORY": str(self.home), "PF_LOGGING_LEVEL": "INFO"}
        pf["PF_DISABLE_TRACING"] = str(body["disableTrace"]).lower()
        environment, output = (
            self.azure.bare_environment(variables | pf),
            self.folder / "output.txt",
        )
        process = self.azure.spawn([sys.executable, "-c", ENGINE], self.folder, environment, output)
        if process.wait():
            raise Refused(400, "UserError", output.read_text().strip().splitlines()[-1])

    def _flow(self):
        """Copy the uploaded flow of the run from the share; return its folder."""
        flow = self.azure.flows[self.body["flowDefinitionResourceId"].rsplit("/", 1)[1]]
        root = flow["flowDefinitionFilePath"].rsplit("/", 1)[0] + "/"
        for name, content in self.azure.share.items():
            if name.startswith(root) and content is not None:
                target = self.folder / "flow" / name.removeprefix(root)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
        return self.folder / "flow"

    def _connections(self):
        for key, document in list(self.azure.resources.items()):
            if key.startswith(f"{self.workspace.key}/connections/"):
                properties = document["properties"]
                metadata = properties["metadata"].items()
                configs = {k: v for k, v in metadata if not k.startswith("azureml")}
                yield {
                    "name": document["name"],
                    "configs": configs,
                    "secrets": properties["credentials"]["keys"],
                }

    def _store(self):
        store, below = self.azure.storage, f"{ROOT}/{self.name}"
        records = sorted((self.run_folder / "flow_artifacts").glob("*.jsonl"))
        for first in range(0, len(records), RECORDS_PER_FILE):
            name = f"flow_artifacts/{first:09}_{first + RECORDS_PER_FILE - 1:09}.jsonl"
            lines = [
                record.read_text().strip() for record in records[first : first + RECORDS_PER_FILE]
            ]
            store.put(self._container, f"{below}/{name}", "\n".join([*lines, ""]))
        for name in ("flow_outputs", "node_artifacts"):
            store.put_folder(self._container, f"{below}/{name}", self.run_folder / name)
        store.put_folder(self._container, f"runs/{self.name}", self.run_folder / "snapshot")


def workspace_of(request):
    return ArmPath(re.search(r"/subscriptions/.*/workspaces/[^/]+", request.path, re.I)[0])


def run_of(azure, request, name):
    """Return a run. Raises Refused 404."""
    run = azure.runs.get(f"{workspace_of(request).key}/bulkruns/{name.lower()}")
    if run is None:
        raise Refused(404, "UserError", f"Run {name} not found.")
    return run


@route("GET", rf"/flow/api{WS}/TraceSessions")
def cosmos(azure, request):
    return {"traceCosmosConfiguration": "None", "traceCosmosStatus": "Initialized"}


@route("POST", rf"/flow/api{WS}/bulkruns/submit")
def submit(azure, request):
    workspace, body = workspace_of(request), request.body
    shown(azure, workspace)  # 404 without the workspace
    if body["flowDefinitionResourceId"].rsplit("/", 1)[1] not in azure.flows:
        raise Refused(404, "UserError", "The flow was not found.")
    key = f"{workspace.key}/bulkruns/{body['runId'].lower()}"
    if key in azure.runs:
        raise Refused(409, "UserError", f"The run {body['runId']} exists already.")
    azure.runs[key] = FlowRun(azure, workspace, body)
    return body["runId"]


@route("GET", rf"/flow/api{WS}/bulkruns/[^/]+")
def flow_run(azure, request):
    name = run_of(azure, request, request.path.split("/")[-1]).name
    return {"studioPortalTraceEndpoint": f"https://ml.azure.com/prompts/trace/run/{name}/details"}


@route("GET", rf"/flow/api{WS}/bulkruns/[^/]+/logContent")
def log_content(azure, request):
    file = run_of(azure, request, request.path.split("/")[-2]).run_folder / "logs.txt"
    return file.read_text() if file.is_file() else ""


@route("POST", rf"/data/v1.0{WS}/dataversion/getByAssetId")
def data_version(azure, request):
    name, output = request.body["value"].split("/")[-2:]
    store = "azureml://datastores/workspaceblobstore/paths"
    return {"dataVersion": {"dataUri": f"{store}/{ROOT}/{name}{OUTPUTS[output]}"}}


@route("POST", rf"/content/v2.0{WS}/snapshots/sas")
def snapshot(azure, request):
    container = container_of(workspace_of(request).name)
    names = azure.storage.names(container, f"runs/{request.body['snapshotOrAssetId']}")
    files = {name: {"absoluteUrl": url(container, name), "children": {}} for name in names}
    return {"absoluteUrl": None, "children": files}


@route("POST", rf"/metric/v2.0{WS}/runs/[^/]+/lastvalues")
def metrics(azure, request):
    run = run_of(azure, request, request.path.split("/")[-2])
    values = run.read("metrics.json") | {"__pf__.lines.failed": len(run.read("error.json"))}
    return {"value": [{"name": k, "value": [{"data": {k: v}}]} for k, v in values.items()]}
