package stamp

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
)

// Conn is a connection to the device. Safe for concurrent use: each call is
// one request in flight.
type Conn interface {
	Reading
	// Write writes p at off and returns when the reply has come; with fua the
	// reply says that it is durable.
	Write(p []byte, off int64, fua bool) error
	// Flush returns when all that was acknowledged before it is durable.
	Flush() error
}

// Options of a run of writes. What is 0 takes its default.
type Options struct {
	Log   *Log
	Conns []Conn
	Depth int    // requests in flight on each connection; 8
	Seed  uint64 // of offsets and sizes
	Max   int64  // stop after this many requests; no limit
}

// Sizes and shares of the load. Offsets go to a hot area that is overwritten
// all the time, to a window that moves with the seed, and anywhere.
const (
	writeMax   = 128 << 10
	hotSize    = 16 << 20
	windowSize = 64 << 20

	percentFlush     = 2
	percentFUA       = 3
	percentUnaligned = 15
	percentHot       = 45
	percentWindow    = 50
)

// Stats counts what a run did.
type Stats struct {
	Writes, Acked, Flushes int64
}

// Run writes until ctx is done, Max requests are sent, or every connection has failed,
// as when the server is killed. A request that fails only counts as not acknowledged.
// Run returns errors of the log, and of connections that failed before ctx was done.
// The caller knows whether to expect these.
func Run(ctx context.Context, o Options) (Stats, error) {
	if o.Depth == 0 {
		o.Depth = 8
	}
	var (
		stats   Stats
		sent    atomic.Int64
		workers sync.WaitGroup
		mu      sync.Mutex // guards failed
		failed  []error
	)
	for number, conn := range o.Conns {
		var once sync.Once // one error a connection is enough
		for d := range o.Depth {
			w := writer{
				log: o.Log, conn: conn, number: number, stats: &stats,
				random: rand.New(rand.NewPCG(o.Seed, uint64(number)<<32|uint64(d))),
				window: window(o.Seed, o.Log.Size()),
				buf:    make([]byte, writeMax),
			}
			workers.Go(func() {
				for ctx.Err() == nil && (o.Max == 0 || sent.Add(1) <= o.Max) {
					if err := w.request(); err != nil {
						once.Do(func() { mu.Lock(); failed = append(failed, err); mu.Unlock() })
						return
					}
				}
			})
		}
	}
	workers.Wait()
	return stats, errors.Join(failed...)
}

func window(seed uint64, size int64) int64 {
	if size <= windowSize {
		return 0
	}
	return rand.New(rand.NewPCG(seed, 1<<63)).Int64N((size-windowSize)/ClusterSize) * ClusterSize
}

// writer is one request in flight at a time.
type writer struct {
	log    *Log
	conn   Conn
	number int
	stats  *Stats
	random *rand.Rand
	window int64
	buf    []byte
}

func (w *writer) request() error {
	if w.random.IntN(100) < percentFlush {
		return w.flush()
	}
	off, n := w.place()
	fua := w.random.IntN(100) < percentFUA
	seq, err := w.log.issue(w.number, uint64(off/SectorSize), uint32(n/SectorSize), fua)
	if err != nil {
		return err
	}
	p := w.buf[:n]
	Fill(p, Stamp{Run: w.log.run, Seq: seq, Writer: uint32(w.number), First: uint64(off / SectorSize)})
	atomic.AddInt64(&w.stats.Writes, 1)
	if err := w.conn.Write(p, off, fua); err != nil {
		return err
	}
	atomic.AddInt64(&w.stats.Acked, 1)
	return w.log.ack(seq)
}

func (w *writer) flush() error {
	seq, err := w.log.flush()
	if err != nil {
		return err
	}
	if err := w.conn.Flush(); err != nil {
		return err
	}
	atomic.AddInt64(&w.stats.Flushes, 1)
	return w.log.flushed(seq)
}

// place picks an offset and a length, both multiples of a sector.
func (w *writer) place() (off, n int64) {
	n = ClusterSize
	switch kind := w.random.IntN(100); {
	case kind >= 95:
		n = writeMax
	case kind >= 60:
		n = ClusterSize * (1 + w.random.Int64N(16))
	}
	size := w.log.Size()
	start, span := int64(0), size
	switch area := w.random.IntN(100); {
	case area < percentHot:
		span = min(size, hotSize)
	case area < percentHot+percentWindow:
		start, span = w.window, min(size, windowSize)
	}
	n = min(n, span)
	off = start + w.random.Int64N((span-n)/ClusterSize+1)*ClusterSize
	if w.random.IntN(100) < percentUnaligned && off+n+ClusterSize <= size {
		off += SectorSize * w.random.Int64N(sectorsPerCluster)
		n -= SectorSize * w.random.Int64N(sectorsPerCluster)
	}
	return off, n
}
