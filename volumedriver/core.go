package volumedriver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"openvstorage/backend"
	"openvstorage/metadata"
	"openvstorage/sco"
	"openvstorage/volumedriver/registry"
	"openvstorage/writebuffer"

	"github.com/google/uuid"
)

// core is what all parts of a vDisk share: its identity, its map and its log, and
// whether it is halted. The fields without a lock are set while the vDisk is opened,
// before anybody else finds it, and stay.
type core struct {
	host  *Host
	id    uuid.UUID
	epoch uint64          // of its owner; files and catalog carry it
	held  registry.Holder // as the registry has it, once it is claimed; before that, as it was listed
	log   *slog.Logger
	name  atomic.Pointer[string]

	origins []origin // index is the origin of a location; the last is the vDisk itself
	self    sco.Origin
	m       *metadata.Map    // nil: the vDisk could not be opened
	head    *metadata.View   // of m, the live state
	buf     *writebuffer.Log // nil: nothing can be read
	size    atomic.Uint64    // bytes
	count   counters

	halted atomic.Pointer[haltError]
	living context.Context // ends when the vDisk is closed
	end    context.CancelFunc
}

// origin is one namespace that locations may point into.
type origin struct {
	id uuid.UUID
	ns backend.Namespace
}

// ID is the vDisk's UUID, which is never used again.
func (c *core) ID() uuid.UUID { return c.id }

// Name is the vDisk's present name.
func (c *core) Name() string {
	return *c.name.Load()
}

func (c *core) setName(name string) { c.name.Store(&name) }

func (c *core) namespace() backend.Namespace { return c.origins[c.self].ns }

// putObject creates an object. A name that is taken by other bytes halts the vDisk
// (O6).
func (c *core) putObject(ctx context.Context, name string, data []byte) error {
	err := c.namespace().Put(ctx, name, data)
	if errors.Is(err, backend.ErrExists) {
		err = fmt.Errorf("object %s of %s: %w", name, c.id, err)
		c.halt(err)
	}
	return err
}
