package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/google/uuid"

	"openvstorage/internal/wire"
	"openvstorage/trust"
)

// Probe asks hosts whether they are there, by the certificate and the records that a data
// directory has, while nothing of this host runs. It changes nothing.
type Probe struct{ of *Host }

// NewProbe opens a probe. Options need no Listeners.
func NewProbe(o Options, cluster uuid.UUID) (*Probe, error) {
	o.ensureDefaults()
	m, err := trust.ReadMaterial(o.FS, o.file("host.pem"))
	if err == nil && m.Certificate == nil {
		err = errors.New("it has no certificate")
	}
	if err != nil {
		return nil, fmt.Errorf("this host's certificate: %w", err)
	}
	h := newHost(o, cluster)
	h.link = newLink(h)
	h.store = h.link
	h.mark.Number = o.Dir.Record().Generation
	h.o.Listeners = new(Listeners)
	if err := h.open(m); err != nil {
		h.cancel()
		return nil, err
	}
	return &Probe{h}, nil
}

// Close ends the probe.
func (p *Probe) Close() {
	p.of.cancel()
	p.of.link.close()
}

// ErrAway is matched by the error of Answers if nothing at an address takes connections.
var ErrAway = errors.New("nothing answers")

// Answers returns nil if a host answers at an address and proves who it is, an error that
// matches ErrAway if nothing takes connections there or another host has the address, and any
// other error if something takes connections of which it cannot be told what it is: a process
// that stands still is not dead.
func (p *Probe) Answers(ctx context.Context, host uuid.UUID, address string) error {
	return asks(p.of).answers(ctx, host, address)
}

// answers is Probe.Answers.
func (h asking) answers(ctx context.Context, host uuid.UUID, address string) error {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAway, err)
	}
	_ = raw.Close()
	o := h.DialOptions(ctx, host, ServiceHosts)
	o.Network, o.Address = "tcp", address
	c, err := wire.Dial(ctx, o)
	switch {
	case err == nil:
		return c.Close()
	case errors.Is(err, trust.ErrWrongPeer):
		return fmt.Errorf("%w: another host has this address: %w", ErrAway, err)
	}
	return fmt.Errorf("something takes connections at %s: %w", address, err)
}
