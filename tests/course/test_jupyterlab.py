"""One exercise filled and checked in JupyterLab, in a browser, as a student does it."""

import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tinytorch_course import notebooks
from tinytorch_course.lessons import read_lessons
from tinytorch_course.workspace import Workspace

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PACKAGES = all(importlib.util.find_spec(name) for name in ("playwright", "jupyterlab"))
LESSON = read_lessons()[0]
EXERCISE = LESSON.exercises[0]
SECOND = 1000  # milliseconds

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and PACKAGES), reason="needs Chromium and `pip install playwright jupyterlab`"),
]


@pytest.fixture
def lab(tmp_path):
    """(workspace, address of the notebook) in a JupyterLab that runs."""
    workspace = Workspace.create(tmp_path / "my_course")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex()
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"]
    command += [f"--port={port}", f"--IdentityProvider.token={token}", "--LabApp.news_url=", "--port-retries=0"]
    homes = {f"JUPYTER_{name}_DIR": str(tmp_path / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    with open(tmp_path / "server.txt", "w") as output:
        server = subprocess.Popen(
            command, cwd=workspace.folder, env=os.environ | homes, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/api?token={token}", server)
        yield workspace, f"http://127.0.0.1:{port}/lab/tree/notebooks/{LESSON.folder}.ipynb?token={token}"
    finally:
        server.terminate()
        server.wait(20)


def _wait_for(address, server):
    """Return when the address answers; connecting is refused until then."""
    while server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            server.poll()
    raise RuntimeError(f"JupyterLab ended with status {server.returncode}.")


def test_an_exercise_is_filled_and_checked_in_jupyterlab(lab, tmp_path):
    from playwright.sync_api import expect, sync_playwright

    workspace, address = lab
    cells = [cell.id for cell in notebooks.notebook(LESSON).cells]
    before = cells.index(EXERCISE.id)
    answer = f'@course.exercise("{EXERCISE.id}")\n{EXERCISE.solution()}'
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(address)
        page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=60 * SECOND)
        expect(page.get_by_text("Python 3 (ipykernel) | Idle")).to_be_visible(timeout=60 * SECOND)
        page.locator(".jp-Notebook .jp-Cell").first.click()
        page.keyboard.press("Escape")
        page.keyboard.press("Shift+Enter")
        page.keyboard.press("Shift+Enter")
        expect(page.get_by_text(f"0 of {len(LESSON.exercises)} exercises done")).to_be_visible(timeout=60 * SECOND)
        for _ in range(before - 2):
            page.keyboard.press("Shift+Enter")
        page.keyboard.press("Enter")
        page.keyboard.press("ControlOrMeta+A")
        page.keyboard.insert_text(answer)
        page.keyboard.press("Shift+Enter")
        page.keyboard.press("Shift+Enter")
        passed = page.get_by_text(f"{EXERCISE.id} {EXERCISE.title}: passed")
        expect(passed).to_be_visible(timeout=60 * SECOND)
        picture = Path(os.environ.get("SCREENSHOTS", tmp_path)) / "jupyterlab.png"
        page.screenshot(path=picture)
        browser.close()
    assert workspace.passing(EXERCISE).text == EXERCISE.solution()
    assert picture.stat().st_size > 10_000
