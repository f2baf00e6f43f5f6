package client

import (
	"errors"

	"openvstorage/alba/manifest"
	"openvstorage/alba/object"
	"openvstorage/alba/osd"
	"openvstorage/backend"
)

// Cache keeps ranges of fragments near. Package fragmentcache implements it. It may
// ignore version and namespace of a key: a fragment that is made again has the same
// bytes, and an object id is used once.
type Cache interface {
	// Get fills p with a fragment's bytes from off, and crcs with their checksums. It
	// returns false if the cache does not have all of them.
	Get(key manifest.Key, off uint32, p []byte, crcs []uint32) bool
	// Put offers bytes and checksums. The cache keeps neither slice after Put returns.
	Put(key manifest.Key, off uint32, p []byte, crcs []uint32)
	// Bad drops what Get returned and the caller's check refused.
	Bad(key manifest.Key, off uint32)
}

// fromCache fills dst with a range of a fragment if the cache has it. The bytes are
// checked against the writer's checksums, as those from a disk are.
func (rd *reader) fromCache(e *entry, r object.Range, dst []byte) bool {
	if rd.cache == nil {
		return false
	}
	t := rd.newTask(e, r, nil, 1)
	defer t.release()
	if !rd.cache.Get(e.m.Key(r.Chunk, r.Fragment), r.Off, dst, t.crcs) {
		return false
	}
	if err := object.Verify(e.m, r, dst, t.crcs); err != nil {
		rd.log.Warn("the fragment cache had bad bytes; they are dropped", "object", e.m.Name, "err", err)
		rd.cache.Bad(e.m.Key(r.Chunk, r.Fragment), r.Off)
		return false
	}
	rd.counts.cacheHits.Add(1)
	return true
}

// toCache offers a range of a fragment, checked, to the cache. crcs may be nil.
func (rd *reader) toCache(e *entry, r object.Range, p []byte, crcs []uint32) {
	if rd.cache == nil {
		return
	}
	if crcs == nil {
		seed := manifest.Seed(e.m.Object, uint32(r.Chunk), uint32(r.Fragment))
		crcs = osd.AppendCRCs(nil, seed, r.Off/osd.BlockSize, p)
	}
	rd.cache.Put(e.m.Key(r.Chunk, r.Fragment), r.Off, p, crcs)
}

func isCorrupt(err error) bool { return errors.Is(err, backend.ErrCorrupt) }
