# For sourcing: what a package is built for, and what every script here says and looks up.
#
#   SUITE (bookworm, trixie; default: this machine's) and ARCH (amd64, arm64; default: this machine's), from the
#   environment, give: python 3.11, machine x86_64, libc, ssl (Debian's package of libcrypto), release deb12.

say() { printf '%s: %s\n' "${0##*/}" "$*"; }
die() {
    printf '%s: %s\n' "${0##*/}" "$@" >&2
    exit 1
}

tree=$(cd "$(dirname "$0")/.." && pwd)
place=$tree/build/package
mkdir -p "$place"
host_suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
host_arch=$(dpkg --print-architecture)
suite=${SUITE:-$host_suite} arch=${ARCH:-$host_arch}

case $suite in
bookworm) python=3.11 libc=2.36 ssl=libssl3 release=deb12 ;;
trixie) python=3.13 libc=2.41 ssl=libssl3t64 release=deb13 ;;
*) die "packages are for Debian bookworm (12) and trixie (13), not '$suite'; choose with SUITE=" ;;
esac
case $arch in
amd64) machine=x86_64 ;;
arm64) machine=aarch64 ;;
*) die "packages are for amd64 and arm64, not '$arch'; choose with ARCH=" ;;
esac
[ "$arch" = "$host_arch" ] || [ "$arch" = arm64 ] || die "packages for $arch are not built on $host_arch"

version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$tree/conflux/__init__.py")
# Two builds of one commit are the same bytes; without a checkout, those of one CHANGELOG.md.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$tree" log -1 --format=%ct 2>/dev/null || stat -c %Y "$tree/CHANGELOG.md")}
export SOURCE_DATE_EPOCH
