package fragmentcache

import (
	"sync"

	"openvstorage/alba/manifest"
)

// item is an extent in a batch.
type item struct {
	fragment
	part
	at uint32 // first block in the batch
}

// batch is bytes, their checksums, and what they are.
type batch struct {
	data  []byte
	crcs  []uint32
	items []item
}

func (b *batch) reset() { b.data, b.crcs, b.items = b.data[:0], b.crcs[:0], b.items[:0] }

// grow makes room for n bytes, up to limit bytes in all.
func (b *batch) grow(n, limit int) {
	if len(b.data)+n > cap(b.data) {
		data := make([]byte, len(b.data), min(max(2*cap(b.data), len(b.data)+n, 256<<10), limit))
		copy(data, b.data)
		b.data = data
	}
}

// queue is what was put and the writer has not taken yet. One batch fills while another is
// written; each may have half of the bytes.
type queue struct {
	mu      sync.Mutex
	changed sync.Cond
	filling *batch
	spare   *batch // nil while the writer has it
	limit   int    // bytes of a batch
	busy    bool   // the writer has a batch, or has not begun
	closed  bool
	owed    int64   // bytes that are to be given up
	ghosts  *ghosts // nil: everything is admitted
	room    int64   // bytes of segments up to which nothing need be evicted for more
	stats   *counters
}

func newQueue(o Options, stats *counters) *queue {
	q := &queue{filling: new(batch), spare: new(batch), limit: int(o.QueueBytes / 2), busy: true, stats: stats,
		room: o.Bytes - 2*o.SegmentBytes - o.QueueBytes}
	q.changed.L = &q.mu
	if !o.AdmitFirst {
		q.ghosts = newGhosts(o.Bytes / int64(o.PageBytes))
		stats.ghostSize.Store(q.ghosts.bytes())
	}
	return q
}

// Put offers a fragment's bytes from off and their checksums, one for each 4 KiB. It keeps
// neither slice, and never waits for the disk: what is not admitted or does not fit is
// dropped. So is a range whose off or length is not a multiple of 4096.
func (c *Cache) Put(key manifest.Key, off uint32, p []byte, crcs []uint32) {
	if !aligned(off, p, crcs) || c.pausing() {
		c.stats.dropped.Add(uint64(len(p)))
		return
	}
	f := fragmentOf(key)
	for first := off / blockSize; len(p) > 0; {
		it := item{fragment: f, part: c.part(f, first, uint32(len(crcs)))}
		n := it.run.n()
		if it.run.mask()&^c.index.present(it.fp) != 0 {
			c.queue.add(it, p[:n*blockSize], crcs[:n])
		}
		p, crcs, first = p[n*blockSize:], crcs[n:], first+n
	}
}

func (q *queue) add(it item, p []byte, crcs []uint32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ghosts != nil && !q.ghosts.seen(it.fp, it.run) && q.stats.bytes.Load() >= q.room {
		q.stats.refused.Add(uint64(len(p)))
		return
	}
	b := q.filling
	if q.closed || len(b.data)+len(p) > q.limit {
		q.stats.dropped.Add(uint64(len(p)))
		return
	}
	b.grow(len(p), q.limit)
	it.at = uint32(len(b.crcs))
	b.data = append(b.data, p...)
	b.crcs = append(b.crcs, crcs...)
	b.items = append(b.items, it)
	if len(b.items) == 1 {
		q.changed.Broadcast()
	}
}

// take waits until something was put or is to be given up, and returns the batch, which may
// be empty then; nil when the queue is closed and empty. done is the batch that it returned
// before, to be filled again.
func (q *queue) take(done *batch) *batch {
	q.mu.Lock()
	defer q.mu.Unlock()
	if done != nil {
		done.reset()
		q.spare = done
	}
	q.busy = false
	q.changed.Broadcast()
	for len(q.filling.items) == 0 && q.owed == 0 {
		if q.closed {
			return nil
		}
		q.changed.Wait()
	}
	b := q.filling
	q.filling, q.spare, q.busy = q.spare, nil, true
	return b
}

// GiveUp has the cache give up about n bytes, the oldest first, when its file system lacks
// room for what matters more. It does not wait.
func (c *Cache) GiveUp(n int64) {
	q := c.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.owed = max(q.owed, n)
		q.changed.Broadcast()
	}
}

// owes returns what is to be given up, once.
func (q *queue) owes() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := q.owed
	q.owed = 0
	return n
}

// wait returns when nothing is queued or being written.
func (q *queue) wait() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.busy || len(q.filling.items) > 0 {
		q.changed.Wait()
	}
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.changed.Broadcast()
}
