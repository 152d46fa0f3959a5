#!/usr/bin/env bash
# gh, helm, cosign and docker for the steps of the workflows: each call is a line of $CALLS, and what they would say is $SAYS.
printf '%s\n' "${0##*/} $*" >>"$CALLS"
case "${0##*/} $1" in
  "helm push" | "docker buildx") printf '%s\n' "$SAYS" ;;
  "gh release") cat notes.md >>"$CALLS" ;;
esac
