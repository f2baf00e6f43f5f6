package host

import (
	"net"
	"net/url"
	"strings"

	"openvstorage/nbd"
)

// nbdURI returns the NBD URI of an export served at addr. Where TLS can be used it says so.
func nbdURI(addr net.Addr, mode nbd.TLSMode, export string) string {
	u := url.URL{Scheme: "nbd", Host: addr.String(), Path: "/" + export}
	if addr.Network() == "unix" {
		u.Scheme, u.Host = "nbd+unix", ""
		u.RawQuery = "socket=" + escapePath(addr.String())
		// Three slashes: an empty host, as libnbd and QEMU write it.
		return "nbd+unix://" + u.EscapedPath() + "?" + u.RawQuery
	}
	if mode != nbd.TLSOff {
		u.Scheme = "nbds"
	}
	return u.String()
}

// escapePath escapes a path for a query, leaving slashes to be read.
func escapePath(path string) string {
	return strings.NewReplacer("%2F", "/", "+", "%20").Replace(url.QueryEscape(path))
}

// show writes an address as `ovs up` prints it: unix:/path, tcp:127.0.0.1:10809.
func show(addr net.Addr) string { return addr.Network() + ":" + addr.String() }
