"""What all command lines share: arguments are checked before any work, and an error takes one line.

fire turns the values into Python and calls the function. Before that, the arguments are checked here against the
function's signature. The help is made from the signature and the docstring.
"""

from __future__ import annotations

import inspect
import io
import logging
import re
import shutil
import signal
import sys
import textwrap
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from inspect import Parameter
from typing import Any

import fire

from custom.errors import InputError
from custom.version import __version__

_HELP, _VERSION = ("-h", "--help"), "--version"
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_OPTION = re.compile(r"--|-[a-zA-Z]|-$")  # not -5, and not the window -600,1500
_SECTION = re.compile(r"^(Args|Attributes|Example|Examples|Note|Raises|Returns|Yields):$", re.MULTILINE)
_ARGUMENT = re.compile(r"^ {4}(\w+): *(.*(?:\n {5,}.*)*)", re.MULTILINE)
_WIDEST, _NARROWEST, _COLUMN = 100, 40, 28  # characters of a line of help, and of its first column


class Terminated(KeyboardInterrupt):
    """SIGTERM. It reaches this process alone; Ctrl-C also reaches the processes it has started."""


def run(
    commands: object,
    *,
    name: str,
    options: Callable[..., Any] | None = None,
    errors: tuple[type[Exception], ...] = (),
) -> None:
    """Run the command line in ``sys.argv``: call a function with its arguments, or show the help or the version.

    Arguments are written ``VALUE``, ``--name VALUE`` or ``--name=VALUE``; a dash in a name counts as an underscore. A
    ``bool`` needs no value. Numbers behind an option are one list (``--boxes 20 34 70 75``), unless it is an ``int``
    or a ``float``. A value that is a Python literal is read as one, any other as text.

    Bad arguments, bad input and files that cannot be read or written end with one line on standard error and code 1.
    Ctrl-C ends with code 130, SIGTERM with 143. In every case the work in progress cleans up first.

    Args:
        commands: a function, or an object whose public methods are the verbs of the command line. Signature and
            docstring (Google style) are the help.
        name: what a user types, e.g. ``"python -m custom.segment"``.
        options: a function whose keyword arguments are the names that ``**options`` of a function may hold. Without
            it, such a function takes any name and has to check the names itself, see ``check_keys``.
        errors: further errors that are reported in one line.

    Raises:
        SystemExit: the command failed.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold characters the terminal cannot show
    with _ending_in_one_line(*errors):
        words = [word for word in sys.argv[1:] if word not in _HELP]
        wants_help = len(words) < len(sys.argv[1:])
        if _VERSION in words:
            print(f"mcp-medsam-monai {__version__}")
            return
        if not inspect.isroutine(commands):
            verbs = _verbs(commands)
            word = words.pop(0) if words else ""
            verb = word.replace("_", "-")
            if verb not in verbs:
                if wants_help:
                    print(_overview(commands, name, verbs))
                    return
                allowed = f"{', '.join(verbs)}{_nearest(verb, verbs, ' (nearest: {})')}, or see {name} --help"
                raise InputError("arguments", "verb", repr(word) if word else "nothing", allowed)
            commands, name = verbs[verb], f"{name} {verb}"
        command = _Command(commands, name, options)
        if wants_help:
            print(command.help())
        else:
            fire.Fire(command.function, command.parse(words), name=name)


def check_keys(keys: Iterable[str], known: Iterable[str]) -> None:
    """Check the names of overrides of a configuration, e.g. ``epochs`` or ``train#trainer#amp``.

    Args:
        keys: the names given.
        known: the top-level keys that may be set.

    Raises:
        InputError: a key that is not known; the nearest ones are named.
    """
    known = set(known)
    for key in keys:
        if key.split("#")[0] not in known:
            near = ", ".join(get_close_matches(key, known)) or "the keys of configs/train.json"
            raise InputError("arguments", f"--{key}", "a key that cannot be set here", near)


def leave_on_sigterm() -> None:
    """Let SIGTERM end a MONAI program through its ``finally`` clauses, with code 143.

    A program with its own handler keeps it.
    """
    main = threading.current_thread() is threading.main_thread()
    if main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


class _Command:
    """A function as a command line."""

    def __init__(self, function: Callable[..., Any], name: str, options: Callable[..., Any] | None) -> None:
        self.function, self.name = function, name
        self.about, self.texts = _docstring(function)
        self.named: dict[str, Parameter] = {}
        self.several: str | None = None  # the name of *args
        self.others: str | None = None  # the name of **kwargs that accept any name
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind is Parameter.VAR_POSITIONAL:
                self.several = parameter.name
            elif parameter.kind is not Parameter.VAR_KEYWORD:
                self.named[parameter.name] = parameter
            elif options is None:
                self.others = parameter.name
            else:
                self.named |= inspect.signature(options).parameters
                self.texts |= _docstring(options)[1]

    def parse(self, words: list[str]) -> list[str]:
        """Check the arguments and return them in a form that fire reads in one way only."""
        given: dict[str, str] = {}
        free, rest = [], deque(words)
        while rest:
            word = rest.popleft()
            if not _OPTION.match(word):
                free.append(word)
                continue
            key, equals, value = word.partition("=")
            name = self._known(key)
            if name in given:
                raise InputError("arguments", key, "the option twice", "once")
            given[name] = self._checked(name, value if equals else self._value(name, rest))
        places = [name for name in self.named if self._is_place(name)]
        for name in places:
            if free and name not in given:
                given[name] = free.pop(0)
        if free and self.several is None:
            allowed = f"at most {len(places)}, see {self.name} --help"
            raise InputError("arguments", repr(free[0]), "one argument too many", allowed)
        missing = next((n for n, p in self.named.items() if p.default is Parameter.empty and n not in given), None)
        if missing is not None:
            raise self._no_value(missing)
        return [*(f"--{name}={value}" for name, value in given.items()), *free]

    def help(self) -> str:
        """Return the help text of the command."""
        needed = [name for name, parameter in self.named.items() if parameter.default is Parameter.empty]
        places = {name: name.upper() for name in needed if self._is_place(name)}
        places |= {self.several: f"{self.several.upper()}..."} if self.several else {}
        options = [name for name in self.named if name not in places]
        usage = [*places.values(), *(self._head(name) for name in options if name in needed)]
        lines = [_filled(f"usage: {' '.join([self.name, *usage, '[options]'])}", "       "), "", self.about]
        if places:
            lines += ["", "arguments:" if self.several else "arguments, each also as --name VALUE:"]
            lines += [_entry(head, self.texts.get(name, "")) for name, head in places.items()]
        lines += ["", "options:"]
        for name in options:
            default = self.named[name].default
            note = " (required)" if name in needed else "" if default is None else f" (default: {default})"
            lines.append(_entry(self._head(name), self.texts.get(name, "") + note))
        if self.others:
            lines.append(_entry("--KEY VALUE", self.texts.get(self.others, "")))
        lines += [_entry(", ".join(_HELP), "Show this help."), _entry(_VERSION, "Show the version.")]
        return "\n".join(lines)

    def _known(self, key: str) -> str:
        name = key[2:].replace("-", "_") if key.startswith("--") else ""
        if name in self.named or (name and self.others):
            return name
        near = _nearest(key.strip("-").replace("-", "_"), self.named, "--{} (nearest), or ")
        raise InputError("arguments", key, "an unknown option", f"{near}those listed by {self.name} --help")

    def _value(self, name: str, rest: deque[str]) -> str:
        """Take an option's value from the words behind it."""
        kind = self._kind(name)
        if not rest or _OPTION.match(rest[0]):
            if kind == {"bool"} or name not in self.named:
                return "True"
            raise self._no_value(name)
        values = [rest.popleft()]
        if _NUMBER.fullmatch(values[0]) and not (kind and kind <= {"int", "float"}):
            while rest and _NUMBER.fullmatch(rest[0]):
                values.append(rest.popleft())
        return values[0] if len(values) == 1 else f"[{', '.join(values)}]"

    def _checked(self, name: str, value: str) -> str:
        if self._kind(name) != {"bool"}:
            return value
        if value.capitalize() not in ("True", "False"):  # fire would take any other text for True
            raise InputError("arguments", f"--{name}", repr(value), "True, False")
        return value.capitalize()

    def _kind(self, name: str) -> set[str]:
        """Return the types in an option's annotation, without None."""
        annotation = self.named[name].annotation if name in self.named else ""
        text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
        return set(re.findall(r"\w+", text)) - {"None"}

    def _is_place(self, name: str) -> bool:
        return self.named[name].kind is Parameter.POSITIONAL_OR_KEYWORD

    def _no_value(self, name: str) -> InputError:
        wanted = re.split(r"(?<!e\.g)[.;:](?:\s|$)", self.texts.get(name) or "a value")[0]
        field = name if self._is_place(name) else f"--{name}"
        return InputError("arguments", field, "nothing", f"{wanted} (see {self.name} --help)")

    def _head(self, name: str) -> str:
        return f"--{name} {'True|False' if self._kind(name) == {'bool'} else 'VALUE'}"


def _verbs(commands: object) -> dict[str, Callable[..., Any]]:
    names = [name for name in vars(type(commands)) if not name.startswith("_")]
    return {name.replace("_", "-"): getattr(commands, name) for name in names}


def _overview(commands: object, name: str, verbs: dict[str, Callable[..., Any]]) -> str:
    entries = [_entry(verb, _docstring(function)[0].partition("\n\n")[0]) for verb, function in verbs.items()]
    ending = f"{name} VERB --help lists the options of a verb."
    return "\n".join([f"usage: {name} VERB ...", "", _docstring(commands)[0], "", "verbs:", *entries, "", ending])


def _docstring(documented: object) -> tuple[str, dict[str, str]]:
    """Return the wrapped text of a docstring before its sections, and the text of each argument."""
    text = (inspect.getdoc(documented) or "").replace("``", "")
    about, *rest = _SECTION.split(text)
    arguments = dict(zip(rest[::2], rest[1::2], strict=True)).get("Args", "")
    paragraphs = about.strip().split("\n\n")
    wrapped = [p if "\n " in f"\n{p}" else _filled(" ".join(p.split()), "") for p in paragraphs]
    return "\n\n".join(wrapped), {name: " ".join(text.split()) for name, text in _ARGUMENT.findall(arguments)}


def _entry(head: str, text: str) -> str:
    return _filled(f"  {head:<{_COLUMN - 4}}  {' '.join(text.split())}".rstrip(), " " * _COLUMN)


def _filled(text: str, indent: str) -> str:
    width = max(_NARROWEST, min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns))
    return textwrap.fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _nearest(name: str, known: Iterable[str], text: str) -> str:
    """Return a text with the known name that is nearest to the one given, or "" if none is near."""
    near = get_close_matches(name, known, 1)
    return text.format(near[0]) if near else ""


@contextmanager
def _ending_in_one_line(*others: type[Exception]) -> Iterator[None]:
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except (InputError, OSError, *others) as error:
        sys.exit(f"error: {' '.join(str(error).splitlines())}")
    except KeyboardInterrupt as stop:
        print("stopped; the same command carries on from here", file=sys.stderr)
        sys.exit(128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT))
    finally:
        signal.signal(signal.SIGTERM, previous)


def _terminate(*_: object) -> None:
    raise Terminated
