package local

import (
	"sync"

	"openvstorage/backend"
	"openvstorage/internal/disk"
)

// object is an open object file with its checked table of CRCs. These fields never
// change; those guarded by cache.mu belong to the cache.
type object struct {
	file    disk.File
	path    string
	size    int64
	version backend.Version
	seed    uint32 // CRC state that every block's CRC starts from
	table   []byte // CRC-32C of each block, as on disk

	key        objectKey
	refs       int     // readers that hold it; guarded by cache.mu
	dead       bool    // out of the cache: closed when refs drops to 0; guarded by cache.mu
	prev, next *object // place in the list, most recent first; guarded by cache.mu
}

type objectKey struct {
	space *space
	name  string
}

// cache holds the objects used last, bounded in open files and in bytes of tables. An
// object stays open while readers hold it, so the number of open files exceeds the bound
// by at most one for each reader.
//
// After drop has returned, get never returns an object that was opened before drop: an
// object that was deleted or replaced is not served again.
type cache struct {
	filesMax int
	bytesMax int64

	mu    sync.Mutex
	m     map[objectKey]*object
	list  object // head of the ring
	bytes int64
	off   bool // closed: nothing is kept any more

	hits, misses uint64
}

// Stats are the figures of the cache of open files.
type Stats struct {
	Files        int    // open in the cache; reads may hold others open
	TableBytes   int64  // of their CRC tables
	Hits, Misses uint64 // of reads since Open
}

func (c *cache) stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Stats{Files: len(c.m), TableBytes: c.bytes, Hits: c.hits, Misses: c.misses}
}

func newCache(files int, bytes int64) *cache {
	c := &cache{filesMax: files, bytesMax: bytes, m: make(map[objectKey]*object)}
	c.list.prev, c.list.next = &c.list, &c.list
	return c
}

// get returns the object and holds it for the caller, who must release it.
// If it is not cached, gen is what add must be given after opening it.
func (c *cache) get(k objectKey) (o *object, gen uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o = c.m[k]; o != nil {
		c.hits++
		o.refs++
		o.unlink()
		c.pushFront(o)
	} else {
		c.misses++
	}
	return o, k.space.gen
}

// add puts an object in that was just opened, and holds it for the caller. If the cache
// has the object by now, add closes o and returns the cached one. If an object of the
// namespace was dropped since gen, o may be stale: only this caller, whose read began
// before the drop, gets it.
func (c *cache) add(o *object, gen uint64) *object {
	c.mu.Lock()
	first := c.m[o.key]
	var victims *object
	switch {
	case first != nil:
		first.refs++
		o.dead, o.next, victims = true, nil, o
		o = first
	case c.off || o.key.space.gen != gen:
		o.refs, o.dead = 1, true
	default:
		o.refs = 1
		c.m[o.key] = o
		c.bytes += int64(len(o.table))
		c.pushFront(o)
		for len(c.m) > c.filesMax || c.bytes > c.bytesMax && len(c.m) > 1 {
			victims = c.remove(c.list.prev, victims)
		}
	}
	c.mu.Unlock()
	closeAll(victims)
	return o
}

// release lets go of an object.
func (c *cache) release(o *object) {
	c.mu.Lock()
	o.refs--
	last := o.dead && o.refs == 0
	c.mu.Unlock()
	if last {
		o.file.Close() // opened for reading: nothing can be lost
	}
}

// drop forgets an object whose file was removed or replaced.
func (c *cache) drop(k objectKey) {
	c.mu.Lock()
	k.space.gen++
	var victims *object
	if o := c.m[k]; o != nil {
		victims = c.remove(o, nil)
	}
	c.mu.Unlock()
	closeAll(victims)
}

// dropSpace forgets all objects of a namespace. With a nil s it forgets the objects of
// all namespaces, and the cache holds none from then on.
func (c *cache) dropSpace(s *space) {
	c.mu.Lock()
	if s == nil {
		c.off = true
	} else {
		s.gen++
	}
	var victims *object
	for k, o := range c.m {
		if s == nil || k.space == s {
			victims = c.remove(o, victims)
		}
	}
	c.mu.Unlock()
	closeAll(victims)
}

// remove takes o out of the cache. If no reader holds o, it is put before victims, which
// the caller closes.
func (c *cache) remove(o, victims *object) *object {
	delete(c.m, o.key)
	c.bytes -= int64(len(o.table))
	o.unlink()
	o.dead = true
	if o.refs > 0 {
		return victims
	}
	o.next = victims
	return o
}

// closeAll closes files outside the lock: the last close of a removed file
// frees its blocks, which takes a while.
func closeAll(victims *object) {
	for o := victims; o != nil; o = o.next {
		o.file.Close()
	}
}

func (c *cache) pushFront(o *object) {
	o.prev, o.next = &c.list, c.list.next
	o.next.prev, c.list.next = o, o
}

func (o *object) unlink() {
	o.prev.next, o.next.prev = o.next, o.prev
	o.prev, o.next = nil, nil
}
