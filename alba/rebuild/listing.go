package rebuild

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"openvstorage/alba/fleet"
	"openvstorage/alba/manifest"
	"openvstorage/alba/osd"
	"openvstorage/alba/records"
	"openvstorage/internal/format"
)

// pageKeys is how many keys of a disk are in memory.
const pageKeys = 1000

// listing goes through one table of a namespace on a disk: its fragments or its records.
type listing struct {
	disk   *fleet.Disk
	letter byte
	next   []byte // first key of the next page; nil: there is none
	last   []byte
	page   []osd.Info
}

func list(d *fleet.Disk, ns uint64, letter byte) *listing {
	from := func(ns uint64) []byte {
		k := manifest.Key{Namespace: ns}.Append(nil)[:9]
		k[0] = letter
		return k
	}
	return &listing{disk: d, letter: letter, next: from(ns), last: from(ns + 1)}
}

// peek returns the key that is next, nil behind the last.
func (l *listing) peek(ctx context.Context) (*osd.Info, error) {
	for len(l.page) == 0 && l.next != nil {
		page, err := l.disk.Range(ctx, l.next, l.last, pageKeys)
		if err != nil {
			return nil, err
		}
		l.page, l.next = page, nil
		if len(page) == pageKeys {
			l.next = append(bytes.Clone(page[len(page)-1].Key), 0)
		}
	}
	if len(l.page) == 0 {
		return nil, nil
	}
	return &l.page[0], nil
}

// found is what the disks have under one object id.
type found struct {
	id        manifest.ObjectID
	fragments map[at]bool
	records   []held
}

// at is a fragment on a disk.
type at struct {
	key  manifest.Key
	disk uint64
}

// held is a record on a disk.
type held struct {
	key  manifest.Key
	disk *fleet.Disk
	size uint32
}

// next gathers what all listings have under the lowest id that is left. It returns nil
// behind the last.
func next(ctx context.Context, all []*listing) (*found, error) {
	var f *found
	for _, l := range all {
		info, err := l.peek(ctx)
		if err != nil {
			return nil, err
		}
		if info == nil {
			continue
		}
		if len(info.Key) != manifest.KeySize {
			return nil, fmt.Errorf("disk %d has key %x, which is none of this release", l.disk.Number, info.Key)
		}
		if id := manifest.ObjectID(info.Key[9:25]); f == nil || bytes.Compare(id[:], f.id[:]) < 0 {
			f = &found{id: id}
		}
	}
	if f == nil {
		return nil, nil
	}
	f.fragments = make(map[at]bool)
	for _, l := range all {
		for {
			info, err := l.peek(ctx)
			if err != nil {
				return nil, err
			}
			if info == nil || len(info.Key) != manifest.KeySize || !bytes.Equal(info.Key[9:25], f.id[:]) {
				break
			}
			l.page = l.page[1:]
			if k, err := manifest.ParseKey(info.Key); err == nil {
				f.fragments[at{k, l.disk.Number}] = true
			} else if k, err := manifest.ParseRecoveryKey(info.Key); err == nil {
				f.records = append(f.records, held{k, l.disk, info.Size})
			}
		}
	}
	return f, nil
}

// candidates makes candidates of what was found under an id: one of an object, or one for each
// version of an inline object. What cannot be read for damage is as good as absent; any other
// error ends the rebuild.
func (f *found) candidates(ctx context.Context) (list []*candidate, err error) {
	var c *candidate
	for _, h := range f.records {
		if !h.key.Inline() && !f.fragments[at{h.key, h.disk.Number}] {
			continue // a record without its fragment says nothing
		}
		r, err := records.Read(ctx, h.disk.ReadAside, h.key, h.size)
		if errors.Is(err, osd.ErrCorrupt) || errors.Is(err, format.ErrCorrupt) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("disk %d (%s): %w", h.disk.Number, h.disk.Place, err)
		}
		if h.key.Inline() {
			list = append(list, &candidate{m: r.Manifest, hash: r.Hash, version: r.Version, exact: r.Exact, names: 1, lack: complete(&r.Manifest)})
			continue
		}
		c = c.take(h.key, r, h.disk.Number)
	}
	if c != nil {
		c.lack = complete(&c.m)
		list = append(list, c)
	}
	return list, nil
}

// take enters what a record tells of a fragment on a disk.
func (c *candidate) take(key manifest.Key, r *records.Record, disk uint64) *candidate {
	if c == nil {
		c = &candidate{m: r.Manifest, hash: r.Hash}
		c.m.Chunks = make([]manifest.Chunk, r.Chunks)
		for i := range c.m.Chunks { // until it is found
			c.m.Chunks[i].Fragments = make([]manifest.Fragment, c.m.Policy.Width())
		}
	}
	if r.Exact && !c.exact || r.Exact == c.exact && r.Version > c.version {
		c.exact, c.version = r.Exact, r.Version
	}
	c.m.Epoch = max(c.m.Epoch, r.Manifest.Epoch)
	if int(r.Chunk) >= len(c.m.Chunks) {
		return c
	}
	chunk := &c.m.Chunks[r.Chunk]
	if chunk.Plain == 0 {
		*chunk = r.Manifest.Chunks[0]
	}
	c.names++
	for i := range chunk.Fragments { // a manifest has no two fragments of a chunk on a disk
		if i != int(key.Fragment) && chunk.Fragments[i].OSD == disk {
			return c
		}
	}
	f := &chunk.Fragments[key.Fragment]
	if f.OSD == 0 || f.Version < key.Version { // of two, both have the same bytes
		f.OSD, f.Version = disk, key.Version
	}
	c.m.Revision = max(c.m.Revision, key.Version)
	return c
}
