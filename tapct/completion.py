"""What makes a shell complete `tapct`: a script without a process of ours at each key, which would take a second."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

from tapct.arguments import CommandPath, Commands, Group, commands_below, names_of, options

_SCRIPT = """\
# tapct {shell} completion: made by `tapct completion {shell}`, with the encoders and tasks that were installed then.
_tapct() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" asked="" values="" place
  for ((place = 1; place < COMP_CWORD; place++)); do
    case "$asked ${{COMP_WORDS[place]}}" in
{paths}
      *) break ;;
    esac
  done
  case "$asked $before" in
{values}
  esac
  if [[ -z $values ]]; then
    case "$asked" in
{words}
    esac
  fi
  local done=""
  [[ $word == *,* ]] && done="${{word%,*}},"
  COMPREPLY=($(compgen -W "$values" -P "$done" -- "${{word#"$done"}}"))
}}
complete -o default -F _tapct tapct
"""

_ZSH = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"
"""zsh reads a script for bash after this."""


def script(commands: Commands, names: Mapping[str, Sequence[str]], shell: Literal["bash", "zsh"]) -> str:
    """Returns the script for a shell.

    Args:
        commands: All commands.
        names: What may stand behind an option, by its short name: encoders behind `-e`, tasks behind `-t`.
        shell: The shell.
    """
    words: dict[CommandPath, list[str]] = {(): list(commands)}
    words |= {(name,): list(of.commands) for name, of in commands.items() if isinstance(of, Group)}
    values: dict[CommandPath, list[str]] = {}
    for path, command in commands_below(commands):
        hints = get_type_hints(command)
        words[path] = []
        for option in options(command):
            typed = names_of(command, option)
            known = list(names.get(typed[0], ())) or _choices(hints[option])
            if typed[0].startswith("-"):
                words[path] += typed
                values |= {(*path, name): known for name in typed if known}
            else:
                words[path] += known
    filled = _SCRIPT.format(
        shell=shell,
        paths=_cases({path: [_joined(path)] for path in words if path}, "asked"),
        values=_cases(values, "values"),
        words=_cases(words, "values"),
    )
    return filled if shell == "bash" else _ZSH + filled


def _choices(kind: Any) -> list[str]:
    """Returns the values of a type that has few."""
    if get_origin(kind) is Literal:
        return [str(one) for one in get_args(kind)]
    inner = [one for one in get_args(kind) if get_origin(one) is Literal]
    return _choices(inner[0]) if inner else []


def _joined(path: CommandPath) -> str:
    return "".join(f" {word}" for word in path)


def _cases(found: Mapping[CommandPath, Sequence[str]], variable: str) -> str:
    """Returns the branches of a `case`: what the words so far are, and what a variable then is.

    Names with a colon are left out, where bash begins a new word.
    """
    lines = []
    for path, texts in found.items():
        value = texts[0] if variable == "asked" else " ".join(text for text in texts if ":" not in text)
        lines.append(f"      {shlex.quote(_joined(path))}) {variable}={shlex.quote(value)} ;;")
    return "\n".join(lines)
