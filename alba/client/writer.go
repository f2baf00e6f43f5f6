package client

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"openvstorage/alba/fleet"
)

// writer stores objects: it encodes chunks, writes their fragments, and commits the
// manifest.
type writer struct {
	fleet     *fleet.Fleet
	manifests *manifests
	keys      *keys
	refresh   func(ctx context.Context) error // brings the fleet up to date with the ABM; nil if there is nothing to do
	deleted   func()                          // hears that there are fragments to delete
	patience  time.Duration                   // how long a put waits for late fragments once k are stored, at most
	log       *slog.Logger

	counts  writeCounts
	chunks  chunkMemory
	overdue overdue
	moves   budget // of fragments that spare disks take from late ones
	behind  behind

	mu     sync.Mutex
	closed bool
	late   sync.WaitGroup  // puts, and fragments that are written after their put has returned
	life   context.Context // of fragments that are being written
	end    context.CancelFunc
}

type writeCounts struct{ plain, data, parity, inline, manifests, retries, narrow, late, moved atomic.Uint64 }

// enter begins what close waits for, unless the writer is closed.
func (wr *writer) enter() bool {
	wr.mu.Lock()
	defer wr.mu.Unlock()
	if wr.closed {
		return false
	}
	wr.late.Add(1)
	return true
}

// closePatience is how long close waits for late fragments if all disks answer.
// closeMore is how long it waits for the others once it has given up those that no disk
// has begun to write.
const (
	closePatience = 2 * time.Second
	closeMore     = 500 * time.Millisecond
)

// close lets no put begin any more, and waits a while for fragments that are still being
// written.
func (wr *writer) close() {
	wr.mu.Lock()
	if !wr.closed {
		close(wr.behind.hurry)
	}
	wr.closed = true
	wr.mu.Unlock()
	settled := make(chan struct{})
	go func() {
		wr.late.Wait()
		close(settled)
	}()
	patience := closePatience
	for _, d := range wr.fleet.All() {
		if d.Silent() != nil {
			patience = closeMore
		}
	}
	for _, most := range []time.Duration{patience, closeMore} {
		t := time.NewTimer(most)
		select {
		case <-settled:
		case <-t.C:
		}
		t.Stop()
		wr.end()
	}
}
