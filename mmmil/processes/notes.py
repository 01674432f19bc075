"""What one process has worked out about texts, kept in a file for the next."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

MOST = 2000  # entries: some versions of every text


class Notes(dict[str, Any]):
    """Values that JSON can hold, by key: read from the file once, and written when there is more of them.

    by: who worked them out; what another has written is not read. A damaged file is none, and where nothing can be
    written the next process works everything out anew.
    """

    def __init__(self, file: Path | None, by: str):
        super().__init__()
        self.file, self.by = file, by
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            kept = json.loads(file.read_text()) if file else {}
            if kept["by"] == by:
                self |= dict(kept["read"])
        self.written = len(self)

    def write(self) -> None:
        if self.file is None or len(self) == self.written:
            return
        self.written = len(self)
        read = dict(list(self.items())[-MOST:])
        with contextlib.suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.file.with_name(f".{self.file.name}.{os.getpid()}")
            try:
                temporary.write_text(json.dumps({"by": self.by, "read": read}))
                temporary.replace(self.file)
            finally:
                temporary.unlink(missing_ok=True)
