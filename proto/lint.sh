#!/bin/sh
# Checks the style and the layout of the native protocol with buf, which is fetched once
# to target/buf. PYTHON chooses the interpreter that fetches it.
set -eu

version=1.75.0
case $(uname -m) in
x86_64)
    machine=x64
    sha512=606189031d25a4c084eda3168cd38971fa04686fdefa26079d30b8499d0fe5e4b821f7ccaf203d678fdb6f59b5c0d5c0109f004c530464e024ff9c7d544e3b8a
    ;;
aarch64)
    machine=aarch64
    sha512=797f97ca8933243aac348168f1bd4edc306f6e792c3a8ccf257e1056c367eb526a494b56b29c9335e62ac20f254436a770c2fe6c3a9910314f0018c0b1509019
    ;;
*)
    echo "$0: no buf for $(uname -m): the protocol is not checked" >&2
    exit 1
    ;;
esac
cd "$(dirname "$0")"
folder=../target/buf
buf=$folder/package/bin/buf
if [ ! -e "$folder/$version" ]; then
    mkdir -p "$folder"
    package=buf-linux-$machine
    url=https://registry.npmjs.org/@bufbuild/$package/-/$package-$version.tgz
    "${PYTHON:-python3}" -c 'import sys, urllib.request as it; it.urlretrieve(*sys.argv[1:])' \
        "$url" "$folder/buf.tgz"
    echo "$sha512  $folder/buf.tgz" | sha512sum --check --quiet
    tar -xzf "$folder/buf.tgz" -C "$folder"
    rm "$folder/buf.tgz"
    # Only now: an interrupted download is made anew.
    touch "$folder/$version"
fi
"$buf" lint
"$buf" format --diff --exit-code --path mef3
