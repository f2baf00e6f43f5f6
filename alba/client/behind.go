package client

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"openvstorage/alba/manifest"
	"openvstorage/alba/osd"
	"openvstorage/alba/records"
	"openvstorage/internal/bell"
)

// The record of an inline object is written behind its put, so that the put takes no sync of a
// disk. What the NSM has of the object is the durable intention: if the client dies before,
// maintenance finds that the disks have no record of that version, and writes it. A put that
// follows within behindDelay takes the place of the one before: a catalog that changes often
// costs one record in that time.

const (
	// behindDelay is how long the record of an inline object waits for the next put of it.
	behindDelay = 500 * time.Millisecond
	// behindMax bounds the bytes that wait. What does not fit is left to maintenance.
	behindMax = 32 << 20
)

// behind is the records of inline objects that are to be written.
type behind struct {
	mu      sync.Mutex
	owed    map[manifest.Key]*records.Record
	bytes   int
	running bool
	hurry   chan struct{} // closed: wait for nothing more
	now     bell.Bell     // what is owed is not to wait any longer

	written, left atomic.Uint64 // records; those that are left to maintenance
}

func (b *behind) init() {
	b.owed, b.hurry = make(map[manifest.Key]*records.Record), make(chan struct{})
}

// owe has the record of an inline object written soon. A newer version that is owed already stays.
func (wr *writer) owe(r *records.Record) {
	b := &wr.behind
	key := records.InlineKey(&r.Manifest)
	size := r.Manifest.EncodedSize()
	b.mu.Lock()
	defer b.mu.Unlock()
	if was := b.owed[key]; was != nil {
		if was.Version >= r.Version {
			return
		}
		b.bytes -= was.Manifest.EncodedSize()
		delete(b.owed, key)
	}
	if b.bytes+size > behindMax {
		b.left.Add(1)
		return
	}
	b.owed[key] = r
	b.bytes += size
	if b.running {
		return
	}
	b.running = true
	wr.late.Add(1) // the put that owes it has entered
	go wr.payAll()
}

// payAll writes what is owed until nothing is.
func (wr *writer) payAll() {
	defer wr.late.Done()
	b := &wr.behind
	for {
		t := time.NewTimer(behindDelay)
		select {
		case <-t.C:
		case <-b.hurry:
		case <-b.now.Rung():
		}
		t.Stop()
		b.mu.Lock()
		owed := b.owed
		b.owed, b.bytes = make(map[manifest.Key]*records.Record), 0
		b.mu.Unlock()
		for _, r := range owed {
			wr.pay(r)
		}
		b.mu.Lock()
		b.running = len(b.owed) > 0
		more := b.running
		b.mu.Unlock()
		if !more {
			return
		}
	}
}

func (wr *writer) pay(r *records.Record) {
	err := r.Write(wr.life, wr.fleet.Disks(), func(ctx context.Context, disk uint64, asserts []osd.Assert, updates []osd.Update) error {
		d := wr.fleet.Disk(disk)
		if d == nil {
			return errLeft
		}
		return d.ApplyAside(ctx, asserts, updates)
	})
	if err != nil {
		wr.behind.left.Add(1)
		wr.log.Warn("a recovery record was not written; maintenance will write it", "err", err)
		return
	}
	wr.behind.written.Add(1)
}

// Owed is how many inline objects have a record that is still to be written by this client.
func (c *Client) Owed() int {
	b := &c.writer.behind
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.owed)
}
