package volumedriver

import (
	"context"
	"fmt"

	"openvstorage/sco"

	"github.com/google/uuid"
	"github.com/maypok86/otter/v2"
)

// sumsKey names an SCO in the cache of checksums.
type sumsKey struct {
	volume uuid.UUID
	number sco.Number
}

// sums is the CRC column of a stored SCO: index i is block i+1.
type sums []uint32

// sumsCache keeps the checksums of stored SCOs in memory, those of all vDisks in one
// bound: a read of the backend needs them, and they never change (O6).
type sumsCache struct {
	table *otter.Cache[sumsKey, sums]
}

func newSumsCache(limit int64) sumsCache {
	return sumsCache{table: otter.Must(&otter.Options[sumsKey, sums]{
		MaximumWeight: uint64(limit),
		Weigher:       func(_ sumsKey, s sums) uint32 { return uint32(4*len(s) + 64) },
	})}
}

// of returns the checksums of a stored SCO, from the cache or its footer.
func (c sumsCache) of(ctx context.Context, o origin, n sco.Number) (sums, error) {
	key := sumsKey{o.id, n}
	if t, ok := c.table.GetIfPresent(key); ok {
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
	c.table.Set(key, table)
	return table, nil
}

// forget drops the checksums of an SCO whose object goes, or is put.
func (c sumsCache) forget(volume uuid.UUID, n sco.Number) { c.table.Invalidate(sumsKey{volume, n}) }

// bytes are those that are in use.
func (c sumsCache) bytes() uint64 { return c.table.WeightedSize() }

func (c sumsCache) close() { c.table.StopAllGoroutines() }
