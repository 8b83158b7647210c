#!/usr/bin/env bash
# Fuzzes the parsers, on the stable toolchain. See --help.
set -euo pipefail
from=$PWD
here=$(dirname "${BASH_SOURCE[0]}")
corpus=$(realpath -m "${MEF3_CORPUS:-$here/../../shared/mef3-corpus}")
cd "$here"

usage() {
    cat <<'END'
usage: fuzz/run.sh [TARGET...] [--runs N] [--seconds N] [--seed N]
       fuzz/run.sh --build | --lint | --list | --replay TARGET FILE...

Runs the targets one after another, all of them unless some are named, each for
--seconds (8 unless given) or for --runs executions. Ends with the first finding:
its input is kept, and its path printed. Every target says how many executions
it reached.

  --runs N      executions of each target, however long they take
  --seconds N   seconds of each target
  --seed N      of the pseudo-random choices; 1 unless given
  --build       only compiles
  --lint        only checks formatting and lints
  --list        names the targets
  --replay      runs single inputs, such as that of a finding

Seeds are made of the reference corpus, ../shared/mef3-corpus beside the checkout,
or the folder in MEF3_CORPUS. Everything is kept in target/fuzz. A C++ compiler is
needed: libFuzzer comes as source.
END
}

target_dir=../target/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')
programs=$target_dir/$host/release
mapfile -t all < <(cd fuzz_targets && ls -- *.rs | sed 's/\.rs$//')

# Runs cargo as all steps do, so that each reuses what others have built.
instrumented() {
    if [[ -z ${CXX:-} ]] && ! command -v c++ > /dev/null; then
        echo 'a C++ compiler is missing, such as g++: libFuzzer comes as source' >&2
        exit 1
    fi
    # What cargo-fuzz asks of the compiler, by its stable options. The explicit
    # target keeps build scripts and macros out of it.
    local flags=(
        -Cpasses=sancov-module
        -Cllvm-args=-sanitizer-coverage-level=4
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
        -Cllvm-args=-sanitizer-coverage-pc-table
        -Cllvm-args=-sanitizer-coverage-trace-compares
    )
    local command=$1
    shift
    RUSTFLAGS="${flags[*]}" cargo "$command" --release --locked --lib --bins \
        --target "$host" --target-dir "$target_dir" "$@"
}

# Bytes of the longest input of a target.
longest() {
    case $1 in
        header) echo 1088 ;;
        metadata) echo 16448 ;;
        red_block) echo 1024 ;;
        session) echo 128 ;;
        *) echo 4096 ;;
    esac
}

fuzz() {
    local target=$1 status=0 limit=("-max_total_time=$seconds")
    if [[ -n $runs ]]; then
        limit=("-runs=$runs")
    fi
    local found=$target_dir/corpus/$target findings=$target_dir/findings/$target/
    local regressions=() more=()
    # Its seeds are two bytes long, and would keep inputs short for a long time.
    [[ $target != session ]] || more=(-len_control=0)
    mkdir -p "$found" "$findings"
    if [[ -d regressions/$target ]]; then
        regressions=("regressions/$target")
    fi
    printf '\n== fuzz %s: %s\n' "$target" "${limit[*]}"
    TMPDIR=$scratch "$programs/$target" -seed="$seed" "${limit[@]}" \
        -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=256 -max_len="$(longest "$target")" \
        -print_final_stats=1 "${more[@]}" -artifact_prefix="$findings" \
        "$found" "$target_dir/seeds/$target" "${regressions[@]}" \
        > "$target_dir/$target.log" 2>&1 || status=$?
    if ((status != 0)); then
        tail -n 40 "$target_dir/$target.log" >&2
        printf '== FINDING: %s (exit status %d), log %s\n' \
            "$target" "$status" "$target_dir/$target.log" >&2
        exit 1
    fi
    sed -n 's/^stat::number_of_executed_units: */== executions: /p' "$target_dir/$target.log"
}

targets=() runs='' seconds=8 seed=1 replay='' files=()
while (($# > 0)); do
    case $1 in
        --help | -h) usage && exit ;;
        --list) printf '%s\n' "${all[@]}" && exit ;;
        --build)
            instrumented build
            exit
            ;;
        --lint)
            cargo fmt --check
            instrumented clippy -- -D warnings
            exit
            ;;
        --runs) runs=${2:?"--runs needs a number"} && shift ;;
        --seconds) seconds=${2:?"--seconds needs a number"} && shift ;;
        --seed) seed=${2:?"--seed needs a number"} && shift ;;
        --replay)
            replay=${2:?"--replay needs a target"}
            shift 2
            mapfile -t files < <(cd "$from" && realpath -- "$@")
            break
            ;;
        -*) usage >&2 && exit 64 ;;
        *) targets+=("$1") ;;
    esac
    shift
done
for target in "${targets[@]}" ${replay:+"$replay"}; do
    if [[ ! -f fuzz_targets/$target.rs ]]; then
        printf 'no fuzz target %s, there are: %s\n' "$target" "${all[*]}" >&2
        exit 64
    fi
done
if ((${#targets[@]} == 0)); then
    targets=("${all[@]}")
fi

if [[ ! -d $corpus ]]; then
    printf 'the reference corpus is missing: expected it at %s\n' "$corpus" >&2
    exit 1
fi
instrumented build
mkdir -p "$target_dir"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
if [[ -n $replay ]]; then
    TMPDIR=$scratch "$programs/$replay" "${files[@]}"
    exit
fi
rm -rf "$target_dir/seeds"
"$programs/seeds" "$corpus" "$target_dir/seeds"
for target in "${targets[@]}"; do
    fuzz "$target"
done
