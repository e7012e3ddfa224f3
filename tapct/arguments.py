"""What the options of commands have in common, how the help shows them, and what is said of a wrong command line.

cyclopts reads a command's options from its signature and docstring; what is special about one is declared next to its
type: `Annotated[str, ENCODER]`. Parameters before `/` are placed, those behind `*` are named.
"""

import inspect
import json
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from cyclopts import App, CycloptsError, Parameter, Token
from cyclopts.exceptions import MissingArgumentError, UnusedCliTokensError

if TYPE_CHECKING:
    from cyclopts.argument import Argument
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

CommandPath = tuple[str, ...]


def _words(kind: Any, tokens: Sequence[Token]) -> list[str]:
    return [word.strip() for token in tokens for word in token.value.split(",") if word.strip()]


def _whole(kind: Any, tokens: Sequence[Token]) -> int:
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"a whole number is needed, not '{tokens[0].value}'") from None


def _number(kind: Any, tokens: Sequence[Token]) -> float:
    try:
        return float(tokens[0].value)
    except ValueError:
        raise ValueError(f"a number is needed, not '{tokens[0].value}'") from None


def _numbers(kind: Any, tokens: Sequence[Token]) -> list[float]:
    words = _words(kind, tokens)
    try:
        return [float(word) for word in words]
    except ValueError:
        raise ValueError(f"comma-separated numbers are needed, such as 0.01,0.1,1, not '{','.join(words)}'") from None


def _json_object(kind: Any, tokens: Sequence[Token]) -> dict[str, Any]:
    text = tokens[0].value if isinstance(tokens, Sequence) else "a part of one"  # --options.key VALUE
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"a JSON object is needed, such as '{{\"in_plane_size\": 512}}', not {text}")
    return found


ENCODER = Parameter(alias="-e", metavar="ENCODER")
ENCODERS = Parameter(alias="-e", metavar="ENCODERS")
TASK = Parameter(alias="-t", metavar="TASK")
TASKS = Parameter(alias="-t", metavar="TASKS")
WEIGHTS = Parameter(alias="-w", metavar="WEIGHTS")
OUT = Parameter(alias="-o", metavar="OUT")
NAME = Parameter(metavar="NAME")

WHOLE = Parameter(converter=_whole)
"""A whole number; cyclopts would round 2.5."""
NUMBER = Parameter(converter=_number)
NUMBERS = Parameter(converter=_numbers, n_tokens=1, show_default=False)
JSON_OBJECT = Parameter(converter=_json_object, n_tokens=1, metavar="JSON")

SETTINGS = Parameter(name="*")
"""A dataclass whose fields are options, each with its default and its description there."""
NOT_AN_OPTION = Parameter(parse=False)


class Help:
    """Lays the help out in two columns of plain text, without the types of Python."""

    indent = 24

    def __call__(self, console: "Console", options: "ConsoleOptions", panel: "HelpPanel") -> None:
        """Prints a group of commands or options."""
        if not panel.entries:
            return
        lines = [f"{panel.title}:"]
        for entry in panel.entries:
            name, text = f"  {_names_in_help(entry)}", _text_in_help(entry)
            described = textwrap.wrap(text, options.max_width - self.indent, break_on_hyphens=False)
            if described and len(name) + 2 <= self.indent:
                name = f"{name:{self.indent}}{described.pop(0)}"
            lines += [name, *(" " * self.indent + line for line in described)]
        console.print("\n".join([*lines, ""]), highlight=False, markup=False, soft_wrap=True)

    def render_usage(self, console: "Console", options: "ConsoleOptions", usage: object) -> None:
        """Prints how the command is typed."""
        console.print(f"Usage: {usage}", highlight=False, markup=False)


def _names_in_help(entry: "HelpEntry") -> str:
    if entry.positional_label is not None:
        return entry.positional_label
    value = "" if entry.metavar is None else f" {entry.positive_names[0].lstrip('-').replace('-', '_').upper()}"
    return ", ".join(f"{name}{value}" for name in (*entry.positive_shorts, *entry.positive_names))


def _text_in_help(entry: "HelpEntry") -> str:
    takes_value = entry.metavar is not None or entry.positional_label is not None
    said = [f"one of {', '.join(entry.choices)}"] if entry.choices else []
    said += ["required"] if entry.required and entry.positional_label is None else []
    said += [f"default: {entry.default}"] if takes_value and entry.default is not None else []
    text = str(entry.description.primary_renderable)
    return f"{text} ({'; '.join(said)})" if said else text


def said(error: CycloptsError) -> str:
    """Returns what is wrong with a command line, in the words that were typed: `-e`, not `encoder`."""
    match error:
        case MissingArgumentError(keyword=None):
            return f"{' and '.join(map(typed, _missing(error)))} must be given"
        case MissingArgumentError():
            return f"{error.keyword} takes a value"
        case UnusedCliTokensError(unused_tokens=[first, *_]):
            return f"'{first}' is one too many"
    return str(error)


def _missing(error: MissingArgumentError) -> "list[Argument]":
    """Returns the argument that cyclopts misses, and the named ones that are needed and were not typed either."""
    assert error.argument is not None
    assert error.app is not None
    given = error.root_input_tokens or []
    return [error.argument] + [
        one
        for one in error.app.assemble_argument_collection()
        if one.required and one.field_info.is_keyword and one.names != error.argument.names
        and not any(word.startswith(one.names) for word in given)
    ]  # fmt: skip


def typed(argument: "Argument") -> str:
    """Returns how an argument is typed: `-e ENCODER`, or INPUTS of one that is placed."""
    value = argument.names[0].lstrip("-").replace("-", "_").upper()
    named = sorted((name for name in argument.names if name.startswith("-")), key=len)
    return f"{named[0]} {value}" if named else value


def app(commands: Mapping[str, Callable[..., int] | str], groups: Mapping[str, str]) -> App:
    """Returns what reads the command line.

    Args:
        commands: What does each command, or the place of that (MODULE:FUNCTION), by its name: of one in a group after
            the group's.
        groups: What is said of each group of commands.
    """
    found = App(
        name="tapct",
        help=sys.modules["tapct"].__doc__,
        version=lambda: f"tapct {version('tapct-bench')}",
        default_parameter=Parameter(negative=()),
        help_format="plaintext",
        help_formatter=Help(),
        exit_on_error=False,
        print_error=False,
    )
    for number, (name, command) in enumerate(commands.items()):
        *group, last = name.split()
        if group and group[0] not in found:
            found.command(App(name=group[0], help=groups[group[0]], sort_key=number))
        (found[group[0]] if group else found).command(command, name=last, sort_key=number)
    return found


def parsed(app: App, words: Sequence[str]) -> tuple[Callable[..., Any], inspect.BoundArguments]:
    """Returns the command of a command line, and what it is called with.

    Where the command line is wrong, one message says so, and where to read on; then the program ends with status 2.
    """
    try:
        command, given, _ = app.parse_args(words)
        if command == app.help_print:
            path, apps, _ = app.parse_commands(given.arguments["tokens"])
            below = names_below(apps[-1])  # which imports them, for their help
            if not {"--help", "-h"} & set(words):
                raise CycloptsError(f"name one of {', '.join(below)}", command_chain=path)
    except CycloptsError as error:
        name = " ".join(["tapct", *(error.command_chain or ())])
        sys.stderr.write(f"{name}: {said(error)}\nSee: {name} --help\n")
        sys.exit(2)
    return command, given


def names_below(app: App) -> list[str]:
    """Returns the names of the commands and groups right below a group."""
    return [name for name in app.resolved_commands() if not name.startswith("-")]


def commands_below(app: App, path: CommandPath = ()) -> Iterator[tuple[CommandPath, App]]:
    """Yields a group and all commands and groups below it, each after its path."""
    yield path, app
    for name in names_below(app):
        yield from commands_below(app[name], (*path, name))
