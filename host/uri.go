package host

import (
	"net"
	"net/url"
	"strings"
)

// nbdURI returns the NBD URI of an export served at addr.
func nbdURI(addr net.Addr, export string) string {
	u := url.URL{Scheme: "nbd", Host: addr.String(), Path: "/" + export}
	if addr.Network() == "unix" {
		u.Scheme, u.Host = "nbd+unix", ""
		u.RawQuery = "socket=" + escapePath(addr.String())
		// Three slashes: an empty host, as libnbd and QEMU write it.
		return "nbd+unix://" + u.EscapedPath() + "?" + u.RawQuery
	}
	return u.String()
}

// escapePath escapes a path for a query, leaving slashes to be read.
func escapePath(path string) string {
	return strings.NewReplacer("%2F", "/", "+", "%20").Replace(url.QueryEscape(path))
}

// show writes an address as `ovs up` prints it: unix:/path, tcp:127.0.0.1:10809.
func show(addr net.Addr) string { return addr.Network() + ":" + addr.String() }
