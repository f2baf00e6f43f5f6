package fragmentcache

import (
	"encoding/binary"
	"errors"
	"hash/maphash"
	"io"
	"sync"
	"sync/atomic"

	"openvstorage/alba/manifest"
	"openvstorage/alba/osd"
	"openvstorage/internal/disk"
)

const lockName = "LOCK"

// Cache is a cache of ranges of fragments. Its methods are safe for concurrent
// use.
type Cache struct {
	opt        Options
	pageBlocks uint32
	seed       maphash.Seed
	lock       io.Closer

	index    index
	segments [slotMax]atomic.Pointer[segment]
	queue    *queue

	closing  atomic.Bool   // the load may stop
	finished chan struct{} // the writer is through
	close    sync.Once
	closed   error

	off   atomic.Bool  // nothing is written
	until atomic.Int64 // and nothing is tried before this time, in Unix nanoseconds
	stats counters
}

type counters struct {
	hits, misses, corrupt, readErrors         atomic.Uint64
	written, refused, dropped, kept, evicted  atomic.Uint64
	bytes, segments, checksumBytes, ghostSize atomic.Int64
}

// Open opens the cache in Options.Dir, or creates one. It returns before the content is
// found, newest first; a get may miss until then. Damaged and unfinished segments are
// removed, and files that are not the cache's are left alone. If the disk fails, the cache
// is without content for a while, and then tries the disk again.
func Open(o Options) (*Cache, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Cache{opt: o, pageBlocks: uint32(o.PageBytes / blockSize), seed: maphash.MakeSeed(), finished: make(chan struct{})}
	c.queue = newQueue(o, &c.stats)
	w := &writer{c: c, next: 1}
	if err := w.begin(); errors.Is(err, disk.ErrLocked) {
		return nil, err
	} else if err != nil {
		w.turnOff(err)
	}
	go w.run()
	return c, nil
}

// fingerprint stands for a page in the index.
func (c *Cache) fingerprint(f fragment, page uint32) uint64 {
	var b [28]byte
	copy(b[:], f.object[:])
	binary.LittleEndian.PutUint32(b[16:], f.chunk)
	binary.LittleEndian.PutUint32(b[20:], page)
	b[24] = f.number
	return maphash.Bytes(c.seed, b[:])
}

// part is what of a page a range has.
type part struct {
	fp    uint64
	run   run
	first uint32 // block of the fragment
}

// part returns the first part of n blocks of a fragment from first.
func (c *Cache) part(f fragment, first, n uint32) part {
	page, in := first/c.pageBlocks, first%c.pageBlocks
	return part{fp: c.fingerprint(f, page), run: makeRun(in, min(n, c.pageBlocks-in)), first: first}
}

// aligned reports whether it is a range that can be kept.
func aligned(off uint32, p []byte, crcs []uint32) bool {
	return off%blockSize == 0 && len(p)%blockSize == 0 && len(p) > 0 && len(crcs) == len(p)/blockSize && uint64(off)+uint64(len(p)) <= 1<<32
}

// Get fills p with a fragment's bytes from off, and crcs, one for each 4 KiB, with the
// checksums that were put with them. It returns false if the cache does not have all of
// them; p and crcs may have been changed even then. off and the length of p must be
// multiples of 4096. Version and namespace of the key do not matter. The caller must check
// the bytes, and call Bad if they are bad.
func (c *Cache) Get(key manifest.Key, off uint32, p []byte, crcs []uint32) bool {
	if !aligned(off, p, crcs) {
		c.stats.misses.Add(1)
		return false
	}
	f := fragmentOf(key)
	var pl plan
	first, n := off/blockSize, uint32(len(crcs))
	for at := uint32(0); at < n; {
		if !pl.room() && !c.read(&pl, f, p, crcs) {
			c.stats.misses.Add(1)
			return false
		}
		part := c.part(f, first+at, n-at)
		if !c.lookup(&pl, part, at) {
			pl.release()
			c.stats.misses.Add(1)
			return false
		}
		at += part.run.n()
	}
	if !c.read(&pl, f, p, crcs) {
		c.stats.misses.Add(1)
		return false
	}
	c.stats.hits.Add(1)
	return true
}

// Bad drops what Get returned and the caller's check refused. How long that was is not
// told, so everything of the fragment from the page of off on is dropped. The next Open
// finds it again if it is still in a file.
func (c *Cache) Bad(key manifest.Key, off uint32) {
	c.stats.corrupt.Add(1)
	c.drop(fragmentOf(key), off/blockSize, osd.ValueMax/blockSize)
}

func (c *Cache) drop(f fragment, first, n uint32) {
	last := uint32(min(uint64(first)+uint64(n), fragmentBlocks)-1) / c.pageBlocks
	for page := first / c.pageBlocks; page <= last; page++ {
		c.index.drop(c.fingerprint(f, page))
	}
}

// Flush waits until what was there at Open has been found, and until what was put before
// the call has been written or dropped. It promises nothing about durability.
func (c *Cache) Flush() { c.queue.wait() }

// Close writes what was put, seals the open segment and releases the directory. From then
// on gets miss and puts are dropped.
func (c *Cache) Close() error {
	c.close.Do(func() {
		c.closing.Store(true)
		c.queue.close()
		<-c.finished
		if c.lock != nil {
			c.closed = c.lock.Close()
		}
	})
	return c.closed
}

// Stats returns the figures of the cache.
func (c *Cache) Stats() Stats {
	s := &c.stats
	extents, bytes := c.index.size()
	return Stats{
		Hits: s.hits.Load(), Misses: s.misses.Load(), Corrupt: s.corrupt.Load(), ReadErrors: s.readErrors.Load(),
		Written: s.written.Load(), Refused: s.refused.Load(), Dropped: s.dropped.Load(), Kept: s.kept.Load(), Evicted: s.evicted.Load(),
		Bytes: s.bytes.Load(), Segments: int(s.segments.Load()), Extents: extents,
		IndexBytes: bytes + s.checksumBytes.Load() + s.ghostSize.Load(), Off: c.off.Load(),
	}
}
