package volumedriver

import (
	"context"
	"fmt"

	"openvstorage/backend"
	"openvstorage/sco"

	"github.com/google/uuid"
)

// sumsKey names an SCO in the cache of checksums.
type sumsKey struct {
	volume uuid.UUID
	number sco.Number
}

// sums is the CRC column of a stored SCO: index i is block i+1.
type sums []uint32

// readBackend reads consecutive blocks of one stored SCO and verifies them
// against the SCO's own checksums (P2), beside what the backend verifies.
func (r *reader) readBackend(ctx context.Context, p []byte, loc sco.Location) error {
	if int(loc.Origin()) >= len(r.origins) {
		return fmt.Errorf("%w: %v is of no origin of vDisk %s", backend.ErrCorrupt, loc, r.id)
	}
	o := r.origins[loc.Origin()]
	table, err := r.host.sumsOf(ctx, o, loc.Number())
	if err != nil {
		return err
	}
	name, first := loc.Number().Name(), loc.Index()
	if n := len(p) / sco.ClusterSize; first < 1 || first+n-1 > len(table) {
		return fmt.Errorf("%w: %s of %s has %d blocks, the map names %d", backend.ErrCorrupt, name, o.id, len(table), first+n-1)
	}
	if err := get(ctx, o.ns, name, p, int64(first)*sco.ClusterSize); err != nil {
		return err
	}
	for i := 0; i < len(p); i += sco.ClusterSize {
		if got, want := sco.Sum(p[i:i+sco.ClusterSize]), table[first-1+i/sco.ClusterSize]; got != want {
			return fmt.Errorf("%w: %s of %s, block %d: CRC is %08x, not %08x", backend.ErrCorrupt, name, o.id, first+i/sco.ClusterSize, got, want)
		}
	}
	r.count.backendRead.Add(uint64(len(p)))
	return nil
}

// spreadOf is how many of the first locations one read of the backend can serve: blocks
// that follow one another in one SCO, with clusters between them that read as zeros. A
// disk with holes is written so. The first location is one of data.
func spreadOf(locs []sco.Location) int {
	n, last := 1, locs[0]
	for i, loc := range locs[1:] {
		if loc.Kind() != sco.KindData {
			continue
		}
		if loc != last+1 || loc.Number() != last.Number() {
			break
		}
		n, last = i+2, loc
	}
	return n
}

// readSpread reads a spread into p. Its blocks are read side by side into the first part of
// p, and moved from there to their places. The last one is moved first, so that none
// overwrites another that has yet to be moved.
func (r *reader) readSpread(ctx context.Context, p []byte, locs []sco.Location) error {
	blocks := int(locs[len(locs)-1]-locs[0]) + 1
	if err := r.readBackend(ctx, p[:blocks*sco.ClusterSize], locs[0]); err != nil {
		return err
	}
	cluster := func(i int) []byte { return p[i*sco.ClusterSize : (i+1)*sco.ClusterSize] }
	for i := len(locs) - 1; i > blocks-1; i-- {
		if locs[i].Kind() != sco.KindData {
			clear(cluster(i))
			continue
		}
		blocks--
		copy(cluster(i), cluster(blocks))
	}
	return nil
}

// sumsOf returns the checksums of a stored SCO, from the cache or its footer.
func (h *Host) sumsOf(ctx context.Context, o origin, n sco.Number) (sums, error) {
	key := sumsKey{o.id, n}
	if t, ok := h.sums.GetIfPresent(key); ok {
		return t, nil
	}
	name := n.Name()
	info, err := o.ns.Stat(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("object %s of %s: %w", name, o.id, err)
	}
	tail := make([]byte, sco.TrailerSize)
	if err := get(ctx, o.ns, name, tail, max(info.Size-sco.TrailerSize, 0)); err != nil {
		return nil, err
	}
	t, err := sco.DecodeTrailer(tail, info.Size)
	if err != nil || t.Number != n {
		return nil, fmt.Errorf("object %s of %s: trailer of SCO %d: %w", name, o.id, t.Number, firstError(err, sco.ErrCorrupt))
	}
	column := make([]byte, 4*t.Blocks)
	if err := get(ctx, o.ns, name, column, t.FooterOffset()); err != nil {
		return nil, err
	}
	table, err := t.DecodeSums(column)
	if err != nil {
		return nil, fmt.Errorf("object of %s: %w", o.id, err)
	}
	h.sums.Set(key, table)
	return table, nil
}
