"""What a shell completes: hints for shtab at the arguments, and what shtab does not know.

shtab makes a script from the parser of all words.  That a program may stand where a word
would, since ``dtm PROGRAM`` is short for ``dtm run PROGRAM``, no parser of ``argparse``
says; so around shtab's function stands one that puts in the word.  In bash it also joins what
readline takes apart at ``=`` and ``:``, and leaves to readline whatever has no answer.

Rejected: the options of ``run`` at the parser of all words too.  They would be in its help
twice.
"""

from __future__ import annotations

from argparse import Action
from collections.abc import Iterable

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
    """Say what an argument is, for shells to complete it."""
    action.complete = kind  # type: ignore[attr-defined]


def before(shell: str, words: Iterable[str]) -> str:
    """Return what stands in the script before shtab registers its function."""
    return _ZSH.replace("@words@", " ".join(words)) if shell == "zsh" else ""


def after(shell: str, words: Iterable[str]) -> str:
    """Return what stands behind shtab's script."""
    return _BASH.replace("@words@", " ".join(words)) if shell == "bash" else ""
