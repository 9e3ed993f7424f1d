"""Azure's errors as one line."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from phi3_ops.azure.faults import explained, find_resource, has_code, named_errors, read_fault
from phi3_ops.errors import OpsError


class TestFindResource:
    def test_the_result(self):
        assert find_resource(lambda: 7) == 7

    def test_none_if_it_does_not_exist(self):
        from azure.core.exceptions import ResourceNotFoundError

        def get():
            raise ResourceNotFoundError("gone")

        assert find_resource(get) is None

    def test_a_missing_permission_is_not_a_missing_resource(self):
        from azure.core.exceptions import HttpResponseError

        def get():
            raise HttpResponseError("You may not.")

        with pytest.raises(HttpResponseError):
            find_resource(get)


def azure_error(status, message="You may not.\nMore lines.", code=None):
    from azure.core.exceptions import HttpResponseError

    error = HttpResponseError(message)
    error.status_code = status
    error.error = SimpleNamespace(code=code) if code else None
    return error


class TestNamedErrors:
    def test_action_code_and_first_line(self):
        with (
            pytest.raises(OpsError, match=r"^deploy: Odd: You may not\.$"),
            named_errors("deploy"),
        ):
            raise azure_error(400, code="Odd")

    @pytest.mark.parametrize(
        ("status", "fix"), [(403, "role"), (409, "another name"), (429, "rate"), (500, "")]
    )
    def test_what_to_do(self, status, fix):
        with pytest.raises(OpsError) as caught, named_errors("deploy"):
            raise azure_error(status)
        assert caught.value.what == f"deploy: {status}: You may not."
        assert fix in caught.value.fix and bool(fix) == bool(caught.value.fix)

    def test_signing_in(self):
        from azure.core.exceptions import ClientAuthenticationError

        with (
            pytest.raises(OpsError, match=r"not signed in \(no token\)\. Run `az login`"),
            named_errors("deploy"),
        ):
            raise ClientAuthenticationError("no token")

    def test_a_long_line_is_cut(self):
        with pytest.raises(OpsError) as caught, named_errors("deploy"):
            raise azure_error(400, "x" * 1000)
        assert caught.value.what.count("x") == 300

    def test_other_errors_pass(self):
        with pytest.raises(OpsError, match="^mine$"), named_errors("deploy"):
            raise OpsError("mine")


# The form of Azure ML's answers: generic code, and the reason in `innerError`.
RECORDED = {
    "error": {
        "code": "UserError",
        "message": "The specified resource was not found.\nMore.",
        "innerError": {"code": "NotFound", "innerError": {"code": "ModelNotFound"}},
    },
    "correlation": {"request": "r"},
}
# The form of Resource Manager's answers about a request that a policy forbids.
POLICY = {
    "error": {
        "code": "InvalidTemplateDeployment",
        "message": "The template deployment failed.",
        "details": [
            {
                "code": "RequestDisallowedByPolicy",
                "message": "Resource 'x' was disallowed by policy.",
                "additionalInfo": [
                    {
                        "type": "PolicyViolation",
                        "info": {
                            "policyDefinitionDisplayName": "Allowed locations",
                            "policyAssignmentDisplayName": "Europe only",
                        },
                    }
                ],
            }
        ],
    }
}
TYPED = {
    "code": "UserError",
    "message": "No.",
    "additionalInfo": [{"type": "InnerError", "info": {"value": {"code": "BadArgument"}}}],
}

# A deployment's failure: the message of the detail is a document itself.
INNER = {"error": {"code": "Validation", "message": "No such endpoint."}}
NESTED = {
    "code": "BadRequest",
    "message": "The request is invalid.",
    "details": [{"code": "InferencingClientCallFailed", "message": json.dumps(INNER)}],
}


class TestReadFault:
    @pytest.mark.parametrize(
        ("document", "text"),
        [
            (
                RECORDED,
                "UserError / NotFound / ModelNotFound: The specified resource was not found.",
            ),
            (
                POLICY,
                "InvalidTemplateDeployment / RequestDisallowedByPolicy: The template deployment "
                "failed.; Resource 'x' was disallowed by policy. (policy: Europe only, Allowed "
                "locations)",
            ),
            (TYPED, "UserError / BadArgument: No."),
            (
                NESTED,
                "BadRequest / InferencingClientCallFailed / Validation: The request is invalid.; "
                "No such endpoint.",
            ),
        ],
        ids=["inner", "details", "typed", "json"],
    )
    def test_codes_message_and_policy(self, document, text):
        assert read_fault(document).text == text

    @pytest.mark.parametrize("document", [None, [], "text", {"error": "text"}, {"error": None}])
    def test_another_document(self, document):
        assert read_fault(document).codes == ()


class TestExplained:
    def answered(self, status, document, **headers):
        error = azure_error(status, "text")
        error.response = SimpleNamespace(text=lambda: json.dumps(document), headers=headers)
        return error

    def test_codes_request_and_fix(self):
        error = self.answered(403, POLICY, **{"x-ms-request-id": "id-1"})
        text = str(explained(error, "provision"))
        assert text.startswith("provision: InvalidTemplateDeployment / RequestDisallowedByPolicy")
        assert "(request id-1). Ask the owner of that policy" in text

    def test_an_unregistered_provider(self):
        document = {"error": {"code": "MissingSubscriptionRegistration", "message": "Not yet."}}
        error = self.answered(409, document)
        assert has_code(error, "MissingSubscriptionRegistration")
        assert explained(error, "provision").fix == "Run `phi3 provision --register`."

    def test_an_answer_that_is_not_json(self):
        error = azure_error(500, "text")
        error.response = SimpleNamespace(text=lambda: "<html>", headers={})
        assert str(explained(error, "deploy")) == "deploy: 500: text"
