package volumedriver

import (
	"context"
	"fmt"

	"openvstorage/backend"
	"openvstorage/sco"
)

// readBackend reads consecutive blocks of one stored SCO and verifies them
// against the SCO's own checksums (P2), beside what the backend verifies.
func (r *reader) readBackend(ctx context.Context, p []byte, loc sco.Location) error {
	if int(loc.Origin()) >= len(r.origins) {
		return fmt.Errorf("%w: %v is of no origin of vDisk %s", backend.ErrCorrupt, loc, r.id)
	}
	o := r.origins[loc.Origin()]
	table, err := r.host.sums.of(ctx, o, loc.Number())
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
