"""The page in which `dvc plots` draws, with the libraries inside, so that it needs no web.

DVC fills in the plots. The page is made where the project is installed, not kept in git: the libraries,
about 1 MB, are those that the package vl-convert-python brings.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from titles.data.files import atomic_file

PAGE = Path(".dvc/plots/page.html")
_TEMPLATES = Path(__file__).parent / "report/templates"
# That of the project's templates in .dvc/plots.
_VEGA_LITE = "5.20"
_LICENCE = """\
Copyright (c) 2015-2025, University of Washington Interactive Data Lab and contributors
All rights reserved.

Redistribution and use in source and binary forms, with or without modification, are permitted
provided that the following conditions are met:

1. Redistributions of source code must retain the above copyright notice, this list of conditions
   and the following disclaimer.

2. Redistributions in binary form must reproduce the above copyright notice, this list of conditions
   and the following disclaimer in the documentation and/or other materials provided with the
   distribution.

3. Neither the name of the copyright holder nor the names of its contributors may be used to endorse
   or promote products derived from this software without specific prior written permission.

THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS" AND ANY EXPRESS OR
IMPLIED WARRANTIES, INCLUDING, BUT NOT LIMITED TO, THE IMPLIED WARRANTIES OF MERCHANTABILITY AND
FITNESS FOR A PARTICULAR PURPOSE ARE DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT HOLDER OR
CONTRIBUTORS BE LIABLE FOR ANY DIRECT, INDIRECT, INCIDENTAL, SPECIAL, EXEMPLARY, OR CONSEQUENTIAL
DAMAGES (INCLUDING, BUT NOT LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR SERVICES; LOSS OF USE,
DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER CAUSED AND ON ANY THEORY OF LIABILITY, WHETHER
IN CONTRACT, STRICT LIABILITY, OR TORT (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT OF
THE USE OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.
"""


def page() -> str:
    """The HTML, with DVC's placeholders `{refresh_tag}` and `{plot_divs}`."""
    import vl_convert

    # It makes `vegaEmbed` global, as DVC expects it.
    libraries = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=_VEGA_LITE)
    text = (_TEMPLATES / "plots.html").read_text(encoding="utf-8")
    parts = {
        "[style sheet]": (_TEMPLATES / "style.css").read_text(encoding="utf-8"),
        "[licence]": _LICENCE,
        "[libraries]": libraries,
    }
    for name, part in parts.items():
        text = text.replace(name, part, 1)
    return text


def install() -> None:
    """Write the page of the project in the working folder, and have DVC use it there.

    A page that the user has set stays. The setting is a local one: DVC fails where the file that it
    names does not exist, as in a fresh clone.

    Raises:
        OSError: the page cannot be written.
        subprocess.CalledProcessError: DVC does not write its configuration.
    """
    with atomic_file(PAGE) as partial:
        partial.write_text(page(), encoding="utf-8")
    dvc, key = [sys.executable, "-m", "dvc"], "plots.html_template"
    if not subprocess.run([*dvc, "config", key], stdout=subprocess.PIPE, check=True).stdout.strip():
        name = PAGE.relative_to(".dvc").as_posix()  # DVC starts at its own folder
        subprocess.run([*dvc, "config", "--quiet", "--local", key, name], check=True)


if __name__ == "__main__":
    install()
