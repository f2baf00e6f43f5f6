package volumedriver

import "context"

// uploads is what the storers of all vDisks share: a bounded number of slots (P5), each
// with a buffer that holds one SCO, and the reaction to a full write buffer.
type uploads struct {
	slots chan []byte // free ones
	table *table
}

func newUploads(slots int, t *table) *uploads {
	u := &uploads{slots: make(chan []byte, slots), table: t}
	for range slots {
		u.slots <- nil
	}
	return u
}

// take waits for a slot until ctx ends, and returns its buffer.
func (u *uploads) take(ctx context.Context) ([]byte, error) {
	select {
	case b := <-u.slots:
		return b, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// give gives a slot back with its buffer, which need not be the one that take returned.
func (u *uploads) give(b []byte) { u.slots <- b }

// used returns how many slots there are, and how many are in use.
func (u *uploads) used() (all, used int) { return cap(u.slots), cap(u.slots) - len(u.slots) }

// pressure is called while a writer waits for room in the write buffer and nothing can
// be evicted. If no closed TLog is on its way to the backend, it closes the TLogs of all
// vDisks, since only closed ones are stored. from is the vDisk whose storer calls, nil if
// the writer does.
//
// A storer wakes only those other storers that have something to store. Otherwise storers
// that have nothing would wake each other without end, on all processors, for as long as
// the backend is away.
func (u *uploads) pressure(from *core) {
	list := u.table.all()
	pending := false
	for _, v := range list {
		pending = pending || v.buf != nil && v.Err() == nil && !v.store.failing.Load() && len(v.buf.Work().TLogs) > 0
	}
	for _, v := range list {
		if v.buf != nil && v.Err() == nil {
			if !pending {
				v.buf.CloseTLog()
			}
			if from == nil || &v.core != from && len(v.buf.Work().TLogs) > 0 {
				v.store.ring()
			}
		}
	}
}
