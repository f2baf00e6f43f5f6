package client

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"openvstorage/alba/manifest"
	"openvstorage/alba/object"
	"openvstorage/internal/broadcast"
)

// codedMax is how many chunks of an upload are in memory: one is encoded while
// the one before it is written.
const codedMax = 2

// coder is an encoder, and the memory for the chunks of one upload.
type coder struct {
	encoder object.Encoder

	// Guarded by the mutex of chunkMemory.
	free  []*coded
	used  []*coded // being encoded or written, the oldest first
	ended bool     // the upload has ended; the coder is given back with the last of used
}

// coded is the fragments of one chunk. Its memory is in use for as long as it has users:
// the upload until it has begun to write the chunk, and every write of a fragment until
// that write has ended. Only the users say when the memory may be used again: a late
// write may still read it after the upload has returned.
type coded struct {
	object.Coded
	coder *coder // whose it is; nil: it is lent, and collected at its end
	lent  int64  // bytes
	users int
	write *chunkWrite // the fragments that are written from it, once they are
}

// size is the bytes of all fragments.
func (u *coded) size() (n int64) {
	for _, s := range u.Shards {
		n += int64(len(s))
	}
	return n
}

// chunkMemory is the memory of all chunks on their way to disks: codedMax chunks for each
// coder, and the memory that coders have lent to late fragments. What is lent is bounded
// in bytes.
type chunkMemory struct {
	coders chan *coder // the idle ones; a coder is nil until it is needed
	limit  int64       // of late

	mu      sync.Mutex
	ended   []*coder            // that wait for late fragments
	late    int64               // bytes lent
	changed broadcast.Broadcast // memory comes back
}

func (m *chunkMemory) init(uploads int, limit int64) {
	m.coders, m.limit = make(chan *coder, uploads), limit
	for range uploads {
		m.coders <- nil
	}
}

// coder waits for one of the coders, of which there are Options.Uploads.
func (m *chunkMemory) coder(ctx context.Context) (*coder, error) {
	select {
	case x := <-m.coders:
		return fresh(x), nil
	default:
	}
	look := time.NewTicker(lookEvery) // a disk may stop to answer meanwhile
	defer look.Stop()
	for {
		select {
		case x := <-m.coders:
			return fresh(x), nil
		case <-look.C:
			m.lendEnded()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func fresh(x *coder) *coder {
	if x == nil {
		x = new(coder)
	}
	return x
}

// lendEnded lends what coders of ended uploads may lend by now, and gives those coders
// back that have lent all.
func (m *chunkMemory) lendEnded() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, x := range slices.Clone(m.ended) {
		for m.lendLocked(x) {
		}
		m.idleLocked(x)
	}
}

// end gives a coder back. If the memory that late fragments still read may be lent to
// them, the coder is free at once, else when the last of them is written.
func (m *chunkMemory) end(x *coder) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.lendLocked(x) {
	}
	x.ended = true
	m.ended = append(m.ended, x)
	m.idleLocked(x)
}

func (m *chunkMemory) idleLocked(x *coder) {
	if x.ended && len(x.used) == 0 {
		x.ended = false
		m.ended = slices.DeleteFunc(m.ended, func(o *coder) bool { return o == x })
		m.coders <- x // there is room for each
	}
}

// take returns memory for a chunk, which its upload uses from then on. If all memory of the
// coder is in use, the oldest is lent to the late fragments that read it. If too much is
// lent already, take waits until some of it comes back.
func (m *chunkMemory) take(ctx context.Context, x *coder) (*coded, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(x.free) == 0 && len(x.used) == codedMax && !m.lendLocked(x) {
		changed := m.changed.Next()
		m.mu.Unlock()
		var err error
		look := time.NewTimer(lookEvery)
		select {
		case <-changed:
		case <-look.C: // a disk may have stopped to answer
		case <-ctx.Done():
			err = ctx.Err()
		}
		look.Stop()
		m.mu.Lock()
		if err != nil {
			return nil, err
		}
	}
	var u *coded
	if n := len(x.free); n > 0 {
		u, x.free = x.free[n-1], x.free[:n-1]
	} else {
		u = &coded{coder: x}
	}
	u.users, u.write = 1, nil
	x.used = append(x.used, u)
	return u, nil
}

// lendLocked leaves the oldest memory of a coder to the writes that still read it, and
// reports whether the bound allows that. The bound may be exceeded if nothing else is
// lent, and for disks that do not answer. Such a disk gets nothing more, and what it has
// begun to write is bounded (see asd.Options.BatchBytes): while it hangs, it keeps the
// memory of few chunks.
func (m *chunkMemory) lendLocked(x *coder) bool {
	if len(x.used) == 0 {
		return false
	}
	u := x.used[0]
	n := u.size()
	if m.late > 0 && m.late+n > m.limit && (u.write == nil || !u.write.stuck()) {
		return false
	}
	x.used = append(x.used[:0], x.used[1:]...)
	u.coder, u.lent = nil, n
	m.late += n
	return true
}

// use adds the users of a write that begins.
func (m *chunkMemory) use(u *coded, w *chunkWrite) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u.users += w.left
	u.write = w
}

// again adds a user of memory that a chunk is still written from. It reports false if nothing
// is written from it any more.
func (m *chunkMemory) again(u *coded, w *chunkWrite) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if u.users == 0 || u.write != w {
		return false
	}
	u.users++
	return true
}

// release ends one use. With the last one the memory may be used again.
func (m *chunkMemory) release(u *coded) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if u.users--; u.users > 0 {
		return
	}
	if x := u.coder; x == nil {
		m.late -= u.lent
	} else {
		for i := range x.used {
			if x.used[i] == u {
				x.used = append(x.used[:i], x.used[i+1:]...)
				break
			}
		}
		x.free = append(x.free, u)
		m.idleLocked(x)
	}
	m.changed.Send()
}

// lent is the bytes that late fragments keep from their coders.
func (m *chunkMemory) lent() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.late
}

func (x *coder) reset(m *manifest.Manifest, master []byte) error {
	return x.encoder.Reset(params(m, master))
}

func params(m *manifest.Manifest, master []byte) object.Params {
	return object.Params{Namespace: m.Namespace, Object: m.Object, Policy: m.Policy, Scheme: m.Scheme, Master: master}
}

// trim gives the memory of idle coders back.
func (m *chunkMemory) trim() {
	for range cap(m.coders) {
		select {
		case <-m.coders:
			m.coders <- nil
		default:
			return
		}
	}
}

// overdue counts for each disk the fragments that are still being written to it and that
// their upload no longer waits for.
type overdue struct {
	disks atomic.Int32 // that have some
	mu    sync.Mutex
	count map[uint64]int
}

func (o *overdue) add(number uint64, by int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.count == nil {
		o.count = make(map[uint64]int)
	}
	if o.count[number] += by; o.count[number] == 0 {
		delete(o.count, number)
	}
	o.disks.Store(int32(len(o.count)))
}

func (o *overdue) has(number uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.count[number] > 0
}
