#!/bin/sh
# Runs the workflow with the simulator, which costs nothing, and looks at what came of it: tests/summarize-note.sh
set -eu
cd "$(dirname "$0")/.."

run=$(krowoc run workflows/summarize-note.yaml --set note='Call Ada. Book the room.' --json)

expect() {
    printf '%s\n' "$run" | grep -q -e "$2" || { printf '%s\nFAILED: %s\n' "$run" "$1" >&2; exit 1; }
}
expect 'the run succeeds' '^  "status": "succeeded"'
expect 'there is a summary' '"summary": *"[^"]'
expect 'what has to be done is a list' '"todo": *\['
echo 'ok: summarize-note'
