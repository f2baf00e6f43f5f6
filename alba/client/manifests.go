package client

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"

	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/object"
	"openvstorage/backend"

	"github.com/maypok86/otter/v2"
)

// objectKey names an object in the cache of manifests.
type objectKey struct {
	namespace uint64
	name      string
}

// entry is a manifest and what was learned with it. Only the tables of an entry change:
// they are read when they are needed.
//
// An entry may be of a past revision, or of an object that is gone. The bytes that it
// leads to are right even then: fragments never change, and only PutIf replaces objects,
// which are not kept here.
type entry struct {
	m      *manifest.Manifest
	master []byte

	mu     sync.Mutex
	tables []*object.Table // of the chunks; nil: not read yet
}

// size is the memory that an entry takes, its tables counted as if read.
func (e *entry) size() uint32 {
	n := e.m.EncodedSize()*3 + 256
	for i := range e.m.Chunks {
		if c := &e.m.Chunks[i]; !c.Dense {
			n += 4*manifest.Blocks(c.Plain, e.m.Scheme.BlockLog2) + 64
		}
	}
	return uint32(n)
}

// table returns what is known of the table of a chunk.
func (e *entry) table(chunk int) *object.Table {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.tables[chunk]
}

func (e *entry) setTable(chunk int, t *object.Table) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tables[chunk] = t
}

// manifests is the manifests that the client has, and the way to get others.
type manifests struct {
	keys    *keys
	cache   *otter.Cache[objectKey, *entry]
	changes changes
}

// newManifests returns an empty cache for so many bytes.
func newManifests(bytes int64, keys *keys) *manifests {
	return &manifests{
		keys: keys, changes: changes{seed: maphash.MakeSeed()},
		cache: otter.Must(&otter.Options[objectKey, *entry]{
			MaximumWeight: uint64(bytes),
			Weigher:       func(k objectKey, e *entry) uint32 { return uint32(len(k.name)) + e.size() },
		}),
	}
}

// entry returns an object's manifest, from memory if it is there.
func (k *manifests) entry(ctx context.Context, s *space, name string) (*entry, error) {
	if e, ok := k.cache.GetIfPresent(objectKey{s.number, name}); ok {
		return e, nil
	}
	return k.fetch(ctx, s, name)
}

// fetch asks the NSM for a manifest. The manifest of an inline object is not kept: the NSM
// is all that reading it needs, and PutIf may replace it.
func (k *manifests) fetch(ctx context.Context, s *space, name string) (*entry, error) {
	key := objectKey{s.number, name}
	seen := k.changes.seen(key)
	o, err := s.nsm.Get(ctx, s.number, name, userfn.Consistent)
	if err != nil {
		return nil, err
	}
	m, err := manifest.Decode(o.Manifest)
	if err != nil {
		return nil, fmt.Errorf("manifest of object %s of namespace %s: %w", name, s.name, err)
	}
	if m.Object != manifest.ObjectID(o.ID) || m.Name != name || m.Namespace != s.number {
		return nil, fmt.Errorf("%w: object %s of namespace %s has the manifest of object %s (%v) of namespace %d", backend.ErrCorrupt, name, s.name, m.Name, m.Object, m.Namespace)
	}
	// Otherwise whoever can write manifests could have a reader take what was never sealed.
	demands, err := s.demanded(ctx)
	if err != nil {
		return nil, fmt.Errorf("object %s of namespace %s: %w", name, s.name, err)
	}
	if m.Scheme.Cipher < demands {
		return nil, fmt.Errorf("%w: object %s of namespace %s: %w: its manifest says cipher %v, and preset %s demands %v", backend.ErrCorrupt, name, s.name, ErrWeaker, m.Scheme.Cipher, s.preset, demands)
	}
	master, err := k.keys.master(m.Scheme)
	if err != nil {
		return nil, fmt.Errorf("object %s of namespace %s: %w", name, s.name, err)
	}
	e := &entry{m: m, master: master, tables: make([]*object.Table, len(m.Chunks))}
	if !m.Inlined && !replaceable(m) {
		k.changes.unless(key, seen, func() { k.cache.Set(key, e) })
	}
	return e, nil
}

// replaceable reports whether an object was written by PutIf and may be replaced under its
// name: then its manifest is asked for each time. Only the manifest of such an object has
// a version, one more than the version that it replaced.
func replaceable(m *manifest.Manifest) bool { return m.Version != 0 }

// refresh returns the manifest as it is now, and whether it has changed. It is for reads
// that failed: their manifest may be of the past.
func (k *manifests) refresh(ctx context.Context, s *space, e *entry) (*entry, bool, error) {
	fresh, err := k.fetch(ctx, s, e.m.Name)
	if err != nil {
		if errors.Is(err, nsm.ErrNotFound) {
			k.forget(s.number, e.m.Name)
		}
		return nil, false, err
	}
	return fresh, fresh.m.Object != e.m.Object || fresh.m.Revision != e.m.Revision, nil
}

// forget drops an object's manifest: whoever changes the object says so.
func (k *manifests) forget(namespace uint64, name string) {
	key := objectKey{namespace, name}
	k.changes.note(key, func() { k.cache.Invalidate(key) })
}

// changes counts the changes of objects. A manifest that was asked for before a change must
// not enter the cache after it: it would be served for ever.
type changes struct {
	seed   maphash.Seed
	shards [64]struct {
		sync.Mutex
		count uint64
	}
}

func (c *changes) shard(key objectKey) int {
	return int(maphash.Comparable(c.seed, key) % uint64(len(c.shards)))
}

// seen returns the count to be passed to unless.
func (c *changes) seen(key objectKey) uint64 {
	s := &c.shards[c.shard(key)]
	s.Lock()
	defer s.Unlock()
	return s.count
}

// unless runs fn if there was no change since seen.
func (c *changes) unless(key objectKey, seen uint64, fn func()) {
	s := &c.shards[c.shard(key)]
	s.Lock()
	defer s.Unlock()
	if s.count == seen {
		fn()
	}
}

// note runs fn as a change.
func (c *changes) note(key objectKey, fn func()) {
	s := &c.shards[c.shard(key)]
	s.Lock()
	defer s.Unlock()
	s.count++
	fn()
}
