# bash completion of regentctl. The words come from `regentctl --help`, so that they are always those
# of the program installed.
#   install as /usr/share/bash-completion/completions/regentctl

_regentctl_commands() { regentctl --help 2>/dev/null | sed -n 's/^  \([a-z][a-z -]*[a-z]\)  .*/\1/p'; }

_regentctl() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}
    local words='' options word skip=
    COMPREPLY=()
    case $previous in
        -f|--format) mapfile -t COMPREPLY < <(compgen -W 'table json yaml tsv' -- "$current"); return ;;
        -c|--config|--dir|--data-dir|--pg-data|--pg-bin)
            mapfile -t COMPREPLY < <(compgen -o default -- "$current"); return ;;
        --sort-by) mapfile -t COMPREPLY < <(compgen -W 'create key modify value version' -- "$current"); return ;;
        --order) mapfile -t COMPREPLY < <(compgen -W 'ascend descend' -- "$current"); return ;;
        --role) [[ ${COMP_WORDS[*]} == *" cert "* ]] && { mapfile -t COMPREPLY < <(compgen -W 'viewer operator admin' -- "$current"); return; }
            [[ " ${COMP_WORDS[*]} " == *" token "* || " ${COMP_WORDS[*]} " == *" member "* ]] || { mapfile -t COMPREPLY < <(compgen -W 'leader primary replica standby any' -- "$current"); return; }
            mapfile -t COMPREPLY < <(compgen -W 'voter learner witness' -- "$current"); return ;;
    esac
    # The command so far: words before the cursor that are no options and no values of global ones.
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        if [[ -n $skip ]]; then skip=; continue; fi
        case $word in
            -c|--config|-H|--host|-f|--format) skip=1 ;;
            -*) ;;
            *) words+=${words:+ }$word ;;
        esac
    done
    local candidates
    if [[ $current == -* ]]; then
        # shellcheck disable=SC2086  # a command may be two words
        options=$(regentctl $words --help 2>/dev/null | grep -oE -- '--[a-z-]+' | sort -u)
        candidates="$options --help --format --config --host"
    else
        candidates=$(_regentctl_commands | sed -n "s/^${words:+$words }\([a-z-]*\).*/\1/p" | sort -u)
    fi
    mapfile -t COMPREPLY < <(compgen -W "$candidates" -- "$current")
}

complete -F _regentctl regentctl
