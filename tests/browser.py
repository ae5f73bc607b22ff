"""Pages in headless Chromium, in a frame of a width that a window may not have."""

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium: apt-get install chromium"
)

FRAME = """<body>
<iframe id=f style="width:{width}px;height:2000px;border:0" srcdoc="{page}"></iframe>
<script>document.getElementById("f").onload = e => {{
  const page = e.target.contentDocument, view = e.target.contentWindow;
  const said = document.body.dataset;
  said.overflow = page.documentElement.scrollWidth - {width};
  {script}
}}</script>"""


def said_in_browser(folder: Path, page: str, width: int, script: str) -> dict[str, str]:
    """Shows a page, runs a script on `page` and its window `view`; returns what it put in `said`.

    `said["overflow"]` is by how many pixels the page is too wide.
    """
    frame = folder / "frame.html"
    frame.write_text(FRAME.format(width=width, page=html.escape(page), script=script))
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={folder / 'user'}", "--window-size=1500,2100"]
    dom = subprocess.run([*command, frame.as_uri()], capture_output=True, text=True, timeout=120)
    body = dom.stdout[dom.stdout.index("<body") :]
    found = re.findall(r'data-([a-z]+)="([^"]*)"', body[: body.index(">")])
    assert found, dom.stderr[-500:]
    return {name: html.unescape(value) for name, value in found}
