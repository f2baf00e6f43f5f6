package records

import (
	"context"
	"fmt"

	"openvstorage/alba/manifest"
	"openvstorage/alba/osd"
	"openvstorage/internal/format"
)

// Read reads a record of so many bytes with a disk's read, and checks it against its own
// checksums (rule P2) and its key: the record of another fragment is format.ErrCorrupt.
func Read(ctx context.Context, read func(ctx context.Context, key []byte, off uint32, p []byte, crcs []uint32) error, k manifest.Key, size uint32) (*Record, error) {
	if size > InlineMax {
		return nil, corrupt("%d bytes under key %v", size, k)
	}
	data, crcs := make([]byte, size), make([]uint32, osd.Blocks(int(size)))
	if err := read(ctx, k.AppendRecovery(nil), 0, data, crcs); err != nil {
		return nil, err
	}
	r, err := Decode(data)
	if err != nil {
		return nil, fmt.Errorf("record %v: %w", k, err)
	}
	m := &r.Manifest
	switch {
	case m.Inlined != k.Inline(), m.Namespace != k.Namespace,
		m.Inlined && InlineKey(m) != k,
		!m.Inlined && (m.Object != k.Object || r.Chunk != k.Chunk || int(k.Fragment) >= len(m.Chunks[0].Fragments)):
		return nil, fmt.Errorf("%w: record %v: it is that of object %s (%v) of namespace %d", format.ErrCorrupt, k, m.Name, m.Object, m.Namespace)
	}
	return r, nil
}
