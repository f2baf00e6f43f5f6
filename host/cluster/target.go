package cluster

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"openvstorage/internal/wire"
)

// Target is where a service of another host is reached from h, and as whom: by an address that
// h knows of that host, or that the records have. Attempts that are numbered one after the other
// get its addresses in turn. An address that has changed is known after a minute at most. ctx
// bounds the handshake.
func Target(ctx context.Context, h *Host, host uuid.UUID, service string, attempt uint64) (wire.DialOptions, error) {
	addresses := h.book.addressesOf(host)
	if len(addresses) == 0 && h.First() {
		bounded, cancel := context.WithTimeout(ctx, dialTime) // it may have joined just now
		h.relearn(bounded)
		cancel()
		addresses = h.book.addressesOf(host)
	}
	if len(addresses) == 0 {
		return wire.DialOptions{}, fmt.Errorf("host %s: no address of it is known: `ovs host list` shows whether it is of the cluster", host)
	}
	o := h.DialOptions(ctx, host, service)
	o.Network, o.Address = "tcp", addresses[attempt%uint64(len(addresses))]
	return o, nil
}

func (b *book) addressesOf(host uuid.UUID) []string {
	for _, k := range b.hosts() {
		if k.ID == host {
			return k.Addresses
		}
	}
	return nil
}
