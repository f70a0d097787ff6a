"""The command line: every verb is a thin caller of one library function.

Packages import what they offer on first use, and the verbs import torch inside, so that `--help` answers at once.
"""

__all__ = ["main"]

import os
import sys
from io import TextIOWrapper
from typing import NoReturn

from typer.exceptions import Abort, Exit, TyperException

import pixelcnn.apps.cli.evaluate
import pixelcnn.apps.cli.pictures
import pixelcnn.apps.cli.train  # noqa: F401  (the three add their verbs to the app)
from pixelcnn.apps.cli.options import app, fail


def main() -> NoReturn:
    """Run the command line. Whatever a user can cause ends in one line on standard error and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a pipe may have an encoding that lacks what a file's name has
            stream.reconfigure(errors="backslashreplace")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # its bars tell of its own cache
    os.environ.setdefault("DATASETS_VERBOSITY", "critical")  # its errors come as exceptions too
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except Exit as exit:
        sys.exit(exit.exit_code)
    except (KeyboardInterrupt, Abort):
        fail("interrupted", 130)
    except TyperException as error:
        fail(error.format_message(), 2)
    except BrokenPipeError:  # who reads the results has enough of them, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains while it ends
        sys.exit(1)
    except (ValueError, FloatingPointError, MemoryError, OSError) as error:
        fail(str(error), 2)
