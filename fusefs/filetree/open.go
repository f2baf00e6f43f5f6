package filetree

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"openvstorage/internal/ctxlock"
	"openvstorage/internal/format"
)

// Open reads a tree. It deletes contents that no file has: a stop between an unlink and
// the last close leaves them.
func Open(ctx context.Context, keys Keys) (*Tree, error) {
	t := &Tree{
		keys: keys, next: 1, change: ctxlock.New(),
		entries: map[string]*Entry{}, below: map[string]map[string]bool{}, paths: map[uint64]string{}, dirs: map[string]int{}, disks: map[[16]byte]DiskAttr{},
	}
	err := t.load(ctx, entryPrefix, func(name string, v []byte) error {
		e, err := decode(v)
		if err != nil {
			return err
		}
		if other, twice := t.paths[e.Node]; e.Kind == Disk || twice || !Valid(name) {
			return fmt.Errorf("file %q: an entry of kind %d and node %d, which is that of %q", name, e.Kind, e.Node, other)
		}
		t.enter(name, e)
		t.next = max(t.next, e.Node+1)
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = t.load(ctx, diskPrefix, func(id string, v []byte) error {
		if len(id) != 16 {
			return fmt.Errorf("vDisk id %x", id)
		}
		a, err := decodeDisk(v)
		if err == nil {
			t.disks[[16]byte([]byte(id))] = a
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return t, t.sweep(ctx)
}

func (t *Tree) load(ctx context.Context, prefix string, fn func(rest string, v []byte) error) (err error) {
	ranged := t.keys.Range(ctx, []byte(prefix), func(k, v []byte) bool {
		if err = fn(string(k[len(prefix):]), v); err != nil {
			err = fmt.Errorf("file tree, key %q: %w", k, err)
		}
		return err == nil
	})
	return cmp.Or(err, ranged)
}

// sweep deletes contents that no file has. If it meets a key that this release does not
// know it deletes nothing: whoever wrote that key knows better what belongs together.
func (t *Tree) sweep(ctx context.Context) error {
	var gone []Change
	var unknown error
	err := t.keys.Range(ctx, []byte(prefix), func(k, _ []byte) bool {
		if key := string(k); strings.HasPrefix(key, entryPrefix) || strings.HasPrefix(key, diskPrefix) {
			return true
		}
		node, piece, ok := parsePieceKey(k)
		if !ok {
			unknown = fmt.Errorf("file tree: %w: key %q, which this release does not know", format.ErrNewer, k)
			return false
		}
		e := t.entries[t.paths[node]]
		if e == nil || e.Kind != File || int64(piece)*pieceSize >= e.Size {
			gone = append(gone, Change{Key: k})
		}
		t.next = max(t.next, node+1)
		return true
	})
	if err = cmp.Or(unknown, err); err != nil {
		return err
	}
	for part := range slices.Chunk(gone, 1024) {
		err = cmp.Or(err, t.keys.Write(ctx, part))
	}
	return err
}
