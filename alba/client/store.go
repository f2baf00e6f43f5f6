package client

import (
	"context"
	"fmt"

	"openvstorage/alba/abm"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/backend"
)

// CreateNamespace implements backend.Store: under the default preset.
func (c *Client) CreateNamespace(ctx context.Context, name string) error {
	return c.CreateWithPreset(ctx, name, "")
}

// CreateWithPreset is CreateNamespace under a preset, "" being the default.
func (c *Client) CreateWithPreset(ctx context.Context, name, preset string) error {
	if err := c.check(ctx, name); err != nil {
		return err
	}
	n, err := c.opt.ABM.CreateNamespace(ctx, name, preset)
	if err != nil {
		return fmt.Errorf("create namespace %s: %w", name, translate(err))
	}
	return c.carry(ctx, n)
}

// check refuses calls on a closed client, with an ended context, or with an invalid name.
func (c *Client) check(ctx context.Context, name string) error {
	if err := c.open(ctx); err != nil {
		return err
	}
	return backend.CheckName(name)
}

// open refuses calls on a closed client or with an ended context.
func (c *Client) open(ctx context.Context) error {
	if c.closed.Load() {
		return backend.ErrClosed
	}
	return ctx.Err()
}

// space returns the namespace that has a name now.
func (c *Client) space(ctx context.Context, name string) (*space, error) {
	if err := c.open(ctx); err != nil {
		return nil, err
	}
	return c.spaces.find(ctx, name)
}

// carry tells the NSM host of a namespace what the ABM has decided.
func (c *Client) carry(ctx context.Context, n abm.Namespace) error {
	host, err := c.opt.Host(n.Host)
	if err != nil {
		return err
	}
	if err := c.opt.ABM.Carry(ctx, n.Host, host); err != nil {
		return fmt.Errorf("namespace %s: tell NSM host %d: %w", n.Name, n.Host, err)
	}
	return nil
}

// DeleteNamespace implements backend.Store. Maintenance deletes the objects that were in
// the namespace.
func (c *Client) DeleteNamespace(ctx context.Context, name string) error {
	if err := c.check(ctx, name); err != nil {
		return err
	}
	n, err := c.opt.ABM.DeleteNamespace(ctx, name)
	c.spaces.forget(name) // also after an error: the next call asks the ABM again
	if err != nil {
		return fmt.Errorf("delete namespace %s: %w", name, translate(err))
	}
	err = c.carry(ctx, n)
	c.opt.Deleted()
	return err
}

// ListNamespaces implements backend.Store.
func (c *Client) ListNamespaces(ctx context.Context) ([]string, error) {
	if err := c.open(ctx); err != nil {
		return nil, err
	}
	var all []string
	for after := ""; ; {
		page, err := c.opt.ABM.NamespaceNames(ctx, after, abm.MaxPage, userfn.Consistent)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if len(page) < abm.MaxPage {
			return all, nil
		}
		after = page[len(page)-1]
	}
}

// Namespace implements backend.Store.
func (c *Client) Namespace(name string) backend.Namespace { return &namespace{c: c, name: name} }

// Usage implements backend.Store. used is the bytes of all fragments and of what is
// inline. free is how many bytes of objects the disks that can be reached can still take
// at the width of the default preset. If that width needs more disks than have room, their
// room counts for nothing. What was deleted is no longer used; it is free once maintenance
// has taken it off the disks.
func (c *Client) Usage(ctx context.Context) (used, free uint64, err error) {
	if err := c.open(ctx); err != nil {
		return 0, 0, err
	}
	if used, err = c.stored(ctx); err != nil {
		return 0, 0, err
	}
	_ = c.opt.Fleet.Refresh(ctx) // the room of a missing disk counts for nothing
	p, err := c.spaces.preset(ctx, "")
	if err != nil {
		return used, 0, err
	}
	_, free = c.opt.Fleet.Takes(p.Policies)
	return used, free, nil
}

// stored adds up what all namespaces take.
func (c *Client) stored(ctx context.Context) (sum uint64, err error) {
	hosts, err := c.opt.ABM.Hosts(ctx, userfn.Consistent)
	if err != nil {
		return 0, err
	}
	for _, h := range hosts {
		host, err := c.opt.Host(h.Number)
		if err != nil {
			return 0, err
		}
		for after := uint64(0); ; {
			page, err := host.Namespaces(ctx, after, nsm.MaxKeys, userfn.Consistent)
			if err != nil {
				return 0, err
			}
			for _, n := range page {
				after = n.Number
				if n.State == nsm.NamespaceActive {
					sum += n.Stored
				}
			}
			if len(page) < nsm.MaxKeys {
				break
			}
		}
	}
	return sum, nil
}
