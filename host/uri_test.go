package host

import (
	"net"
	"net/url"
	"testing"

	"openvstorage/nbd"
)

func TestURI(t *testing.T) {
	unix := func(path string) net.Addr { return &net.UnixAddr{Net: "unix", Name: path} }
	tcp := &net.TCPAddr{IP: net.IPv6loopback, Port: 10809}
	for _, c := range []struct {
		addr   net.Addr
		mode   nbd.TLSMode
		export string
		want   string
	}{
		{unix("/d/nbd.sock"), nbd.TLSOff, "disk1", "nbd+unix:///disk1?socket=/d/nbd.sock"},
		{unix("/a b/&c+d/s"), nbd.TLSOff, "team/ü#?", "nbd+unix:///team/%C3%BC%23%3F?socket=/a%20b/%26c%2Bd/s"},
		{unix("/s"), nbd.TLSOff, "disk@snap", "nbd+unix:///disk@snap?socket=/s"},
		{tcp, nbd.TLSOff, "disk 1", "nbd://[::1]:10809/disk%201"},
		{tcp, nbd.TLSAllowed, "disk 1", "nbds://[::1]:10809/disk%201"},
		{tcp, nbd.TLSRequired, "disk 1", "nbds://[::1]:10809/disk%201"},
	} {
		got := nbdURI(c.addr, c.mode, c.export)
		if got != c.want {
			t.Errorf("nbdURI(%v, %v, %q) = %s; want %s", c.addr, c.mode, c.export, got, c.want)
		}
		u, err := url.Parse(got)
		if err != nil || u.Path != "/"+c.export {
			t.Errorf("%s reads back as %q, %v", got, u.Path, err)
		}
		if c.addr.Network() == "unix" && u.Query().Get("socket") != c.addr.String() {
			t.Errorf("%s names the socket %q", got, u.Query().Get("socket"))
		}
	}
}
