package volumedriver

import "context"

// uploads is what the storers of all vDisks share: a bounded number of slots, each with
// the buffer of one SCO in memory, and the call for room in the write buffer.
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

// give gives a slot back with its buffer, which may be another one by now.
func (u *uploads) give(b []byte) { u.slots <- b }

// used returns how many slots there are, and how many are in use.
func (u *uploads) used() (all, used int) { return cap(u.slots), cap(u.slots) - len(u.slots) }

// pressure is called while a writer waits and nothing can be evicted: if no TLog
// is on its way to the backend, all are closed so that they are. from is the vDisk
// whose storer calls, nil if it is the writer. A storer wakes only others that
// have something to store: storers that have nothing would else wake each other
// without end, on all processors, for as long as the backend is away.
func (u *uploads) pressure(from *Volume) {
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
			if from == nil || v != from && len(v.buf.Work().TLogs) > 0 {
				v.wakeStorer()
			}
		}
	}
}
