# What this machine has, and what is required; sourced by dev.

# ---------------------------------------------------------------------------- what has to be there

# Who needs it, the Debian package, and how to check on any system that it is installed.
requirements='
build   g++                 command g++
build   meson               command meson
build   ninja-build         command ninja
build   python3             command python3
build   pkg-config          command pkg-config
build   libeigen3-dev       module eigen3
build   libfmt-dev          module fmt
build   libutf8proc-dev     module libutf8proc
build   libzip-dev          module libzip
build   nlohmann-json3-dev  module nlohmann_json
build   libcli11-dev        module CLI11
build   doctest-dev         header doctest/doctest.h
clang   clang               command clang++
clang   libclang-rt-14-dev  sanitizer clang++
cross   g++-aarch64-linux-gnu  command aarch64-linux-gnu-g++
cross   qemu-user           command qemu-aarch64
wine    wine64              file /usr/lib/wine/wine64
zig     python3-venv        package ensurepip
memory  valgrind            command valgrind
lint    clang-format        command clang-format
lint    clang-tidy          command clang-tidy
bench   libbenchmark-dev    module benchmark
curves  python3-matplotlib  package matplotlib
fuzz    libclang-rt-14-dev  fuzzer clang++
site    doxygen             command doxygen
'

is_there() {
  case $1 in
    command) command -v "$2" ;;
    module) pkg-config --exists "$2" ;;
    package) "$(tool python3)" -c "import $2" ;;
    file) [ -e "$2" ] ;;
    header) [ -e "/usr/include/$2" ] || echo "#include <$2>" | g++ -E -x c++ - ;;
    sanitizer) echo 'int main() {}' | "$2" -fsanitize=address -x c++ -o /dev/null - ;;
    fuzzer)
      echo 'extern "C" int LLVMFuzzerTestOneInput(const char*, long) { return 0; }' |
        "$2" -fsanitize=fuzzer -x c++ -o /dev/null - ;;
  esac >/dev/null 2>&1
}

missing() {
  echo "$requirements" | while read -r group package kind name; do
    case " $* " in
      *" $group "*) is_there "$kind" "$name" || printf ' %s' "$package" ;;
    esac
  done
}

# need GROUP...: installs the missing packages of these groups, or names them.
need() {
  packages=$(missing "$@")
  [ -n "$packages" ] || return 0
  as_root=
  if [ "$(id -u)" -ne 0 ]; then as_root=sudo; fi
  if ! command -v apt-get >/dev/null || ! command -v ${as_root:-env} >/dev/null; then
    die "please install what Debian calls:$packages; then again: $invocation"
  fi
  echo "Installing${as_root:+ with sudo, which may ask for your password}:$packages"
  $as_root apt-get update -qq || echo "dev: the lists of packages are old; going on with them" >&2
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages ||
    die "these could not be installed:$packages; install them by hand, then again: $invocation"
  packages=$(missing "$@")
  [ -z "$packages" ] || die "installed and still not found:$packages (is PATH as it should be?)"
}

# The distribution's tool if there is one, so that other versions on PATH do not interfere.
tool() {
  for folder in ${zig_tools-} /usr/bin; do
    if [ -x "$folder/$1" ]; then echo "$folder/$1"; return; fi
  done
  echo "$1"
}

# Zig, which brings a Clang with the headers of other systems, is not in Debian but is a package of
# Python; Meson knows it from 1.2 on, which Debian 12 does not have. Both are put into build-tools.
need_zig() {
  if [ ! -x build-tools/bin/meson ]; then
    python3 -m venv build-tools && build-tools/bin/pip install --quiet ziglang==0.17.1 meson ||
      die "Zig and Meson could not be installed by pip; see above"
  fi
  zig_tools=$PWD/build-tools/bin
  PATH=$(echo "$PWD"/build-tools/lib/python3*/site-packages/ziglang):$PATH
}

# ------------------------------------------------------------------------------- what was found here

cores() { nproc 2>/dev/null || getconf _NPROCESSORS_ONLN; }

# Free memory in MiB, also within a container's limit; empty if unknown.
free_memory() {
  {
    awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo
    paste -d ' ' /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory.current |
      awk '$1 != "max" { print int(($1 - $2) / 1048576) }'
  } 2>/dev/null | sort -n | head -n 1
}

# Number of parallel compilations: the largest takes 1 GiB.
default_jobs() {
  memory=$(free_memory)
  most=$((${memory:-1048576} / 1024))
  all=$(cores)
  [ "$all" -le "$most" ] || all=$most
  [ "$all" -ge 1 ] || all=1
  echo "$all"
}

# The highest x86-64 level that the processor supports; for other processors the architecture.
processor_level() {
  level=$(uname -m)
  flags=" $(sed -n '/^flags/{s/^[^:]*: //p;q;}' /proc/cpuinfo 2>/dev/null) "
  if [ "$level" = x86_64 ]; then
    level=x86-64
    while read -r next needed; do
      for flag in $needed; do
        case $flags in *" $flag "*) ;; *) break 2 ;; esac
      done
      level=$next
    done <<TEXT
x86-64-v2 cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3
x86-64-v3 abm avx avx2 bmi1 bmi2 f16c fma movbe xsave
x86-64-v4 avx512bw avx512cd avx512dq avx512f avx512vl
TEXT
  fi
  echo "$level"
}

version_of() {
  command -v "$1" >/dev/null || { echo "not found"; return; }
  "$1" --version 2>/dev/null |
    awk 'match($0, /[0-9]+(\.[0-9]+)+/) && !n++ { print substr($0, RSTART, RLENGTH) }'
}

# need GROUP..., after a few lines on what this machine has.
survey() {
  model=$(sed -n '/^model name/{s/^[^:]*: //p;q;}' /proc/cpuinfo 2>/dev/null)
  memory=$(free_memory)
  packages=$(missing "$@")
  echo "compiler   $compiler $(version_of "$compiler"), meson $(version_of "$(tool meson)")," \
    "ninja $(version_of "$(tool ninja)")"
  echo "processor  ${model:+$model, }$(processor_level), $(cores) cores${memory:+, $((memory / 1024)) GiB of memory free}"
  echo "packages   ${packages:+missing:}${packages:-all found}"
  need "$@"
}
