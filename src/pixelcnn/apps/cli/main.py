"""The entry point of the command line, where every command is a thin wrapper around one library function.

Packages load lazily and commands import torch in their bodies, so that `--help` answers at once.
"""

__all__ = ["main"]

import os
import sys
import warnings
from io import TextIOWrapper
from typing import Any, NoReturn

from typer.exceptions import TyperException

import pixelcnn.apps.cli.evaluate
import pixelcnn.apps.cli.packing
import pixelcnn.apps.cli.pictures
import pixelcnn.apps.cli.score
import pixelcnn.apps.cli.studio
import pixelcnn.apps.cli.train
import pixelcnn.apps.cli.weights  # noqa: F401  (the seven add their commands to the app)
from pixelcnn.apps.cli.options import INTERRUPTED, app, explain, fail
from pixelcnn.common.kernel import MissingKernelWarning
from pixelcnn.common.processes import SharedError

SHOW_WARNING = warnings.showwarning
EXPECTED = {"int_parsing": "use whole numbers", "float_parsing": "use numbers"}


def _explain(error: TyperException) -> str:
    """Word an error in how the command line was used, with what helps."""
    if near := getattr(error, "possibilities", None):  # options that look like the one that does not exist
        return f"{error.message}. Did you mean {', '.join(map(repr, near))}?"
    if (cause := error.__cause__) is not None and (found := getattr(cause, "errors", None)) is not None:
        (first, *_), option = found(), getattr(error, "param", None)
        if option is not None and first["type"] in EXPECTED:
            each = f", {option.metavar}" if option.nargs > 1 else ""
            return f"{option.opts[-1]} {first['input']!r}: {EXPECTED[first['type']]}{each}"
    message, context = error.format_message(), getattr(error, "ctx", None)
    if context is None or message.endswith("?"):
        return message
    return f"{message.rstrip('.')}; '{context.command_path} -h' shows what there is"


def _show_warning(message: Warning | str, category: type[Warning], *where: Any) -> None:
    """Print our own warning as one line, without the line of the source that others come with."""
    if issubclass(category, MissingKernelWarning):
        print(f"pixelcnn: {message}", file=sys.stderr)
    else:
        SHOW_WARNING(message, category, *where)


def main() -> NoReturn:
    """Run the command line, and turn errors that users can cause into one line on standard error and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # file names may have characters that the encoding of a pipe lacks
            stream.reconfigure(errors="backslashreplace")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # they show work on its internal cache
    os.environ.setdefault("DATASETS_VERBOSITY", "critical")  # its errors are raised as exceptions too
    warnings.showwarning = _show_warning
    try:
        # The name is that of the installed command, for which shells complete words, also for `python -m pixelcnn`.
        code = app(prog_name="pixelcnn", standalone_mode=False) or 0
        fail("interrupted", code) if code == INTERRUPTED else sys.exit(code)
    except TyperException as error:
        fail(_explain(error), 2)
    except BrokenPipeError:  # the reader has stopped reading, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # otherwise Python complains at exit
        sys.exit(1)
    except SharedError:  # the process with the problem says what it is
        sys.exit(2)
    except (ValueError, FloatingPointError, MemoryError, OSError) as error:
        fail(explain(error), 2)
