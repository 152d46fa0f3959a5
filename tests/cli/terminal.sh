#!/usr/bin/env bash
# A person at a real terminal (tmux): full-screen use, resize, Ctrl-C, exit codes, what is left of the terminal when things end
# badly, and completion in bash, zsh and fish themselves. The runner is the demo's, on the embedded cluster; with ADDRESS
# (host:port) one that serves there. Needs Debian's packages tmux, zsh, fish and vim-tiny (a vi); installs what is not there.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit
passed=0 failed=0
PATH=$PWD/node_modules/.bin:$PATH
if [ ! -d node_modules ] || [ ! -d src/gen ]; then npx --yes bun@1.4.5 run --silent setup; fi

packages=()
for pair in tmux:tmux zsh:zsh fish:fish vi:vim-tiny; do command -v "${pair%%:*}" >/dev/null || packages+=("${pair##*:}"); done
if [ "${#packages[@]}" -gt 0 ]; then
  apt-get update -q >/dev/null
  DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends "${packages[@]}" >/dev/null
fi

work=$(mktemp -d)
demo=
mux() { tmux -S "$work/tmux" "$@"; }
cleanup() {
  mux kill-server 2>/dev/null
  [ -n "$demo" ] && kill "$demo" 2>/dev/null && wait "$demo"
  rm -rf "$work"
}
trap cleanup EXIT

screen() { mux capture-pane -p; }
type() { mux send-keys "$@"; }
# Passes as soon as the screen holds a line that matches; fails after 20 s, and shows what there was.
shows() { # what is to be seen, pattern
  for _ in $(seq 200); do
    if screen | grep -qE -- "$2"; then passed=$((passed + 1)); echo "ok    $1"; return; fi
    sleep 0.1
  done
  failed=$((failed + 1))
  echo "FAIL  $1: no /$2/ on the screen:"
  screen | sed -e 's/^/      | /' | grep -v '^      | *$'
}
# Waits for the shell at the screen's end: what is typed before its prompt is echoed above it, and its output then stands beside it.
prompted() {
  for _ in $(seq 200); do screen | grep -v '^ *$' | tail -n 1 | grep -qE '^here>$' && return; sleep 0.1; done
}
# Shows the screen as a person sees it, for whoever reads the output.
show() { echo "      -- $1"; screen | sed -e 's/^/      | /' | grep -v '^      | *$'; }
is() { if [ "$2" = "$3" ]; then passed=$((passed + 1)); echo "ok    $1"; else failed=$((failed + 1)); echo "FAIL  $1: $2, wanted $3"; fi; }

# A runner, started in the pane of the demo where there is none.
mux -f /dev/null new-session -d -x 110 -y 34 "env PS1='here> ' sh"
mux set-option -g remain-on-exit on
if [ -z "${ADDRESS:-}" ]; then
  bun tests/demo.ts --keep >"$work/demo.log" 2>&1 &
  demo=$!
  for _ in $(seq 200); do grep -q 'go on running' "$work/demo.log" && break; sleep 0.1; done
  ADDRESS=$(sed -nE 's/.*http:\/\/([0-9.:]+), gRPC.*/\1/p' "$work/demo.log")
fi
printf '#!/bin/sh\nexec %s %s "$@"\n' "$PWD/node_modules/.bin/bun" "$PWD/src/main.ts" >"$work/k8s-runner"
chmod +x "$work/k8s-runner"
export RUNNER_ADDRESS=$ADDRESS PATH="$work:$PATH"
id=$(k8s-runner start --wait "${IMAGE:-alpine:3.19}" -- sleep 3000 2>/dev/null)
[ -n "$id" ] || { echo "no workload could be started"; exit 1; }

type "cd $work; PATH=$PATH RUNNER_ADDRESS=$ADDRESS; export PATH RUNNER_ADDRESS; clear" Enter
shows "a shell at the terminal" '^here>$'
before=$(mux display-message -p '#{pane_tty}'); settings() { stty -g <"$before"; }
plain=$(settings)

type "k8s-runner exec -it $id -- sh" Enter
shows "a session has a prompt of its own" '^(/ )?[#$]$'
# A size goes another way than what is typed, and may come after it.
type "until stty size | grep -qx '34 110'; do :; done; clear; stty size" Enter
shows "it knows the size" '^34 110$'
mux resize-window -x 90 -y 28
type "until stty size | grep -qx '28 90'; do :; done; clear; stty size" Enter
shows "and every new size" '^28 90$'
type "clear; echo begun; sleep 300" Enter
shows "a command runs" '^begun$'
type C-c
shows "Ctrl-C ends the command" '^(\^C)?(/ )?[#$]$'
type "echo code \$?" Enter
shows "and not the session" '^code 130$'
type "vi /tmp/note" Enter
shows "vi has the whole screen" '^~$'
type "i" "first line" Enter "second line" Escape
sleep 0.5 # as a person would: what follows Escape at once is a sequence with it
type ":%s/line/LINE/" Enter
shows "what is typed is seen" '^second LINE'
mux resize-window -x 70 -y 20
shows "vi follows a new size" '^second LINE'
show "vi in the workload, at 70 x 20"
type ":wq" Enter
shows "what was there before it is there again" 'vi /tmp/note$'
type "clear; cat /tmp/note; tty" Enter
shows "the file is written" '^first LINE$'
type "exit" Enter
shows "the session ends" '^here>$'
type "clear; k8s-runner exec -it $id -- sh -c 'exit 5'; echo status \$?" Enter
shows "the exit code comes back" '^status 5$'
is "the terminal is set as before" "$(settings)" "$plain"

# The connection is lost in the middle of a full screen: the program's own server is ended.
cat >"$work/proxy.ts" <<'TS'
import { proxy } from "PROXY";
const way = await proxy(process.argv[2] ?? "");
console.log(way.address);
TS
sed -i "s#PROXY#$PWD/tests/cli/proxy.ts#" "$work/proxy.ts"
bun "$work/proxy.ts" "$ADDRESS" >"$work/proxy.address" &
proxy=$!
for _ in $(seq 100); do [ -s "$work/proxy.address" ] && break; sleep 0.1; done
type "clear; k8s-runner exec --address $(cat "$work/proxy.address") -it $id -- vi /tmp/note" Enter
shows "vi again" '^second LINE'
kill -9 "$proxy"; wait "$proxy" 2>/dev/null
shows "a server that is killed is told" 'connection to .* was lost'
prompted
type "echo status \$?" Enter
shows "with status 126" '^status 126$'
is "the terminal is set as before" "$(settings)" "$plain"
is "the alternate screen is left" "$(mux display-message -p '#{alternate_on}')" 0
is "the cursor is shown" "$(mux display-message -p '#{cursor_flag}')" 1
show "after the server was killed under vi"

# SIGTERM in the middle of a full screen.
type "clear; k8s-runner exec -it $id -- vi /tmp/note" Enter
shows "vi once more" '^second LINE'
pid=$(ps -o pid=,args= -t "${before#/dev/}" | awk '/src\/main.ts exec -it/ { print $1; exit }')
kill -TERM "$pid"
shows "SIGTERM is told" 'k8s-runner: cancelled'
prompted
type "echo status \$?" Enter
shows "with status 143" '^status 143$'
is "the terminal is set as before" "$(settings)" "$plain"
is "the alternate screen is left" "$(mux display-message -p '#{alternate_on}')" 0

# Completion by the shells themselves.
# shellcheck disable=SC2016 # what is loaded is for them to expand
for shell in bash zsh fish; do
  case $shell in
  bash) run='PS1="new> " bash --norc' prompt='new>' load='eval "$(k8s-runner completion bash)"; PS1="bash> "' ;;
  zsh) run='PS1="new> " zsh -f' prompt='new>' load='autoload -U compinit; compinit -u; eval "$(k8s-runner completion zsh)"; PS1="zsh> "' ;;
  fish) run="fish --no-config" prompt='.+@.+[#>]' load='k8s-runner completion fish | source; function fish_prompt; echo "fish> "; end' ;;
  esac
  type "clear; HOME=$work $run" Enter
  shows "$shell is there" "^$prompt *$" # what is typed before may be thrown away, or read as it stands
  type "$load; clear" Enter
  shows "$shell is ready" "^$shell> *$"
  type "k8s-runner insp" Tab "${id:0:12}" Tab
  shows "$shell completes a command and an id" "k8s-runner inspect $id"
  type Enter
  shows "which is good" "^Id +$id"
  type "exit" Enter
  shows "and ends" '^here>$'
done

k8s-runner rm --force "$id" >/dev/null || failed=$((failed + 1))
echo "terminal: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
