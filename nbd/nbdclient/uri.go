package nbdclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// DefaultPort is that of NBD by TCP.
const DefaultPort = "10809"

// URI is where an export is, as the NBD project's doc/uri.md writes it.
type URI struct {
	Network string // "tcp" or "unix"
	Address string // host and port, or a path
	Export  string
	TLS     bool // the scheme is nbds or nbds+unix: do not go on without TLS
}

// ParseURI reads nbd://host:port/export, nbd+unix:///export?socket=path, and both with nbds. A port
// that is left out is DefaultPort. Parameters other than socket are not used.
func ParseURI(uri string) (URI, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return URI{}, fmt.Errorf("nbdclient: %w", err)
	}
	r := URI{Export: strings.TrimPrefix(u.Path, "/")}
	switch u.Scheme {
	case "nbds", "nbds+unix":
		r.TLS = true
	case "nbd", "nbd+unix":
	default:
		return URI{}, fmt.Errorf("nbdclient: %s is no NBD URI: it begins with nbd:, nbds:, nbd+unix: or nbds+unix:", uri)
	}
	if strings.HasSuffix(u.Scheme, "+unix") {
		r.Network, r.Address = "unix", u.Query().Get("socket")
		if r.Address == "" {
			return URI{}, fmt.Errorf("nbdclient: %s: no socket: write ?socket=PATH", uri)
		}
		return r, nil
	}
	if u.Hostname() == "" {
		return URI{}, fmt.Errorf("nbdclient: %s: no host", uri)
	}
	r.Network, r.Address = "tcp", u.Host
	if u.Port() == "" {
		r.Address = net.JoinHostPort(u.Hostname(), DefaultPort)
	}
	return r, nil
}

// ErrNeedsTLS is the error of DialURI for a URI of TLS without Options.TLS.
var ErrNeedsTLS = errors.New("nbdclient: the URI asks for TLS, for which there is no configuration")

// DialURI connects to where a URI says, which names the export too. With nbds: it needs Options.TLS,
// which is used with nbd: too if it is set.
func DialURI(ctx context.Context, uri string, opts Options) (*Client, error) {
	u, err := ParseURI(uri)
	if err != nil {
		return nil, err
	}
	opts.Export = u.Export
	if u.TLS && opts.TLS == nil {
		return nil, fmt.Errorf("%w: %s", ErrNeedsTLS, uri)
	}
	return Dial(ctx, u.Network, u.Address, opts)
}
