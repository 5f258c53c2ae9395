"""The command line: what `measurand` prints and which command it hands the rest to.

This file imports nothing heavy, so that help is there at once; the commands are dataclasses in
`commands`, whose fields are their options. Operators and methods are chosen by name and configured
by their own fields, in any order after the file:

    measurand reconstruct photo.png --operator gaussian-blur --operator.sigma 1.6 --method hqs

Exit codes: 0 done, 1 a check found something that does not fit, or a scan of many failed, 2 the
arguments or the data are wrong (one line says what), 130 interrupted.

Whoever reads the output may leave (`measurand train ... | head -1`, `2>&-`): the command goes on
to its end, and what it prints after that is dropped.
"""

import errno
import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "demo": "restore four photographs with several methods; a page, a picture and a table",
    "deblur": "take a known blur out of a picture; the result lies beside it",
    "denoise": "take the noise out of a picture",
    "upscale": "make a picture larger, with detail",
    "reconstruct": "recover the image behind a measured file, or behind each of a folder of them",
    "simulate": "measure a picture: apply an operator, add noise",
    "check": "do this operator, this prior and this measurement fit together?",
    "tune": "find the settings of a method for a problem; reconstruct takes them",
    "evaluate": "how good a prior or a network is on a set of pictures",
    "verify": "are results, and what they were made of, still what they were?",
    "shift": "which of some priors fits measurements? without any clean image",
    "train": "train a prior or an unfolded network by a named recipe",
    "export": "a prior or an unfolded network as a file that runs without Python",
    "priors": "the priors that ship, with their data and licence",
}

_LINES = "\n".join(f"  {name:<11}  {words}" for name, words in COMMANDS.items())

HELP = f"""usage: measurand COMMAND [OPTIONS]

Images from measurements y = A(x) + noise, with their uncertainty.

commands:
{_LINES}

`measurand COMMAND --help` explains the options of one command. With an operator and a method
named, `measurand reconstruct FILE --operator NAME --method NAME --help` explains theirs too.

options:
  -h, --help     this text
  --version      the version
"""

_CHOICES = ("operator", "noise", "method", "executor", "recipe", "objective")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The words after `measurand`; those of this process where None.
    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    with lasting_streams() as out:
        code = _run(words)
        sys.stdout.flush()
        if code == 0 and out.error is not None and out.error.errno not in _LEFT:
            return _fail(f"standard output: {out.error.strerror}")
        return code


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"measurand {version('measurand')}")
        return 0
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        return _fail(f"no command '{name}'; there are: {' '.join(COMMANDS)}")
    # threads that wait by spinning make a command beside others up to twenty times slower; OpenMP
    # reads this once, when torch is loaded
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with _silent_end():
            with _uncollected():
                from . import commands

            command = commands.parsed(name, arranged(rest))
        return command(words)
    except KeyboardInterrupt:
        return _fail("interrupted; nothing half-written is left", 130)
    except (ValueError, TypeError, KeyError, OSError, ArithmeticError, ImportError) as error:
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        return _fail(str(text))
    except (RuntimeError, MemoryError) as error:
        from .memory import exhausted, lacking

        if not exhausted(error):
            raise
        return _fail(lacking(error))


@contextmanager
def _silent_end() -> Iterator[None]:
    """A block, in which nothing is made yet, that Ctrl-C ends with one line.

    Not by an exception: libraries that are being loaded swallow it, or make another one of it.
    """

    def end(number: int, frame: Any) -> None:
        os.write(2, b"measurand: interrupted; nothing was begun\n")
        os._exit(130)

    beside = threading.current_thread() is not threading.main_thread()
    if beside or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def _uncollected() -> Iterator[None]:
    """A block that loads libraries, among whose objects nobody looks for garbage, then or later.

    torch makes hundreds of thousands that live until the end; to look through them while they are
    made, and once more at the end, is a quarter of the time that `--help` takes. A program that
    has loaded torch before it calls `main` has objects of its own, and is left alone.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def arranged(words: Sequence[str]) -> list[str]:
    """The words in the order that nested choices need.

    `--operator NAME` and `operator:NAME` mean the same, and the options of a choice
    (`--operator.sigma 1.6`) may stand anywhere: each choice is moved to the end, followed by its
    own options, the operator before the method. Options of a method that is not named are of hqs.
    """
    common: list[str] = []
    groups: dict[str, list[str]] = {choice: [] for choice in _CHOICES}
    target, i = common, 0
    while i < len(words):
        word = words[i]
        head = word.split("=")[0]
        choice = next((c for c in _CHOICES if head == f"--{c}" or word.startswith(f"{c}:")), None)
        if choice and word.startswith("--"):
            chosen = word.split("=", 1)[1] if "=" in word else None
            if chosen is None:
                i += 1
                chosen = words[i] if i < len(words) else ""
            groups[choice].insert(0, f"{choice}:{chosen}")
            target = common
        elif choice:
            groups[choice].insert(0, word)
            target = common
        elif nested := next((c for c in _CHOICES if word.startswith(f"{c}.")), None):
            groups[nested].append(word)  # a choice inside a choice
            target = common
        else:
            if word.startswith("--"):
                owner = next((c for c in _CHOICES if head.startswith(f"--{c}.")), None)
                target = groups[owner] if owner else common
            target.append(word)
        i += 1
    if groups["method"] and not groups["method"][0].startswith("method:"):
        groups["method"].insert(0, "method:hqs")
    ordered = [*common]
    for choice in _CHOICES:
        ordered += groups[choice]
    helps = [word for word in ordered if word in ("-h", "--help")]
    return [word for word in ordered if word not in ("-h", "--help")] + helps[:1]


_LEFT = (errno.EPIPE, errno.EBADF)  # whoever read the output has seen enough


class Lasting:
    """A stream that drops what is written after its reader has left.

    Args:
        stream: The stream.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.error: OSError | None = None  # the first one

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except UnicodeEncodeError:  # a terminal without these letters
            kind = self.stream.encoding
            return self.write(text.encode(kind, "backslashreplace").decode(kind))
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        self.error = self.error or error
        try:  # also what it holds back, which Python would try to write at the end
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.stream.fileno())
            os.close(null)
            self.stream.flush()
        except (OSError, ValueError, AttributeError):  # it is no file
            pass


@contextmanager
def lasting_streams() -> Iterator[Lasting]:
    """Standard output and error that no reader can break, while the block lasts.

    Where one is closed from the start, a file that is opened later would take its number, and
    what libraries print would be written into it: it is replaced by /dev/null.

    Yields:
        Standard output.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w") as nowhere:
        out, err = (Lasting(nowhere if stream is None else stream) for stream in before)
        sys.stdout, sys.stderr = out, err  # type: ignore[assignment]
        try:
            yield out
        finally:
            out.flush()
            err.flush()
            sys.stdout, sys.stderr = before


def _fail(message: str, code: int = 2) -> int:
    print(f"measurand: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
