"""A real Jupyter kernel in a workspace of the course, cell by cell, as a student runs it."""

import contextlib
import os
import sys
import tempfile
from dataclasses import dataclass, field
from unittest import mock

from jupyter_client.manager import KernelManager


@dataclass
class Shown:
    """What a cell showed: `text` for all of it as plain text, `html`, and the exception's last line in `error`."""

    text: str = ""
    html: str = ""
    error: str = ""
    pictures: list = field(default_factory=list)


class Kernel:
    """A running kernel. `run` executes a cell."""

    def __init__(self, client):
        self.client = client

    def run(self, code, timeout=120):
        """Execute a cell. Returns what it showed."""
        shown = Shown()

        def take(message):
            content = message["content"]
            if message["msg_type"] == "stream":
                shown.text += content["text"]
            elif message["msg_type"] in ("execute_result", "display_data"):
                shown.text += content["data"].get("text/plain", "") + "\n"
                shown.html += content["data"].get("text/html", "")
                shown.pictures += [kind for kind in content["data"] if kind.startswith("image/")]
            elif message["msg_type"] == "error":
                shown.error = f"{content['ename']}: {content['evalue']}"

        self.client.execute_interactive(code, timeout=timeout, output_hook=take)
        return shown


@contextlib.contextmanager
def kernel(folder):
    """A kernel that was started in a folder, as Jupyter starts one in the folder of the notebook.

    All that it and we exchange is in a temporary folder, so that neither a home nor a network is needed.
    """
    with tempfile.TemporaryDirectory(prefix="k") as runtime, mock.patch.dict(os.environ, IPYTHONDIR=runtime):
        manager = KernelManager(connection_file=f"{runtime}/kernel.json")
        if sys.platform != "win32":
            manager.transport, manager.ip = "ipc", f"{runtime}/ipc"
        manager.start_kernel(cwd=str(folder))
        client = manager.client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=120)
            yield Kernel(client)
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
