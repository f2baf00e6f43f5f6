package nbd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"openvstorage/device"
)

// TLSMode says what a listener asks of its clients.
type TLSMode uint8

// Modes of a listener.
const (
	// TLSOff refuses STARTTLS: everything goes in plain text.
	TLSOff TLSMode = iota
	// TLSAllowed leaves it to the client. Whoever can change what goes over the network
	// can keep a client that does not insist from using TLS, and a client without TLS is
	// asked for no certificate. So this protects only from those who merely listen.
	TLSAllowed
	// TLSRequired serves nothing before STARTTLS: options get NBD_REP_ERR_TLS_REQD, ABORT
	// is answered, and EXPORT_NAME ends the connection.
	TLSRequired
)

// String is the mode as flags have it.
func (m TLSMode) String() string {
	switch m {
	case TLSOff:
		return "off"
	case TLSAllowed:
		return "allowed"
	case TLSRequired:
		return "required"
	}
	return fmt.Sprintf("TLS mode %d", uint8(m))
}

// TLS is what listeners other than of TLSOff need. The server speaks TLS 1.3 and nothing
// older, which GnuTLS, and so QEMU and libnbd, has spoken since 3.6.5 of 2018. Sessions are
// not resumed, so that each connection shows its certificate.
type TLS struct {
	// Config returns the configuration for a client that comes now: so certificates are
	// renewed without a restart. It is called once per STARTTLS, by many goroutines at
	// once, within Limits.HandshakeTimeout. What it returns is not changed. The text of
	// an error is sent to the client.
	//
	// If ClientAuth is tls.RequireAndVerifyClientCert, clients without a certificate of
	// ClientCAs are turned away.
	Config func() (*tls.Config, error)

	// Authorize says what a client may open. It is called once per client, when its
	// certificate has been verified. The text of an error is sent to the client, which
	// then finds no export.
	//
	// Nil lets everybody open everything if no certificates are asked for, and nobody
	// open anything if they are.
	Authorize func(peer *tls.ConnectionState) (Access, error)
}

// Access says what a client may do with an export. Exports that it may not open do not
// exist for it: they are not listed, and opening one gives the error of an absent one. An
// Access is called once for each name that a client asks for or could see, by one goroutine
// at a time. Nil gives access to nothing.
type Access func(export string) Right

// Right is what a client may do with one export.
type Right uint8

// Rights.
const (
	NoAccess    Right = iota
	ReadAccess        // it is read-only
	WriteAccess       // as without TLS
)

var (
	errNoTLS       = errors.New("TLS is off at this address")
	errTLSRequired = errors.New("this address serves nothing in plain text: begin TLS with STARTTLS first")
	errTLSTwice    = errors.New("TLS is in use already")
	errInjected    = errors.New("the client, or somebody between, sent something in plain text behind STARTTLS")
	errUnverified  = errors.New("the client's certificate was not verified: the server is set up wrongly, and opens nothing")
	errNobody      = errors.New("the server asks for certificates, but was not told what they open")
	errLongHello   = fmt.Errorf("the client's part of the TLS handshake is longer than %d KiB", helloMax>>10)
	errNoData      = fmt.Errorf("the client sends TLS messages of more than %d KiB, and nothing in them", helloMax>>10)
	errDenied      = fmt.Errorf("the client's certificate opens no export of this name: %w", fs.ErrNotExist)
)

// security is what a handshake knows of TLS.
type security struct {
	mode TLSMode
	// begin makes ready for TLS. Nothing is sent before secure is called.
	begin  func() (pendingTLS, error)
	active bool // all that follows is encrypted
}

// pendingTLS is a connection about to become one of TLS.
type pendingTLS interface {
	// unread tells whether the client has sent anything yet.
	unread() bool
	// secure does the TLS handshake and authorizes the client.
	secure() (io.ReadWriter, Exports, error)
}

// plain reports whether options must wait for STARTTLS.
func (s *security) plain() bool { return s.mode == TLSRequired && !s.active }

// refusePlain answers an option of n bytes that needs TLS. Its payload is thrown away.
func (h *handshake) refusePlain(opt Option, n uint32) error {
	if n > maxOptionSkip {
		return fmt.Errorf("option %d of %d bytes: %w", opt, n, errTooBig)
	}
	if _, err := io.CopyN(io.Discard, h.rw, int64(n)); err != nil {
		return err
	}
	return h.refuse(opt, RepErrTLSReqd, errTLSRequired)
}

// startTLS serves STARTTLS. What was negotiated before is dropped: somebody between the two
// may have put it in. So is what the client sends before it was told to begin, together with
// the client.
func (h *handshake) startTLS(n uint32) error {
	switch {
	case h.security.mode == TLSOff:
		return h.refuse(OptStartTLS, RepErrUnsup, errNoTLS)
	case n != 0:
		return h.refuse(OptStartTLS, RepErrInvalid, errOption)
	case h.security.active:
		return h.refuse(OptStartTLS, RepErrInvalid, errTLSTwice)
	}
	pending, err := h.security.begin()
	if err != nil {
		return h.refuse(OptStartTLS, RepErrPolicy, err)
	}
	if pending.unread() {
		return errInjected
	}
	if err := h.reply(OptStartTLS, RepAck, nil); err != nil {
		return err
	}
	rw, exports, err := pending.secure()
	if err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	h.rw, h.exports, h.security.active = rw, exports, true
	h.structured, h.extended, h.meta, h.metaName = false, false, false, ""
	return nil
}

// harden returns a copy of a configuration as this server uses it. chosen gets the one that
// is used in the end.
func harden(config *tls.Config, chosen **tls.Config) *tls.Config {
	c := config.Clone()
	*chosen = c
	c.MinVersion, c.MaxVersion = tls.VersionTLS13, 0
	c.SessionTicketsDisabled = true
	c.DynamicRecordSizingDisabled = true // replies are long, and nobody waits for the first byte
	if get := c.GetConfigForClient; get != nil {
		c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			other, err := get(hello)
			if other == nil || err != nil {
				return other, err
			}
			other = other.Clone()
			other.GetConfigForClient = nil
			return harden(other, chosen), nil
		}
	}
	return c
}

// pendingConn is the pendingTLS of a connection.
type pendingConn struct {
	*conn
	config *tls.Config // hardened
	chosen *tls.Config // the one for this client
}

// beginTLS gets the configuration for this client.
func (c *conn) beginTLS() (pendingTLS, error) {
	config, err := c.srv.tls.Config()
	if err == nil && config == nil {
		err = errors.New("there is no configuration")
	}
	if err != nil {
		return nil, fmt.Errorf("the server cannot begin TLS: %w", err)
	}
	p := &pendingConn{conn: c}
	p.config = harden(config, &p.chosen)
	return p, nil
}

func (p *pendingConn) unread() bool {
	if p.sock.raw == nil {
		return false // TLS itself takes nothing but its own records
	}
	hungUp, empty := new(peerPoll).check(p.sock)
	return !hungUp && !empty
}

func (p *pendingConn) secure() (io.ReadWriter, Exports, error) {
	p.holdTLS()
	tc, err := p.sock.secure(p.config, &p.srv.buffers)
	if err != nil {
		return nil, nil, err
	}
	state := tc.ConnectionState()
	p.srv.mu.Lock()
	p.secured = &state
	p.srv.mu.Unlock()
	return p.sock.stream(), p.exports(&state), nil
}

// exports are those that the client may open.
func (p *pendingConn) exports(state *tls.ConnectionState) Exports {
	authorize := p.srv.tls.Authorize
	switch {
	case len(state.PeerCertificates) > 0 && len(state.VerifiedChains) == 0:
		return noExports{errUnverified}
	case authorize == nil && p.chosen.ClientAuth == tls.NoClientCert:
		return p.srv.exports
	case authorize == nil:
		return noExports{errNobody}
	}
	peer := []any{"remote", remote(p.sock.conn), "peer", peerName(state)}
	access, err := authorize(state)
	if err != nil {
		p.srv.warn("nbd: client refused", append(peer, "err", message(err))...)
		return noExports{err}
	}
	return permitted{p.srv.exports, access, func(export string) {
		p.srv.warn("nbd: export refused", append(peer[:len(peer):len(peer)], "export", shown(export))...)
	}}
}

// permitted are the exports that a client may open.
type permitted struct {
	of      Exports
	access  Access
	refused func(export string) // told of each that the client has asked for in vain
}

func (p permitted) right(name string) Right {
	if p.access == nil {
		return NoAccess
	}
	return p.access(name)
}

// Open implements Exports.
func (p permitted) Open(ctx context.Context, name string) (device.Reader, func(), error) {
	right := p.right(name)
	if right != ReadAccess && right != WriteAccess {
		p.refused(name)
		return nil, nil, errDenied
	}
	dev, release, err := p.of.Open(ctx, name)
	if err == nil && right == ReadAccess {
		dev = readOnly{dev}
	}
	return dev, release, err
}

// List implements Exports.
func (p permitted) List(ctx context.Context) ([]Info, error) {
	infos, err := p.of.List(ctx)
	if err != nil {
		return nil, err
	}
	var visible []Info
	for _, info := range infos {
		if right := p.right(info.Name); right == ReadAccess || right == WriteAccess {
			visible = append(visible, info)
		}
	}
	return visible, nil
}

// readOnly hides that a device can be written.
type readOnly struct{ device.Reader }

// holdTLS counts what a connection of TLS holds besides, until dropTLS.
func (c *conn) holdTLS() {
	c.srv.memory.scratch.Add(tlsBytes)
	c.tlsHeld += tlsBytes
}

func (c *conn) dropTLS() {
	c.srv.memory.scratch.Add(-c.tlsHeld)
	c.tlsHeld = 0
}
