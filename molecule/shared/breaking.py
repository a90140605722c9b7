"""A web server on a host that breaks off: `breaking.py DIRECTORY PORT`.

It serves the files of a directory on loopback. Of a file whose path matches the regular expression in DIRECTORY/.cut,
while there is one, it sends the first half and closes the connection.
"""

from __future__ import annotations

import functools
import http.server
import re
import sys
from pathlib import Path
from typing import Any


class Handler(http.server.SimpleHTTPRequestHandler):
    """One request."""

    def copyfile(self, source: Any, outputfile: Any) -> None:
        """Send the content, or the first half of it."""
        content = source.read()
        cut = Path(self.directory, ".cut")
        if cut.exists() and re.search(cut.read_text().strip(), self.path):
            content = content[: len(content) // 2]
        outputfile.write(content)


if __name__ == "__main__":
    directory, port = sys.argv[1:]
    handler = functools.partial(Handler, directory=directory)
    http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), handler).serve_forever()
