"""Requests to the fake Azure, its answers, and the forms of its errors."""

import re
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone

READS = re.compile(r"/(list\w+|check\w+|getlogs|token)$", re.IGNORECASE)


@dataclass(frozen=True)
class Request:
    """A client's request; the body is parsed if it is JSON."""

    method: str
    path: str
    body: object
    host: str
    query: dict
    headers: dict
    raw: bytes

    @property
    def is_write(self):
        """Whether the request changes something in Azure. A dry run must not send such requests."""
        reads = self.method == "GET" or (self.method == "POST" and READS.search(self.path))
        return self.host == "management.azure.com" and not reads


@dataclass
class Answer:
    status: int = 200
    body: object = None
    headers: dict = field(default_factory=dict)


class Refused(Exception):
    """A request that Azure refuses, or an operation that ends as failed."""

    def __init__(self, status, code, message, **details):
        super().__init__(message)
        self.status = status
        info = [{"type": kind, "info": value} for kind, value in details.items()]
        self.error = {"code": code, "message": message} | ({"additionalInfo": info} if info else {})


def user_error(error, region):
    """Return an error of Azure ML's own service: a general code, the reason inside, and ids."""
    ids = {"operation": uuid.uuid4().hex, "request": uuid.uuid4().hex[:16]}
    inner = {"code": error["code"], "innerError": None}
    values = {"ComponentName": "managementfrontend", "Correlation": ids, "InnerError": inner}
    values |= {"Environment": region, "Location": region, "Time": now()}
    info = [{"type": kind, "info": {"value": value}} for kind, value in values.items()]
    return {"code": "UserError", "message": error["message"], "details": [], "additionalInfo": info}


def account_error(error, region, status):
    """Return the body of an error of the service that stores a workspace's connections."""
    unused = ("severity", "messageFormat", "messageParameters", "referenceCode", "detailsUri")
    fields = dict.fromkeys((*unused, "target", "debugInfo", "additionalInfo"))
    inner = {"code": "NotFoundError" if status == 404 else error["code"], "innerError": None}
    fields |= {"code": "UserError", "message": error["message"], "details": [], "innerError": inner}
    ids = {"operation": uuid.uuid4().hex, "request": uuid.uuid4().hex[:16]}
    body = {"error": fields, "correlation": ids, "environment": region, "location": region}
    return body | {"time": now(), "componentName": "account-rp", "statusCode": status}


def now():
    return datetime.now(timezone.utc).isoformat()
