package records

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"openvstorage/alba/manifest"
	"openvstorage/alba/osd"
	"openvstorage/alba/policy"
)

// Places ranks the disks for the record of an inline object: always the same for the same disks,
// so that a version finds the one before. Disks that are on a node of their own come first.
// Disks that cannot be used are left out.
func Places(key manifest.Key, disks []policy.Disk) []uint64 {
	type ranked struct {
		disk policy.Disk
		rank uint64
	}
	var all []ranked
	for _, d := range disks {
		if !d.Usable() {
			continue
		}
		b := binary.BigEndian.AppendUint64(key.Append(nil), d.OSD)
		sum := sha256.Sum256(b)
		all = append(all, ranked{d, binary.BigEndian.Uint64(sum[:])})
	}
	slices.SortFunc(all, func(a, b ranked) int {
		if a.rank < b.rank {
			return -1
		}
		return 1
	})
	nodes := make(map[string]bool)
	var first, rest []uint64
	for _, r := range all {
		if nodes[r.disk.Node] {
			rest = append(rest, r.disk.OSD)
			continue
		}
		nodes[r.disk.Node] = true
		first = append(first, r.disk.OSD)
	}
	return append(first, rest...)
}

// ErrFew is matched by the error of Write that has too few copies, without an error of a disk.
var ErrFew = errors.New("too few disks take it")

// Write writes the record of an inline object on m+1 disks, the first of Places that take it. A
// disk that has a newer version counts as one of them. apply makes an Apply on a disk.
func (r *Record) Write(ctx context.Context, disks []policy.Disk, apply func(ctx context.Context, disk uint64, asserts []osd.Assert, updates []osd.Update) error) error {
	m := &r.Manifest
	key := InlineKey(m)
	encoded, err := r.Append(nil)
	if err != nil {
		return err
	}
	raw := key.AppendRecovery(nil)
	asserts := []osd.Assert{{Kind: osd.NotNewer, Key: raw, Epoch: r.Version}}
	updates := []osd.Update{{Key: raw, Value: Value(key, encoded, r.Version)}}
	want, got := int(m.Policy.M)+1, 0
	var errs []error
	for _, disk := range Places(key, disks) {
		if got == want || ctx.Err() != nil {
			break
		}
		if err := apply(ctx, disk, asserts, updates); err != nil && !errors.Is(err, osd.ErrAssert) {
			errs = append(errs, err)
			continue
		}
		got++
	}
	if got == want {
		return nil
	}
	if err = errors.Join(append(errs, ctx.Err())...); err == nil {
		err = ErrFew
	}
	return fmt.Errorf("recovery record of object %s of namespace %d: on %d disks of %d: %w", m.Name, m.Namespace, got, want, err)
}

// InlineKey is the key of the record of an inline object.
func InlineKey(m *manifest.Manifest) manifest.Key { return manifest.InlineKey(m.Namespace, m.Name) }
