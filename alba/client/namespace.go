package client

import (
	"context"
	"errors"
	"fmt"
	"io"

	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/backend"
)

// namespace is the handle of one namespace. It holds nothing but its name.
type namespace struct {
	c    *Client
	name string
}

var _ backend.Namespace = (*namespace)(nil)

// with runs a call on the namespace that has the name now. If the namespace that the client
// knew is gone, another may have its name, and the call is made once more. If it is on its way
// to another NSM host, the call is made again until it is there.
func (n *namespace) with(ctx context.Context, call func(s *space) error) error {
	again := true
	var moving pause
	for {
		s, err := n.c.space(ctx, n.name)
		if err != nil {
			return err
		}
		err = call(s)
		switch {
		case err == nil:
			return nil
		case elsewhere(err):
			n.c.spaces.drop(s)
			if stopped := moving.wait(ctx); stopped != nil {
				return fmt.Errorf("namespace %s: %w; %w", n.name, err, stopped)
			}
		case !n.c.spaces.lost(s, err) || !again:
			return translate(err)
		default:
			again = false
		}
	}
}

// Put implements backend.Namespace.
func (n *namespace) Put(ctx context.Context, name string, data []byte) error {
	if err := backend.CheckName(name); err != nil {
		return err
	}
	return n.with(ctx, func(s *space) error {
		_, err := n.c.writer.put(ctx, s, name, data, nsm.CreateOrEqual, 0)
		return err
	})
}

// PutIf implements backend.Namespace. An object of up to 64 KiB stays in its manifest:
// reading it needs no disk.
func (n *namespace) PutIf(ctx context.Context, name string, data []byte, version backend.Version) (v backend.Version, err error) {
	if err := backend.CheckName(name); err != nil {
		return 0, err
	}
	err = n.with(ctx, func(s *space) error {
		got, err := n.c.writer.put(ctx, s, name, data, nsm.ReplaceIf, uint64(version))
		n.c.manifests.forget(s.number, name)
		v = backend.Version(got)
		return err
	})
	return v, err
}

// Get implements backend.Namespace.
func (n *namespace) Get(ctx context.Context, name string, p []byte, off int64) (got int, err error) {
	if err := backend.CheckName(name); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, fmt.Errorf("object %s: read at %d", name, off)
	}
	err = n.with(ctx, func(s *space) error {
		got, err = n.c.reader.get(ctx, s, name, p, uint64(off))
		if err == io.EOF {
			return nil // not an error of the call
		}
		return err
	})
	if err == nil && got < len(p) {
		err = io.EOF
	}
	return got, err
}

// Stat implements backend.Namespace.
func (n *namespace) Stat(ctx context.Context, name string) (info backend.Info, err error) {
	if err := backend.CheckName(name); err != nil {
		return info, err
	}
	err = n.with(ctx, func(s *space) error {
		o, err := s.nsm.Stat(ctx, s.number, name, userfn.Consistent)
		if err != nil {
			return err
		}
		info = backend.Info{Name: name, Size: int64(o.Size), Version: backend.Version(o.Version)}
		return nil
	})
	return info, err
}

// Narrow implements backend.Widths.
func (n *namespace) Narrow(ctx context.Context, names []string) (narrow []string, err error) {
	err = n.with(ctx, func(s *space) error {
		narrow = narrow[:0]
		for _, name := range names {
			o, err := s.nsm.Stat(ctx, s.number, name, userfn.Consistent)
			if errors.Is(err, nsm.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			if !o.Bucket().Full() {
				narrow = append(narrow, name)
			}
		}
		return nil
	})
	return narrow, err
}

// Delete implements backend.Namespace. Maintenance deletes the fragments.
func (n *namespace) Delete(ctx context.Context, names []string, cond *backend.Condition) error {
	for _, name := range names {
		if err := backend.CheckName(name); err != nil {
			return err
		}
	}
	if cond != nil {
		if err := backend.CheckName(cond.Name); err != nil {
			return err
		}
	}
	return n.with(ctx, func(s *space) error {
		var c *nsm.Condition
		if cond != nil {
			c = &nsm.Condition{Name: cond.Name, Version: uint64(cond.Version)}
		}
		for rest := names; ; {
			part := rest[:min(len(rest), nsm.MaxNames)]
			if err := n.remove(ctx, s, part, c); err != nil {
				return err
			}
			if rest = rest[len(part):]; len(rest) == 0 {
				n.c.opt.Deleted()
				return nil
			}
		}
	})
}

// remove deletes some objects, fewer at once if they have too many fragments.
func (n *namespace) remove(ctx context.Context, s *space, names []string, cond *nsm.Condition) error {
	_, err := s.nsm.Delete(ctx, s.number, names, cond)
	if errors.Is(err, nsm.ErrInvalid) && len(names) > 1 {
		if err := n.remove(ctx, s, names[:len(names)/2], cond); err != nil {
			return err
		}
		return n.remove(ctx, s, names[len(names)/2:], cond)
	}
	for _, name := range names { // also after an error: some may be deleted
		n.c.manifests.forget(s.number, name)
	}
	return err
}

// List implements backend.Namespace.
func (n *namespace) List(ctx context.Context, prefix string, fn func(backend.Info) bool) error {
	return n.ListAfter(ctx, prefix, "", fn)
}

// ListAfter is List of the names behind after, so that a list can be gone on with.
func (n *namespace) ListAfter(ctx context.Context, prefix, after string, fn func(backend.Info) bool) error {
	for {
		var page []nsm.Object
		err := n.with(ctx, func(s *space) (err error) {
			page, err = s.nsm.List(ctx, s.number, prefix, after, nsm.MaxPage, userfn.Consistent)
			return err
		})
		if err != nil {
			return err
		}
		for _, o := range page {
			if !fn(backend.Info{Name: o.Name, Size: int64(o.Size), Version: backend.Version(o.Version)}) {
				return nil
			}
		}
		if len(page) < nsm.MaxPage {
			return nil
		}
		after = page[len(page)-1].Name
	}
}
