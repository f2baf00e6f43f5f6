package volumedriver

import (
	"context"
	"fmt"
)

func (v *Volume) info() Info {
	i := Info{Name: v.Name(), ID: v.id, Size: v.size.Load(), State: StateRunning, Epoch: v.epoch, Host: v.held.Host}
	if h := v.halted.Load(); h != nil {
		i.State, i.Reason = h.state(), h.reason()
	} else if cause := v.opening.waits.Load(); cause != nil {
		i.Reason = fmt.Sprintf("reads go on; writes, flushes and management wait, and go on by themselves when what was recovered at the start can be written: %v", *cause)
	} else if cause := v.cat.doubted(); cause != nil {
		i.Reason = fmt.Sprintf("management waits: whether the last change of its catalog took effect is not known: %v", *cause)
	} else if v.cat.inDoubt() {
		i.Reason = "management waits: a change of its catalog is under way that nobody waited for"
	}
	if i.Reason == "" {
		i.Reason = v.diskWaits.reason()
	}
	if u := v.unsure.Load(); u != nil {
		i.State, i.Reason = u.state, u.reason()
	}
	if v.buf != nil {
		backlog, local := v.buf.Backlog()
		i.Backlog, i.Local = uint64(backlog), uint64(local)
	}
	c := v.cat.current()
	i.Created = c.Created
	if v.self > 0 {
		o := c.Origins[v.self-1]
		i.Parent = o.Volume.String() + "@" + o.Snapshot.String()
	}
	if i.Size == 0 {
		i.Size = c.Size
	}
	i.Stored = uint64(v.count.stored.Load())
	i.Children = v.host.table.namesOf(c.Children)
	i.Snapshots = v.snapshotInfos()
	if v.self > 0 && v.m != nil {
		if p, s, err := v.cat.parentSnapshot(); err == nil {
			i.Parent = p.Name() + "@" + s.Name
		}
	}
	return i
}

// manage takes the admin lock, which the returned function gives back, when the outcome
// of each earlier operation on the vDisk is known.
func (v *Volume) manage(ctx context.Context) (*Volume, func(), error) {
	return v.manageAfter(ctx, func() error { return nil })
}

// manageAfter is manage, but calls ready before it takes the admin lock: each time that
// it has to wait for nothing but other holders of that lock.
func (v *Volume) manageAfter(ctx context.Context, ready func() error) (*Volume, func(), error) {
	for {
		if err := v.manageable(); err != nil {
			return nil, nil, err
		}
		if err := v.cat.settle(ctx); err != nil {
			return nil, nil, err
		}
		if err := ready(); err != nil {
			return nil, nil, err
		}
		if err := v.admin.Take(ctx); err != nil {
			return nil, nil, err
		}
		err := v.manageable()
		if err == nil && !v.cat.inDoubt() {
			return v, v.admin.Give, nil
		}
		v.admin.Give()
		if err != nil {
			return nil, nil, err
		}
	}
}

// manageable returns why no management operation is allowed on the vDisk, or nil.
func (v *Volume) manageable() error {
	switch {
	case v.sure() != nil:
		return v.sure()
	case v.users.leaving():
		return fmt.Errorf("vDisk %q: %w", v.Name(), ErrNotFound)
	}
	return v.Err()
}
