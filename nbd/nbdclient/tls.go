package nbdclient

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"openvstorage/nbd"
)

// StartTLS asks for TLS, and does the client's part of its handshake. Nothing goes on in plain text if
// that fails. The handshake goes on where it was, but for what was negotiated, which is dropped. config
// must say which server is expected, by ServerName.
func (h *Handshake) StartTLS(conn net.Conn, config *tls.Config) (*tls.Conn, error) {
	rs, err := h.Option(nbd.OptStartTLS, nil)
	if err != nil {
		return nil, err
	}
	if err := rs[len(rs)-1].Err(); err != nil {
		return nil, fmt.Errorf("server does not begin TLS: %w", err)
	}
	config = config.Clone()
	config.MinVersion = tls.VersionTLS13
	config.DynamicRecordSizingDisabled = true
	c := tls.Client(conn, config)
	if err := c.Handshake(); err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	h.rw = c
	return c, nil
}

// hostOf is the name that the certificate of a server is for.
func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}

// secure begins TLS on a connection, if that is wanted.
func (c *Client) secure(h *Handshake, opts Options) error {
	if opts.TLS == nil {
		return nil
	}
	if opts.TLS.ServerName == "" && !opts.TLS.InsecureSkipVerify {
		return errors.New("TLS: no ServerName: nothing says which server is expected")
	}
	tc, err := h.StartTLS(c.wire, opts.TLS)
	if err != nil {
		return err
	}
	// Each write of crypto/tls makes a record. So requests and short data are gathered.
	c.conn = tc
	c.send.records = bufio.NewWriterSize(tc, 16<<10)
	return nil
}

// write sends what start has put together.
func (c *Client) write() error {
	if c.send.records == nil {
		_, err := c.send.vecs.WriteTo(c.conn)
		return err
	}
	defer clear(c.send.vecs) // as WriteTo does: the data is the caller's
	for _, p := range c.send.vecs {
		if _, err := c.send.records.Write(p); err != nil {
			return err
		}
	}
	return c.send.records.Flush()
}

// endTLS tells the server that nothing was cut off.
func (c *Client) endTLS() {
	if tc, ok := c.conn.(*tls.Conn); ok {
		_ = tc.CloseWrite() // the server hangs up after DISC
	}
}
