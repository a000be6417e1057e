"""A Pinecone for the tests: the double that ships with the adapter, as a process of its own. It keeps nothing over a restart.

docs/pinecone-double.md says what it models, and from where.
"""

import signal
import sys
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

from integration.servers.served import Served
from vectorkit_pinecone.double import Control


class PineconeServer(Served):
    """The double on a free port of the loopback interface. delay: seconds until reads see a write."""

    name = "pinecone"
    stop_signal = signal.SIGTERM

    def __init__(self, delay: float = 0.0) -> None:
        super().__init__()
        self.delay = delay

    @property
    def control_url(self) -> str:
        """Of its control plane, which Pinecone's client takes as `host=`."""
        return f"http://{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """As vectorkit writes it, without the key."""
        return f"pinecone://vk?host={self.control_url}"

    @property
    def control(self) -> Control:
        """Faults, traffic and delays."""
        return Control(self.control_url)

    @property
    def command(self) -> list[str]:
        """The double."""
        return [sys.executable, "-m", "vectorkit_pinecone.double", "--port", str(self.port), "--delay", str(self.delay)]

    def answers(self) -> bool:
        """Whether it answers."""
        parts = urlsplit(self.control_url)
        link = HTTPConnection(parts.hostname or "", parts.port, timeout=1.0)
        try:
            link.request("GET", "/_double/traffic")
            return link.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            link.close()


def pinecone_indexes(client: Any, url: str) -> list[str]:
    """Names of the indexes that vectorkit made under a URL's prefix, and nobody else."""
    prefix = urlsplit(url).netloc
    return [
        model.name
        for model in client.indexes.list()
        if model.name.startswith(f"{prefix}-")
        and "vk_layout" in (model.tags or {})
        and model.status.state != "Terminating"
    ]


def pinecone_sweep(client: Any, url: str) -> list[str]:
    """Delete them; their names."""
    gone = pinecone_indexes(client, url)
    for name in gone:
        client.indexes.delete(name, timeout=-1)
    return gone
