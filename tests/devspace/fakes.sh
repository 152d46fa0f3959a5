#!/usr/bin/env bash
# One program under several names, in place of those that devspace.yaml's scripts call. Each call is a line of $CALLS; what kubectl
# finds is told by the environment: APPLICATION (yes: Argo CD has one), NAMES (of the environment), HEALTHY_AFTER and SERVING_AFTER
# (so many tries fail first), FAILS (a part of a call that fails), FILES_AFTER (so many sleeps until the files are synced).
name=${0##*/}
call="$name $*"
echo "${call//$'\n'/ }" >>"$CALLS"
if [ -n "${FAILS:-}" ] && [[ $call == *"$FAILS"* ]]; then exit 1; fi
so_far() { grep -c -- "$1" "$CALLS"; }
case "$call" in
  *" get applications.argoproj.io "*) [ "${APPLICATION:-yes}" = yes ] ;;
  *" get deployment "*) printf %s "${NAMES:-}" ;;
  *" patch deployment "*) printf %s "${@: -1}" >"$CALLS.patch" ;;
  *" exec deployment/k8s-runner "*) [ "$(so_far ' exec deployment/k8s-runner ')" -gt "${HEALTHY_AFTER:-0}" ] ;;
  *" logs "*)
    if [ "$(so_far '^kubectl logs ')" -gt "${SERVING_AFTER:-0}" ]; then echo '{"msg":"gRPC server starting"}'; else echo '{"msg":"early"}'; fi
    ;;
  get_flag*) echo "${WATCH:-false}" ;;
  sleep*)
    if [ -n "${FILES_AFTER:-}" ] && [ "$(so_far '^sleep ')" -ge "$FILES_AFTER" ]; then
      mkdir -p src && touch package.json bun.lock buf.gen.yaml src/main.ts
    fi
    ;;
esac
