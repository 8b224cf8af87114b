#!/bin/sh
# Creates a network's namespace and search attributes. Safe to repeat: what exists is left as it is, so a retention that
# an operator changed stays changed. Wants TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE and NAMESPACE_RETENTION.
set -eu

tries=60
until temporal operator cluster health; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || { echo "Temporal at $TEMPORAL_ADDRESS did not become healthy" >&2; exit 1; }
    sleep 2
done

if temporal operator namespace describe --namespace "$TEMPORAL_NAMESPACE" >/dev/null 2>&1; then
    echo "namespace $TEMPORAL_NAMESPACE exists"
else
    temporal operator namespace create --namespace "$TEMPORAL_NAMESPACE" --retention "$NAMESPACE_RETENTION"
fi

attribute() { # name, type; a namespace just made is known everywhere only after a few seconds
    tries=30
    until temporal operator search-attribute list --namespace "$TEMPORAL_NAMESPACE" | grep -Eq "^ *$1 +$2 *\$"; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "search attribute $1 ($2) could not be made" >&2; exit 1; }
        temporal operator search-attribute create --namespace "$TEMPORAL_NAMESPACE" --name "$1" --type "$2" || sleep 2
    done
    echo "search attribute $1 is $2"
}

attribute AirlockStream Keyword
attribute AirlockBatch Int
attribute AirlockRecords Int
