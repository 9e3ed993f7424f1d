"""uvicorn's HTTP protocol, without the tracebacks that a client can cause.

This module needs uvicorn; import it when a server starts.
"""

from __future__ import annotations

from h11 import LocalProtocolError
from uvicorn.protocols.http.h11_impl import H11Protocol


class HttpProtocol(H11Protocol):
    """uvicorn's protocol for requests of which the rest may not be HTTP.

    uvicorn answers such a request with 400. If the app answers too, or has answered already, uvicorn
    fails and logs a traceback.
    """

    def send_400_response(self, msg: str) -> None:
        """Answer with 400 unless the app has answered, and close the connection."""
        if self.cycle is not None:
            self.cycle.disconnected = True  # further messages of the app are dropped
        try:
            super().send_400_response(msg)
        except LocalProtocolError:  # an answer has begun
            self.transport.close()
