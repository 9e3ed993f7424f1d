"""The container of a deployment: python runner.py SCORE_FILE PORT_FILE

It works like azureml-inference-server-http (documented: "Advanced entry script authoring"): it calls
`init()` once, then `run()` for each request, with the text of its body or, with `@rawhttp`, the request.
"""

import importlib.util
import sys
import types
from pathlib import Path

import flask
from werkzeug.serving import make_server

SERVER = "azureml_inference_server_http"


class AMLResponse(flask.Response):
    def __init__(self, message, status_code=200, response_headers=None):
        super().__init__(message, status_code, response_headers)


def rawhttp(function):
    function.raw = True
    return function


def answer(run):
    if getattr(run, "raw", False):
        return run(flask.request)
    return flask.jsonify(run(flask.request.get_data(as_text=True)))


def main(score_file, port_file):
    for name in ("", ".api", ".api.aml_request", ".api.aml_response"):
        module = sys.modules[SERVER + name] = types.ModuleType(SERVER + name)
        vars(module).update(__path__=[], rawhttp=rawhttp, AMLResponse=AMLResponse)
    spec = importlib.util.spec_from_file_location("score", score_file)
    score = sys.modules["score"] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(score_file.parent))
    spec.loader.exec_module(score)
    score.init()
    app = flask.Flask("runner")
    route = getattr(score, "ROUTE", "/score")  # a stand-in for an image may use another one
    app.add_url_rule(route, view_func=lambda: answer(score.run), methods=["POST"])
    server = make_server("127.0.0.1", 0, app, threaded=True)
    half = port_file.with_suffix(".half")  # nobody may read half a number
    half.write_text(str(server.server_port))
    half.rename(port_file)
    server.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
