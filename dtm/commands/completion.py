"""``dtm completion``: a script that completes ``dtm`` in a shell, made by shtab.

shtab makes the script from the parser of all words; ``hint`` tells it what an argument is.  No
parser of ``argparse`` can say that a program may stand where a word would (``dtm PROGRAM`` is short
for ``dtm run PROGRAM``), so a function around shtab's puts in the word.  In bash that function also
joins what readline separates at ``=`` and ``:``, and leaves to readline whatever has no answer.

Rejected: the options of ``run`` at the parser of all words too.  They would be in its help twice.
"""

from __future__ import annotations

import sys
from argparse import Action, ArgumentParser, Namespace

SUMMARY = "print a script that completes this command in a shell"
_MANAGERS = "mpi local tcp serial"
# In each shell: the name of a file, and that of a communication manager.
FILES = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}
MANAGERS = {"bash": "_dtm_managers", "zsh": f"({_MANAGERS})", "tcsh": f"({_MANAGERS})"}

_BASH = f"""
_dtm_managers() {{
  compgen -W "{_MANAGERS}" -- "$1"
}}

# dtm PROGRAM is short for dtm run PROGRAM.
_dtm() {{
  local word glue= current=${{COMP_WORDS[COMP_CWORD]}} words=() found=()
  for word in "${{COMP_WORDS[@]:0:COMP_CWORD}}"; do
    if [[ $word == = ]]; then # --hosts=FILE is --hosts FILE
      continue
    elif [[ $word == :* || $glue ]]; then # tcp://10.0.0.1:40001 is one word
      words[${{#words[@]}}-1]+=$word
    else
      words+=("$word")
    fi
    [[ $word == :* ]] && glue=1 || glue=
  done
  [[ $current == = ]] && current=
  local COMP_WORDS=("${{words[0]}}" "$current") COMP_CWORD=1
  if (( ${{#words[@]}} == 1 )); then
    _shtab_dtm
    found=("${{COMPREPLY[@]}}")
    words+=(run)
  elif [[ " @words@ " != *" ${{words[1]}} "* ]]; then
    words=("${{words[0]}}" run "${{words[@]:1}}")
  fi
  COMP_WORDS=("${{words[@]}}" "$current")
  COMP_CWORD=${{#words[@]}}
  _shtab_dtm
  COMPREPLY=("${{found[@]}}" "${{COMPREPLY[@]}}")
}}

complete -o bashdefault -o default -F _dtm dtm
"""

_ZSH = """
# dtm PROGRAM is short for dtm run PROGRAM.
zmodload zsh/parameter
functions[_shtab_dtm_words]=$functions[_shtab_dtm]
_shtab_dtm() {
  if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then
    _shtab_dtm_words
    _files
    return
  fi
  if [[ " @words@ " != *" $words[2] "* ]]; then
    words=("$words[1]" run "${(@)words[2,-1]}")
    (( CURRENT += 1 ))
  fi
  _shtab_dtm_words
}
"""


def hint(action: Action, kind: dict[str, str]) -> None:
    """Tell shells how to complete an argument."""
    action.complete = kind  # type: ignore[attr-defined]


def add_arguments(parser: ArgumentParser) -> None:
    """Add the name of the shell."""
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="the shell it is for")


def execute(given: Namespace) -> int:
    """Print the script."""
    try:
        import shtab
    except ImportError:
        sys.exit("dtm: completion needs shtab: pip install 'dtm[completion]'")
    from dtm.commands import COMMANDS, complete_parser

    words = " ".join(COMMANDS)
    before = _ZSH.replace("@words@", words) if given.shell == "zsh" else ""
    after = _BASH.replace("@words@", words) if given.shell == "bash" else ""
    script = shtab.complete(complete_parser(), given.shell, preamble=before)
    sys.stdout.write(f"{script}\n{after}")
    return 0
