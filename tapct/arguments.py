"""The command line: options of commands by the signatures and docstrings of what they do, and what is said of mistakes.

A mistake is one message, in the words that were typed: `-e`, not `embed.encoder`.
"""

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, NoReturn, get_args, get_origin, get_type_hints

import docstring_parser
import jsonargparse

from tapct.errors import nearest


class Group(NamedTuple):
    """Commands under a command."""

    help: str
    commands: "Commands"


Commands = Mapping[str, Callable[..., int] | Group]
CommandPath = tuple[str, ...]

SHORT = {"encoders": "-e", "encoder": "-e", "tasks": "-t", "task": "-t", "weights": "-w", "out": "-o"}
"""Options with a second name; they are named, not placed, even where they must be given."""

PLACED = ("name",)
"""Options that are placed, not named, also where they may be left out; not where a command takes them by name alone."""

_REQUIRED = re.compile(r"the following arguments are required: (.+)")
_UNKNOWN_COMMAND = re.compile(r"argument COMMAND: invalid choice: '(.*?)' \(")
_NO_COMMAND = re.compile(r'expected "[\w.-]*subcommand" to be one of')
_UNKNOWN_OPTION = re.compile(r"unrecognized arguments: (.+)", re.DOTALL)
_WRONG_VALUE = re.compile(r'Parser key "([\w.-]+)":.*?(?:Got|Given) value: (.*)\Z', re.DOTALL)


class Help(jsonargparse.DefaultHelpFormatter):
    """jsonargparse's help without Python's types: a line says what an option is, and its default where it has one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        whole, said = super()._get_help_string(action), action.help or ""
        if not whole.startswith(said):  # of --help itself
            return whole
        if action.required and action.option_strings:
            return f"{said} (required)"
        is_none = any(action.default is one for one in (None, False, argparse.SUPPRESS))
        return said if is_none else f"{said} (default: %(default)s)"


class Parser(jsonargparse.ArgumentParser):
    """jsonargparse's parser, which says one thing of a mistake, and where to read on."""

    commands: ClassVar[Commands]
    """All commands: which one was meant is told by the arguments, for the parser that fails may be the outer one."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        """Initializes the parser; see `jsonargparse.ArgumentParser`."""
        super().__init__(*arguments, formatter_class=Help, **settings)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Ends with status 2 and one message."""
        if not self.exit_on_error:
            super().error(message, ex)
        path, command = named(self.commands, sys.argv[1:])
        name = " ".join(["tapct", *path])
        sys.stderr.write(f"{name}: {reworded(message, self.commands if command is None else command)}\n")
        sys.stderr.write(f"See: {name} --help\n")
        self.exit(2)


def parser(commands: Commands, description: str | None, version: str) -> Parser:
    """Returns the parser of all commands.

    Args:
        commands: By name.
        description: Stands above them.
        version: What `--version` prints.
    """
    outer = Parser(prog="tapct", description=description, version=version)
    Parser.commands = commands
    _add_commands(outer, commands)
    return outer


def named(commands: Commands, arguments: Sequence[str]) -> tuple[list[str], Callable[..., int] | Commands | None]:
    """Returns the path of the command that arguments begin with, and the command, or the commands below the path.

    None instead of them if they begin with no command.
    """
    path: list[str] = []
    found: Callable[..., int] | Commands | None = None
    for word in arguments:
        below: Any = commands if found is None else found
        if callable(below) or word not in below:
            break
        path.append(word)
        found = below[word].commands if isinstance(below[word], Group) else below[word]
    return path, found


def reworded(message: str, command: Callable[..., int] | Commands) -> str:
    """Returns jsonargparse's message in the words that a user types.

    Args:
        message: The message.
        command: The command that it is about, or those of which one was to be named.
    """
    if not callable(command):
        if found := _UNKNOWN_COMMAND.search(message):
            return f"there is no command '{found[1]}'. {nearest(found[1], command)}"
        return f"name one of {', '.join(command)}" if _NO_COMMAND.search(message) else message
    if found := _REQUIRED.search(message):
        missing = [typed(command, key.rpartition(".")[2]) for key in found[1].split(", ")]
        return f"{' and '.join(missing)} must be given"
    if found := _UNKNOWN_OPTION.search(message):
        word = found[1].split()[0]
        if not word.startswith("-"):
            return f"'{word}' is one too many"
        known = [name for option in options(command) for name in names_of(command, option)]
        return f"there is no option '{word}'. {nearest(word, known)}"
    if (found := _WRONG_VALUE.search(message)) and (key := found[1].rpartition(".")[2]) in options(command):
        takes = _in_words(get_type_hints(command)[key])
        name = typed(command, key).split()[0]
        return message if takes is None else f"{name} takes {takes}, not {found[2].strip()!r}"
    return message


def _in_words(kind: Any) -> str | None:
    """Returns what an option of a type takes; None if it is not one of the plain ones."""
    inner = [one for one in get_args(kind) if one is not type(None)]
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if len(inner) == 1 and get_origin(kind) not in (list, dict):
        return _in_words(inner[0])
    return {int: "a whole number", float: "a number"}.get(kind)


def options(command: Callable[..., int]) -> list[str]:
    """Returns the names of the options of a command, as its signature has them."""
    return list(inspect.signature(command).parameters)


def names_of(command: Callable[..., int], option: str) -> list[str]:
    """Returns what an option is typed as: `-e` and `--encoder`; of one that is placed its name alone."""
    parameter = inspect.signature(command).parameters[option]
    if _is_placed(command, parameter):
        return [option]
    return [*filter(None, [SHORT.get(option)]), f"--{option.replace('_', '-')}"]


def typed(command: Callable[..., int], option: str) -> str:
    """Returns how an option and its value are typed, for a message: `-e ENCODER`."""
    if option not in options(command):
        return option
    first = names_of(command, option)[0]
    value = option.replace("-", "_").upper()
    return f"{first} {value}" if first.startswith("-") else value


def commands_below(
    commands: Commands, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Callable[..., int]]]:
    """Yields the path of every command, and the command."""
    for name, command in commands.items():
        if isinstance(command, Group):
            yield from commands_below(command.commands, (*path, name))
        else:
            yield (*path, name), command


def _is_placed(command: Callable[..., int], parameter: inspect.Parameter) -> bool:
    if parameter.name in PLACED and parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
        return True
    if _is_special(command, parameter.name):
        return bool(get_type_hints(command)[parameter.name] == list[str])
    return parameter.default is inspect.Parameter.empty


def _add_commands(parser: jsonargparse.ArgumentParser, commands: Commands) -> None:
    subcommands = parser.add_subcommands(metavar="COMMAND")
    for name, command in commands.items():
        about = command.help if isinstance(command, Group) else (command.__doc__ or "").split("\n")[0]
        subparser = Parser(description=about)
        subcommands.add_subcommand(name, subparser, help=about)
        if isinstance(command, Group):
            _add_commands(subparser, command.commands)
            continue
        for option in options(command):  # one by one, for the order of the signature
            if _is_special(command, option):
                _add_option(subparser, command, option)
            else:
                others: set[str | int] = {other for other in options(command) if other != option}
                subparser.add_function_arguments(command, as_group=False, as_positional=True, skip=others)


def _is_special(command: Callable[..., int], option: str) -> bool:
    """Returns whether jsonargparse would spell it otherwise: a flag with a value, a word with an underscore."""
    return (
        option in (*SHORT, *PLACED)
        or "_" in option
        or get_type_hints(command)[option] in (bool, list[str], list[str] | None)
    )


def _add_option(parser: jsonargparse.ArgumentParser, command: Callable[..., int], option: str) -> None:
    kind, parameter = get_type_hints(command)[option], inspect.signature(command).parameters[option]
    default = parameter.default
    texts = {p.arg_name: p.description for p in docstring_parser.parse(command.__doc__ or "").params}
    names = [*filter(None, [SHORT.get(option)]), f"--{option.replace('_', '-')}"]
    settings: dict[str, Any] = {"help": texts[option]}
    if option in PLACED and parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
        names = [option]
        if default is not inspect.Parameter.empty:
            settings["nargs"] = "?"
    elif kind == list[str]:
        names, settings["nargs"] = [option], "+"
    elif kind is bool:
        settings["action"] = "store_true"
    elif kind == list[str] | None:
        settings |= {"action": "append", "type": str}
    else:
        settings["type"] = kind
        settings |= {"required": True} if default is inspect.Parameter.empty else {"default": default}
    parser.add_argument(*names, **settings)
