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
	"openvstorage/writebuffer"

	"github.com/google/uuid"
)

// unnamed is a vDisk that is in the backend and has no name yet: nobody sees it.
type unnamed struct {
	record   registry.Record
	intent   registry.Intent // by which it is being made
	root     []byte          // its first catalog
	segments []catalog.Segment
	version  backend.Version
}

// Naming gives a new vDisk its name. It is called when everything but the name is made:
// the backend is waited for before, and nobody finds the vDisk by its id yet. It calls
// commit once, with the name, and returns what commit returns. A caller that must keep
// something unchanged between the choice of the name and its use holds that for the
// time of Naming only.
type Naming func(id uuid.UUID, commit func(name string) error) error

// named is a Naming with a name that is known beforehand.
func named(name string) Naming {
	return func(_ uuid.UUID, commit func(name string) error) error { return commit(name) }
}

// creation makes vDisks, clones among them. A new vDisk belongs to its maker alone
// until it has its name, so that no lock is needed before that.
type creation struct {
	owner      registry.Claimant
	registry   Registry
	backend    backend.Store
	buffer     *writebuffer.Buffer
	table      *table
	names      *names
	doubts     *doubts
	opener     *opener
	deletion   *deletion
	lineage    *lineage
	background *background
}

// create is Host.CreateAs.
func (c *creation) create(ctx context.Context, size uint64, naming Naming) (Info, error) {
	if err := validateSize(size); err != nil {
		return Info{}, err
	}
	id := uuid.New()
	n, err := c.prepare(ctx, registry.Intent{ID: id}, &catalog.Catalog{
		Volume: id, Size: size, Created: time.Now().UTC(), NextSCO: 1, NextTLog: 1,
		Origins:    []catalog.Origin{{Volume: id}},
		Checkpoint: catalog.Checkpoint{NextPage: 1, Root: catalog.Root{Clusters: size / sco.ClusterSize}},
	})
	if err != nil {
		return Info{}, err
	}
	return c.name(ctx, n, naming)
}

// prepare makes the namespace of a vDisk with its first catalog. Its intent is durable
// before anything is made: by it the host's next start finds what to remove if the
// process ends before the vDisk has its name.
func (c *creation) prepare(ctx context.Context, in registry.Intent, first *catalog.Catalog) (*unnamed, error) {
	in.Host, in.Begun = c.owner.Host, first.Created
	r := registry.Record{ID: in.ID, Parent: in.Parent, Epoch: 1, Host: c.owner.Host, Owner: c.owner.Name, Created: first.Created}
	first.Epoch, first.Epochs = r.Epoch, []catalog.EpochStart{{Epoch: r.Epoch}}
	first.NextObject = 1 + reserveAhead
	reserveNumbers(first, 1, 1)
	n := &unnamed{record: r}
	var err error
	if n.root, n.segments, err = catalog.Encode(first); err != nil {
		return nil, fmt.Errorf("new vDisk: %w", err)
	}
	if n.intent, err = c.registry.Begin(ctx, in); err != nil {
		c.forget(in.ID, err)
		return nil, fmt.Errorf("new vDisk: nothing was made: %w", registryError(earlier{err}))
	}
	if err := c.put(ctx, n); err != nil {
		return nil, errors.Join(fmt.Errorf("new vDisk: %w", err), c.discard(ctx, n))
	}
	return n, nil
}

// put makes the namespace and the local directory, and puts the catalog: segments
// before the root that names them (O3).
func (c *creation) put(ctx context.Context, n *unnamed) (err error) {
	if err := c.backend.CreateNamespace(ctx, n.record.ID.String()); err != nil {
		return err
	}
	if err := c.buffer.Prepare(n.record.ID); err != nil {
		return err
	}
	ns := c.backend.Namespace(n.record.ID.String())
	for _, s := range n.segments {
		if err := ns.Put(ctx, s.Name, s.Data); err != nil {
			return err
		}
	}
	n.version, err = ns.PutIf(ctx, catalog.ObjectName, n.root, 0)
	return err
}

// forget removes the intent of a vDisk of which nothing was made, in the background: the
// registry has not answered, and may have noted it.
func (c *creation) forget(id uuid.UUID, cause error) {
	if !errors.Is(cause, registry.ErrUnknownOutcome) {
		return
	}
	c.background.persist(func(ctx context.Context) bool {
		in, err := c.registry.Take(ctx, id, c.owner.Host, 0)
		if err == nil {
			err = c.registry.End(ctx, in)
		}
		return err == nil || errors.Is(err, registry.ErrNotFound) || errors.Is(err, registry.ErrNotOwner)
	})
}

// discard removes what prepare has made, and then the intent. When ctx ends it returns,
// and the removal goes on. The registry has never heard of the vDisk, or has refused it:
// nobody can have used it.
func (c *creation) discard(ctx context.Context, n *unnamed) error {
	remove := func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, settleMax)
		defer cancel()
		err := c.backend.DeleteNamespace(ctx, n.record.ID.String())
		if errors.Is(err, backend.ErrNamespaceNotFound) {
			err = nil
		}
		if err = errors.Join(err, c.buffer.Discard(n.record.ID)); err != nil {
			return err
		}
		if err = c.registry.End(ctx, n.intent); errors.Is(err, registry.ErrNotOwner) {
			err = nil // somebody else removes what is left
		}
		return err
	}
	done := make(chan error, 1)
	c.background.Go(func() {
		err := remove(c.background.living())
		done <- err
		if err != nil {
			c.background.persist(func(ctx context.Context) bool { return remove(ctx) == nil })
		}
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return nil // the caller reports ctx's error
	}
}

// name gives a vDisk its name and opens it. If it may have got its name, everything
// stays: a vDisk that the registry knows must have its namespace.
func (c *creation) name(ctx context.Context, n *unnamed, naming Naming) (info Info, err error) {
	called, kept := false, false
	err = naming(n.record.ID, func(name string) error {
		if called {
			return invalidf("vDisk %q: its maker gives it a second name", name)
		}
		called = true
		var err error
		info, kept, err = c.register(ctx, n, name)
		return err
	})
	if kept {
		return info, err
	}
	if err == nil {
		err = invalidf("vDisk got no name")
	}
	return Info{}, errors.Join(err, c.discard(ctx, n))
}

// register enters a vDisk in the registry and opens it. kept says that the registry
// knows it, or may know it.
func (c *creation) register(ctx context.Context, n *unnamed, name string) (info Info, kept bool, err error) {
	release, err := c.names.hold(ctx)
	if err != nil {
		return Info{}, false, err
	}
	defer release()
	if err := c.names.isFree(name); err != nil {
		return Info{}, false, err
	}
	r := n.record
	r.Name = name
	err = c.registry.Finish(ctx, n.intent, r)
	if errors.Is(err, registry.ErrUnknownOutcome) {
		info, err = c.unknown(r, n.intent, err)
		return info, true, err
	}
	if err != nil {
		return Info{}, false, fmt.Errorf("vDisk %q: %w", name, c.names.refused(err))
	}
	// It opens from memory and local files: nobody waits for the backend with the lock.
	// The vDisk exists now, so that its opening does not end with the caller.
	v := c.opener.openListed(c.background.living(), r, n)
	if v.unsure.Load() != nil {
		return v.info(), true, nil // it is made, and will be opened in the background
	}
	return v.info(), true, v.Err()
}

// unknown lists a vDisk that the registry may know. When the outcome is known, the vDisk
// is opened, or what was made of it is removed.
func (c *creation) unknown(r registry.Record, in registry.Intent, cause error) (Info, error) {
	v := c.opener.standIn(r, &unsure{
		state: StateUnsure, what: "whether it was made is not known", closed: true, cause: cause,
		settle: func(ctx context.Context) error {
			switch _, err := c.registry.Get(ctx, r.ID); {
			case errors.Is(err, registry.ErrNotFound):
				// Only the first catalog is there, which nobody has opened (P8).
				if err := c.deletion.unmake(ctx, in); err != nil {
					return err
				}
				c.table.unlist(r.ID)
				return nil
			case err != nil:
				return err
			}
			c.opener.openListed(c.background.living(), r, &unnamed{})
			return nil
		},
	})
	return v.info(), fmt.Errorf("vDisk %q: %w: %w", r.Name, ErrUnknownOutcome, cause)
}
