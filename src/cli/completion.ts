import type { Invocation } from "./invocation.ts";
import { UsageError } from "./invocation.ts";
import { print } from "./output.ts";

/** Prints what makes a shell complete our command lines. What fits where is asked of the program itself (complete.ts). */
export async function completion({ operands: [shell = ""] }: Invocation): Promise<number> {
  const script = new Map(Object.entries({ bash: BASH, zsh: ZSH, fish: FISH })).get(shell);
  if (script === undefined) throw new UsageError(`completion is there for bash, zsh and fish, not for "${shell}"`);
  await print(script);
  return 0;
}

const BASH = `# bash completion of k8s-runner; in ~/.bashrc: eval "$(k8s-runner completion bash)"
_k8s_runner() {
  local line
  COMPREPLY=()
  while IFS= read -r line; do
    case $line in
      :file)
        compopt -o filenames
        while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -f -- "\${COMP_WORDS[COMP_CWORD]}")
        ;;
      *)
        line=\${line%%$'\\t'*}
        case $line in */) compopt -o nospace ;; esac
        COMPREPLY+=("$line")
        ;;
    esac
  done < <("\${COMP_WORDS[0]}" __complete bash -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _k8s_runner k8s-runner
`;

const ZSH = `#compdef k8s-runner
# zsh completion of k8s-runner; in ~/.zshrc, after compinit: eval "$(k8s-runner completion zsh)"
_k8s_runner() {
  local line files
  local -a described
  for line in "\${(@f)$("\${words[1]}" __complete zsh -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
    case $line in
      '') ;;
      :file) files=1 ;;
      *) described+=("\${\${line%%$'\\t'*}//:/\\\\:}:\${line#*$'\\t'}") ;;
    esac
  done
  (( $#described )) && _describe 'k8s-runner' described
  [[ -n $files ]] && _files
}
compdef _k8s_runner k8s-runner
`;

const FISH = `# fish completion of k8s-runner; in ~/.config/fish/config.fish: k8s-runner completion fish | source
function __k8s_runner_complete
    set -l words (commandline -opc) (commandline -ct)
    for line in ($words[1] __complete fish -- $words[2..-1] 2>/dev/null)
        if test "$line" = ":file"
            __fish_complete_path (commandline -ct)
        else
            echo $line
        end
    end
end
complete -c k8s-runner -f -a '(__k8s_runner_complete)'
`;
