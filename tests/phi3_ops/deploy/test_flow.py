"""A flow as a deployment: its endpoint, its content, its image, and the smoke test."""

from __future__ import annotations

from http.server import ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from loopback import JsonHandler, running
from offline_cloud import missing, offline_cloud, operations
from phi3_ops import paths
from phi3_ops.azure.config import EndpointConfig
from phi3_ops.deploy.flow import YAML_FILE, FlowDeployment, endpoint_config, smoke_request
from phi3_ops.deploy.model import SMOKE_QUESTION
from phi3_ops.errors import OpsError
from phi3_ops.flows.content import copy_flow
from phi3_ops.flows.definition import FlowDefinition
from phi3_ops.flows.image import IMAGE_FOLDER
from phi3_tools import KeyAuth

MODEL_ENDPOINT = EndpointConfig(name="model-endpoint", auth="entra")
IDENTITY = SimpleNamespace(principal_id="principal", client_id="client")


@pytest.fixture
def flow(tmp_path):
    """A copy of the chat flow to change."""
    copy_flow(paths.FLOWS / "chat", tmp_path / "chat")
    return FlowDefinition.read(tmp_path / "chat")


def flow_deployment(
    flow, models=(), identity=lambda group, name: IDENTITY, rest=lambda *_, **__: {}
):
    registered = []
    ml = SimpleNamespace(
        models=operations(list=lambda name: models, create_or_update=registered.append),
        online_endpoints=operations(get=lambda name: SimpleNamespace(name=name)),
    )
    cloud = offline_cloud({"ml": ml, "identities": operations(get=identity)})
    cloud.rest = rest
    deployment = FlowDeployment(cloud, flow)
    deployment.registered = registered
    return deployment


class TestEndpoint:
    def test_its_name_joins_the_models_endpoint_and_the_flow(self):
        config = endpoint_config(MODEL_ENDPOINT, "judge_pairwise", None)
        assert config.name == "model-endpoint-judge-pairwise"
        assert (config.model, config.auth) == ("flow-judge_pairwise", "entra")

    def test_its_machines_are_those_of_the_yaml_file(self):
        definition = yaml.safe_load((paths.AZURE / YAML_FILE).read_text())
        config = endpoint_config(MODEL_ENDPOINT, "chat", "own")
        machines = (definition["instance_type"], definition["instance_count"])
        assert (config.size, config.instances) == machines

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("model-endpoint", "model-endpoint is the model's endpoint. Give another --endpoint"),
            ("9chat", "'9chat' is not a valid name: use 3 to 32 letters.*Give --endpoint"),
        ],
    )
    def test_a_wrong_name(self, name, message):
        with pytest.raises(OpsError, match=message):
            endpoint_config(MODEL_ENDPOINT, "chat", name)


class TestSmokeRequest:
    def test_it_has_the_defaults_of_the_inputs_and_a_question(self):
        read = FlowDefinition.read
        assert smoke_request(read(Path("chat"))) == {
            "question": SMOKE_QUESTION,
            "chat_history": [],
        }
        assert smoke_request(read(Path("qa"))) == {
            "input_data": "Who founded Microsoft?",
            "max_new_tokens": 128,
        }

    def test_an_input_without_a_default_is_named(self):
        with pytest.raises(OpsError, match="the input 'answer' of .*eval has no default"):
            smoke_request(FlowDefinition.read(Path("eval")))


def test_the_probes_the_port_and_the_folder_are_the_images():
    text = (paths.AZURE / YAML_FILE).read_text(encoding="utf-8")
    environment = yaml.safe_load(text)["environment"]
    routes = environment["inference_config"]
    (port,) = {route["port"] for route in routes.values()}
    assert routes["scoring_route"]["path"] == "/score"
    assert f"EXPOSE {port}\n" in (IMAGE_FOLDER / "Dockerfile").read_text()
    assert paths.AZURE / environment["build"]["path"] == IMAGE_FOLDER


def test_a_connection_that_the_workspace_does_not_have(flow):
    with pytest.raises(OpsError, match="no connection 'phi3', which chat uses. Write it with"):
        flow_deployment(flow, rest=missing)


def test_an_identity_that_does_not_exist(flow):
    role, _ = flow_deployment(flow, identity=missing).steps()
    with pytest.raises(OpsError, match="the identity phi3-identity does not exist"):
        role.exists()


class TestContent:
    def test_the_same_flow_has_the_same_name(self, flow):
        assert flow_deployment(flow).name == flow_deployment(flow).name

    def test_a_changed_flow_has_another_name(self, flow):
        before = flow_deployment(flow).name
        (flow.folder / "more.txt").write_text("more")
        assert flow_deployment(flow).name != before

    def test_files_that_are_not_uploaded_do_not_count(self, flow):
        before = flow_deployment(flow).name
        (flow.folder / "__pycache__").mkdir()
        (flow.folder / "__pycache__" / "x.pyc").write_text("x")
        assert flow_deployment(flow).name == before

    def test_the_model_exists_under_the_content_of_the_flow(self, flow):
        _, step = flow_deployment(flow).steps()
        assert not step.exists()
        content = flow_deployment(flow)._content
        models = [SimpleNamespace(tags={"content": content})]
        assert flow_deployment(flow, models).steps()[1].exists()

    def test_the_model_is_registered_with_its_version(self, flow):
        deployment = flow_deployment(flow)
        deployment.steps()[1].apply()
        (model,) = deployment.registered
        assert (model.name, model.tags["flow"]) == ("flow-chat", "chat")
        assert model.tags["version"] == str(flow.version)


def test_the_definition_and_its_image_exist_in_the_context_only(flow):
    content = flow_deployment(flow)._content
    models = [
        SimpleNamespace(name="flow-chat", version=version, tags={"content": content})
        for version in ("2", "10")
    ]
    deployment = flow_deployment(flow, models)
    with deployment.definition() as definition:
        image = Path(definition.environment.build.path)
        if not image.is_absolute():
            image = Path(definition.base_path) / image
        assert {"Dockerfile", "app.py", "requirements.txt"} <= {
            path.name for path in image.iterdir()
        }
        assert definition.model == "azureml:flow-chat:10"
        assert definition.endpoint_name == "phi3-endpoint-chat"
        variables = definition.environment_variables
        assert variables["AZURE_CLIENT_ID"] == "client"
        assert "deployment.workspace_name=work" in variables["PRT_CONFIG_OVERRIDE"].split(",")
    assert not image.exists()


class Answering(JsonHandler):
    """Answers with the status and the body that the server holds."""

    def do_POST(self):
        self.server.requests.append((self.read_body(), self.headers))
        self.answer(*self.server.reply)


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.requests = []
    with running(server):
        server.url = f"http://127.0.0.1:{server.server_port}/score"
        yield server


class TestAsk:
    @pytest.mark.parametrize(
        ("outputs", "text"),
        [
            ({"answer": "yes"}, "yes"),
            ({"empty": "", "scores": [1]}, "[1]"),
            ({"answer": ""}, ""),
            ({}, ""),
        ],
    )
    def test_the_first_output_that_is_not_empty(self, flow, server, outputs, text):
        server.reply = (200, outputs)
        assert flow_deployment(flow).ask(server.url, KeyAuth("k"), "blue").text == text
        ((body, headers),) = server.requests
        assert body == {"question": SMOKE_QUESTION, "chat_history": []}
        assert headers["authorization"] == "Bearer k"
        assert headers["azureml-model-deployment"] == "blue"

    def test_the_endpoint_itself_is_asked_without_a_deployment(self, flow, server):
        server.reply = (200, {"answer": "yes"})
        flow_deployment(flow).ask(server.url, KeyAuth("k"), None)
        assert "azureml-model-deployment" not in server.requests[0][1]

    @pytest.mark.parametrize(("status", "body"), [(400, {"error": "no"}), (200, ["no"])])
    def test_an_answer_without_outputs(self, flow, server, status, body):
        server.reply = (status, body)
        with pytest.raises(OpsError, match=f"the smoke test of blue failed: {status} .*no"):
            flow_deployment(flow).ask(server.url, KeyAuth("k"), "blue")

    def test_no_answer(self, flow):
        with pytest.raises(OpsError, match="the smoke test of the endpoint failed: Connection"):
            flow_deployment(flow).ask("http://127.0.0.1:9/score", KeyAuth("k"), None)
