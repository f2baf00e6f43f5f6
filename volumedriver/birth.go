package volumedriver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"openvstorage/backend"
	"openvstorage/sco"
	"openvstorage/volumedriver/catalog"
	"openvstorage/volumedriver/registry"

	"github.com/google/uuid"
)

// unnamed is a vDisk that is in the backend and has no name yet: nobody sees it.
type unnamed struct {
	record   registry.Record
	root     []byte // its first catalog
	segments []catalog.Segment
	version  backend.Version
}

// Naming is what who makes a vDisk does when all is there but its name: nobody finds
// the vDisk by its id yet. It calls commit, once, with the name; what commit returns it returns. So what must not
// change between the choice of a name and its use is held for a moment only, not
// while the backend is waited for.
type Naming func(id uuid.UUID, commit func(name string) error) error

// named is a Naming with a name that is known beforehand.
func named(name string) Naming {
	return func(_ uuid.UUID, commit func(name string) error) error { return commit(name) }
}

// Create makes an empty vDisk of size bytes.
func (h *Host) Create(ctx context.Context, name string, size uint64) (Info, error) {
	if err := validateSize(size); err != nil {
		return Info{}, fmt.Errorf("vDisk %q: %w", name, err)
	}
	if err := h.nameable(ctx, name); err != nil {
		return Info{}, err
	}
	return h.CreateAs(ctx, size, named(name))
}

// CreateAs is Create with a name that is given when it is needed.
func (h *Host) CreateAs(ctx context.Context, size uint64, naming Naming) (Info, error) {
	if err := validateSize(size); err != nil {
		return Info{}, err
	}
	id := uuid.New()
	n, err := h.prepare(ctx, registry.Record{ID: id}, &catalog.Catalog{
		Volume: id, Size: size, Created: time.Now().UTC(), NextSCO: 1, NextTLog: 1,
		Origins:    []catalog.Origin{{Volume: id}},
		Checkpoint: catalog.Checkpoint{NextPage: 1, Root: catalog.Root{Clusters: size / sco.ClusterSize}},
	})
	if err != nil {
		return Info{}, err
	}
	return h.bear(ctx, n, naming)
}

// nameable refuses a name that cannot be given, when it is known what became of
// the operation that may have taken it.
func (h *Host) nameable(ctx context.Context, name string) error {
	if err := h.free(ctx, name); err != nil {
		return err
	}
	return h.nameIsFree(name)
}

func (h *Host) nameIsFree(name string) error {
	if err := registry.ValidateName(name); err != nil {
		return kinded{err: err, kind: ErrInvalid}
	}
	return h.notTaken(name)
}

func (h *Host) notTaken(name string) error {
	if _, err := h.volume(name); err == nil {
		return fmt.Errorf("vDisk %q %w; choose another name", name, ErrExists)
	}
	return nil
}

// prepare makes the namespace of a vDisk with its first catalog. What a crash
// leaves of it has no name and goes at the next start.
func (h *Host) prepare(ctx context.Context, r registry.Record, c *catalog.Catalog) (*unnamed, error) {
	r.Epoch, r.Owner, r.Created = 1, h.opt.Owner, c.Created
	c.Epoch, c.Epochs = r.Epoch, []catalog.EpochStart{{Epoch: r.Epoch}}
	c.NextObject = 1 + reserveAhead
	reserveNumbers(c, 1, 1)
	n := &unnamed{record: r}
	var err error
	if n.root, n.segments, err = catalog.Encode(c); err != nil {
		return nil, fmt.Errorf("new vDisk: %w", err)
	}
	if err := h.putUnnamed(ctx, n); err != nil {
		return nil, errors.Join(fmt.Errorf("new vDisk: %w", err), h.discard(ctx, n))
	}
	return n, nil
}

func (h *Host) putUnnamed(ctx context.Context, n *unnamed) (err error) {
	if err := h.opt.Backend.CreateNamespace(ctx, n.record.ID.String()); err != nil {
		return err
	}
	if err := h.buffer.Prepare(n.record.ID); err != nil {
		return err
	}
	ns := h.opt.Backend.Namespace(n.record.ID.String())
	for _, s := range n.segments {
		if err := ns.Put(ctx, s.Name, s.Data); err != nil {
			return err
		}
	}
	n.version, err = ns.PutIf(ctx, catalog.ObjectName, n.root, 0)
	return err
}

// discard removes what prepare has made, and goes on with it when ctx ends. The
// registry never heard of it, or has refused it.
func (h *Host) discard(ctx context.Context, n *unnamed) error {
	remove := func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, settleMax)
		defer cancel()
		err := h.opt.Backend.DeleteNamespace(ctx, n.record.ID.String())
		if errors.Is(err, backend.ErrNamespaceNotFound) {
			err = nil
		}
		return errors.Join(err, h.buffer.Discard(n.record.ID))
	}
	done := make(chan error, 1)
	h.background.Go(func() {
		err := remove(h.living)
		done <- err
		if err != nil {
			h.persist(func(ctx context.Context) bool { return remove(ctx) == nil })
		}
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return nil // ctx's error is why it is discarded
	}
}

// bear gives a vDisk its name and opens it. While it is not known whether it got
// its name all stays: a vDisk that the registry knows must have its namespace.
func (h *Host) bear(ctx context.Context, n *unnamed, naming Naming) (info Info, err error) {
	called, kept := false, false
	err = naming(n.record.ID, func(name string) error {
		if called {
			return invalidf("vDisk %q: its maker gives it a second name", name)
		}
		called = true
		var err error
		info, kept, err = h.register(ctx, n, name)
		return err
	})
	if kept {
		return info, err
	}
	if err == nil {
		err = invalidf("vDisk got no name")
	}
	return Info{}, errors.Join(err, h.discard(ctx, n))
}

// register gives a vDisk its name and opens it. kept says that it is there, or may
// be.
func (h *Host) register(ctx context.Context, n *unnamed, name string) (info Info, kept bool, err error) {
	if err := h.structure.Take(ctx); err != nil {
		return Info{}, false, err
	}
	defer h.structure.Give()
	if err := h.nameIsFree(name); err != nil {
		return Info{}, false, err
	}
	r := n.record
	r.Name = name
	err = h.opt.Registry.Register(ctx, r)
	if errors.Is(err, registry.ErrUnknownOutcome) {
		info, err = h.birthUnknown(r, err)
		return info, true, err
	}
	if err != nil {
		return Info{}, false, fmt.Errorf("vDisk %q: %w", name, registryError(err))
	}
	// From memory and local files: nobody waits for the backend here. It is there,
	// whether its maker waits for it or not.
	v := h.openOne(h.living, r, n)
	if v.unsure.Load() != nil {
		return v.info(), true, nil // it is made, and opens by itself
	}
	return v.info(), true, v.Err()
}
