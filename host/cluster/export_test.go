package cluster

import (
	"runtime"

	"github.com/google/uuid"
)

// LinkDone is closed when the connection to the first host has ended.
func (h *Host) LinkDone() <-chan struct{} { return h.link.conn.Load().Done() }

// AwaitGone returns when a host is not connected any more.
func (h *Host) AwaitGone(id uuid.UUID) {
	for h.connected()[id] {
		runtime.Gosched()
	}
}
