"""Common parts of the stages: running their main functions, shared flags, one-line errors.

TensorFlow is not imported here, so that `--help` is fast.
"""

from __future__ import annotations

import codecs
import errno
import importlib
import io
import os
import re
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable
from typing import Any, TextIO

from absl import app, flags, logging

from l2p_tf import plugins
from l2p_tf.environment import check_backend
from l2p_tf.types import Interrupted, UserError
from stages import configs

FLAGS = flags.FLAGS
_HELP = {"-h", "-help", "--help", "-helpshort", "--helpshort"}
_SPELLINGS = {
    "±": "+-", "×": "x", "–": "-", "—": "-", "−": "-", "…": "...", "→": "->", "≤": "<=", "≥": ">=", "ε": "epsilon",  # noqa: RUF001
    "‘": "'", "’": "'", "“": '"', "”": '"', "·": "-", "•": "-", "∞": "inf", "†": "+",  # noqa: RUF001
}  # fmt: skip
"""Replacements of characters that a console's encoding lacks; all others become escapes, such as \\u2713."""
_NOTE = re.compile(rb"I\d{4} |WARNING: All log messages before absl::InitializeLog|E\d{4} .* cuInit: .*\(303\)$")
"""TensorFlow's log lines that appear on any machine on loading; CUDA error 303 means that there is no driver."""
_OUT_OF_MEMORY = ("MemoryError", "ResourceExhaustedError")
"""Exceptions of Python and TensorFlow, by name because TensorFlow may not be loaded."""
_LOST_WORKER = re.compile("tasks are unhealthy|[Ff]ailed to connect to|Connection reset by peer|Socket closed")
help_text: Callable[[], str] = str
"""Returns the part of `--help` on flags, after the stage's own text."""
_python_warning = warnings.showwarning
_told: set[str] = set()


def run(main: Callable[[list[str]], Any], argv: list[str] | None = None) -> None:
    """Parses the flags, runs `main` and exits.

    The exit status is 0, or what `main` returns; 2 after an error of the user or the machine, reported in one line on
    standard error; 128 plus the signal's number when interrupted. With L2P_TF_TRACEBACK=1 in the environment, errors
    keep their traceback.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    prepare_console()

    def stop(number: int, frame: Any) -> None:
        del frame
        raise Interrupted(number, "stopped; run the same command to continue")

    # Trainings handle signals themselves; other stages save their work continuously.
    signal.signal(signal.SIGTERM, stop)

    def guarded(arguments: list[str]) -> int:
        try:
            check_backend()
            if "plugins" in FLAGS and FLAGS.plugins:
                load_tensorflow()
                plugins.load(FLAGS.plugins)
            return int(main(arguments) or 0)
        except KeyboardInterrupt:
            return _fail("interrupted; run the same command to continue", 130)
        except Interrupted as stop:
            return _fail(str(stop), 128 + stop.number)
        except BrokenPipeError:
            raise
        except Exception as raised:
            error = _unwrapped(raised)
            is_reported = isinstance(error, UserError | OSError) or type(error).__name__ in _OUT_OF_MEMORY
            if not is_reported or os.environ.get("L2P_TF_TRACEBACK") == "1":
                raise
            return _fail(_describe(error))

    try:
        app.run(guarded, argv=argv, flags_parser=_parse)
    except BrokenPipeError:
        # The reader of the output, such as `head`, has stopped.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


def prepare_console() -> None:
    """Makes notes to the user single lines, and lets standard output and error write any text in any encoding."""
    warnings.showwarning = _show_warning
    codecs.register_error("spelled", _spelled)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="spelled")


def load_tensorflow() -> None:
    """Imports TensorFlow, without the messages about this machine that it writes at any log level."""
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            importlib.import_module("tensorflow").config.list_physical_devices()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            written.seek(0)
            os.write(2, b"".join(line for line in written if not _NOTE.match(line)))


def say(text: str) -> None:
    """Prints a line."""
    print(text, flush=True)


def _parse(argv: list[str]) -> list[str]:
    if _HELP & set(argv[1:]):
        say(f"{(sys.modules['__main__'].__doc__ or '').strip()}\n{help_text()}")
        sys.exit(0)
    try:
        return _parse_values(argv)
    except UserError as error:
        sys.exit(_fail(_describe(error)))


def _parse_values(argv: list[str]) -> list[str]:
    try:
        rest: list[str] = FLAGS([argv[0], *configs.expanded(argv[1:])])
    except UnicodeDecodeError as error:
        raise UserError(f"A --flagfile should be text in UTF-8: {error}") from error
    except (flags.Error, ValueError, OSError) as error:
        raise UserError(str(error).removeprefix("ERROR:: ")) from error
    if len(rest) > 1:
        raise UserError(f"Flags should be written --name=value. Received: {rest[1]!r}")
    if FLAGS["verbosity"].using_default_value:
        logging.set_verbosity(logging.WARNING)  # absl would show the messages of every library
    return rest


def _unwrapped(error: Exception) -> Exception:
    """Extracts a UserError that TensorFlow wrapped, such as an image damaged during a training.

    Also explains errors caused by the loss of another worker.
    """
    if not type(error).__module__.startswith("tensorflow."):
        return error
    if _LOST_WORKER.search(str(error)):
        return UserError(
            "another worker has ended, and its own messages say why; run the same command in every worker to continue"
        )
    within = re.search("UserError: (.*)", str(error))
    return UserError(within.group(1)) if within else error


def _describe(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        reason = "disk full" if error.errno == errno.ENOSPC else error.strerror
        name = error.filename2 or error.filename  # For a copy, the destination.
        return f"{reason}: {name!r}" if name else str(reason)
    if type(error).__name__ in _OUT_OF_MEMORY:
        tensor = re.search("OOM when allocating tensor with (shape.*)", str(error))
        wanted = f" for a tensor of {tensor.group(1)}" if tensor else ""
        return (
            f"out of memory{wanted}; take smaller batches, a smaller network, or less of what the attack tries at once"
        )
    return " ".join(str(error).split()) or type(error).__name__


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int,
    file: TextIO | None = None, line: str | None = None,
) -> None:  # fmt: skip
    """Prints notes to the user in one line and only once; warnings for programmers are shown by Python."""
    if file is None and issubclass(category, UserWarning):
        note = f"warning: {' '.join(str(message).split())}"
        if note not in _told:
            print(note, file=sys.stderr, flush=True)
        _told.add(note)
    else:
        _python_warning(message, category, filename, lineno, file, line)


def _spelled(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replaces characters that the console's encoding lacks, without loss or failure."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    escaped = (_SPELLINGS.get(c) or c.encode("ascii", "backslashreplace").decode("ascii") for c in text)
    return "".join(escaped), error.end


def _fail(message: str, status: int = 2) -> int:
    print(f"error: {message}", file=sys.stderr, flush=True)
    return status
