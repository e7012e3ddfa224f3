"""What makes a shell complete `tapct`: a script without a process of ours at each key, which would take a second."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Literal

from cyclopts import App

from tapct.arguments import CommandPath, commands_below, names_below

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


def script(app: App, names: Mapping[str, Sequence[str]], shell: Literal["bash", "zsh"]) -> str:
    """Returns the script for a shell.

    Args:
        app: All commands.
        names: What may follow an option, by its short name: encoders after `-e`, tasks after `-t`.
        shell: The shell.
    """
    words: dict[CommandPath, list[str]] = {}
    values: dict[CommandPath, list[str]] = {}
    for path, command in commands_below(app):
        words[path] = names_below(command)
        for argument in command.assemble_argument_collection() if command.default_command else ():
            options = [name for name in argument.names if name.startswith("-") and name not in argument.negatives]
            known = [one for option in options for one in names.get(option, ())] or argument.get_choices(force=True)
            words[path] += options or known or ()
            values |= {(*path, option): list(known) for option in options if known}
    filled = _SCRIPT.format(
        shell=shell,
        paths=_cases({path: [_joined(path)] for path in words if path}, "asked"),
        values=_cases(values, "values"),
        words=_cases(words, "values"),
    )
    return filled if shell == "bash" else _ZSH + filled


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
