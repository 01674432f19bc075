"""papermill's command line, without its slowest import.

jsonschema, which reads notebooks, makes a grammar of internationalised addresses at its import where it can: two of the
three seconds that papermill takes to start, in every process, and no notebook has one.
"""

import sys

if __name__ == "__main__":
    sys.modules["rfc3987_syntax"] = None  # what is None cannot be imported
    from papermill.cli import papermill

    papermill()
