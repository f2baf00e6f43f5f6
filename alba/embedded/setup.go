package embedded

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"openvstorage/alba/abm"
	"openvstorage/alba/asd"
	"openvstorage/alba/maintenance"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/policy"
	"openvstorage/alba/preset"
	"openvstorage/internal/disk"

	"github.com/google/uuid"
)

// hostName is the name of the only NSM host.
const hostName = "nsm-0"

// setUp makes the backend at the first start, goes on with one that was cut
// short, and compares the options with one that is there.
func (b *Backend) setUp(ctx context.Context) error {
	rec, err := b.abm.Backend(ctx, userfn.Consistent)
	switch {
	case errors.Is(err, abm.ErrNotFound):
		if err := b.abm.Init(ctx, b.opt.ID); err != nil {
			return err
		}
	case err != nil:
		return err
	case uuid.UUID(rec.ID) != b.opt.ID:
		return fmt.Errorf("%s holds backend %s, and the data directory is %s: one of them was copied from elsewhere", path.Join(b.opt.Dir, "arakoon"), uuid.UUID(rec.ID), b.opt.ID)
	}
	if rec.Default == "" {
		err = b.create(ctx)
	} else {
		err = b.compare(ctx, rec)
	}
	if err != nil {
		return err
	}
	if b.host, err = b.abm.PutHost(ctx, hostName, []byte("arakoon/"+hostName), false); err != nil {
		return err
	}
	return b.abm.Carry(ctx, b.host, b.nsm)
}

// create is the first start. Each of its steps may have been done by an earlier
// one that was cut short.
func (b *Backend) create(ctx context.Context) error {
	p := b.opt.preset()
	data, err := p.Append(nil)
	if err != nil {
		return err
	}
	known, err := maintenance.AllOSDs(ctx, b.abm)
	if err != nil {
		return err
	}
	if err := b.checkPlaces(ctx); err != nil {
		return err
	}
	for _, endpoint := range b.endpoints() {
		i := slices.IndexFunc(known, func(o abm.OSD) bool { return string(o.Endpoint) == endpoint })
		if i < 0 {
			o := abm.OSD{LongID: uuid.New(), Node: b.node(), Endpoint: []byte(endpoint)}
			if err := b.abm.RegisterOSD(ctx, o); err != nil {
				return err
			}
			known, i = append(known, o), len(known)
		}
		if err := b.makeASD(ctx, uuid.UUID(known[i].LongID), endpoint); err != nil {
			return err
		}
		if _, err := b.abm.ClaimOSD(ctx, known[i].LongID); err != nil {
			return err
		}
	}
	if len(known) > len(b.endpoints()) {
		return fmt.Errorf("%w: the first start was cut short after it had registered %d disks, and %d are wanted now: give the flags that it had, or an empty data directory", ErrOther, len(known), len(b.endpoints()))
	}
	if old, err := b.abm.Preset(ctx, p.Name, userfn.Consistent); err == nil {
		if string(old.Data) != string(data) {
			_, err = b.abm.PutPreset(ctx, p.Name, old.Version, data)
		}
		if err != nil {
			return err
		}
	} else if _, err := b.abm.PutPreset(ctx, p.Name, 0, data); err != nil {
		return err
	}
	return b.abm.SetDefaultPreset(ctx, p.Name)
}

// checkPlaces is CheckPlace for all that the first start is to make, before it makes
// any. Those that an earlier one has made, which was cut short, are where they are.
func (b *Backend) checkPlaces(ctx context.Context) error {
	if b.opt.AllowUnmounted {
		return nil
	}
	for _, dir := range b.opt.Dirs {
		if id, err := b.identityIn(ctx, dir); err == nil && id.Owner == b.opt.ID {
			continue
		}
		if err := b.CheckPlace(dir); err != nil {
			return err
		}
	}
	return nil
}

// makeASD makes an ASD that the ABM has registered, unless it is made already,
// and gives it its owner.
func (b *Backend) makeASD(ctx context.Context, id uuid.UUID, endpoint string) error {
	dir := b.path(endpoint)
	return b.aside(ctx, dir, func(fsys disk.FS) error {
		switch there, err := asd.ReadIdentity(fsys, dir); {
		case err == nil && there.ID != id:
			return fmt.Errorf("%s holds ASD %s already, not %s: give an empty directory", dir, there.ID, id)
		case err == nil:
			return nil
		case !errors.Is(err, asd.ErrNoASD): // there may be one
			return err
		}
		if !path.IsAbs(endpoint) {
			if err := fsys.MkdirAll(path.Dir(dir), 0o700); err != nil {
				return err
			}
			if err := fsys.SyncDir(b.opt.Dir); err != nil {
				return err
			}
		}
		return asd.Create(fsys, dir, asd.Identity{ID: id, Owner: b.opt.ID, Node: b.node()})
	})
}

// endpoints are where the ASDs of a new backend are: relative to the data
// directory, so that it can be moved, or absolute.
func (b *Backend) endpoints() []string {
	if len(b.opt.Dirs) > 0 {
		return b.opt.Dirs
	}
	list := make([]string, b.opt.wanted())
	for i := range list {
		list[i] = fmt.Sprintf("asd/%d", i)
	}
	return list
}

func (b *Backend) path(endpoint string) string {
	if path.IsAbs(endpoint) {
		return endpoint
	}
	return path.Join(b.opt.Dir, endpoint)
}

// node is the name of this machine to placement. All disks of a data directory
// are on one.
func (b *Backend) node() string { return b.opt.ID.String() }

// compare refuses options that contradict what was recorded.
func (b *Backend) compare(ctx context.Context, rec abm.Backend) error {
	all, err := maintenance.AllOSDs(ctx, b.abm)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(o abm.OSD) bool { return o.State == abm.OSDLost || o.Number == 0 })
	if n := b.opt.ASDs; n > 0 && n != len(all) {
		return fmt.Errorf("%w: this data directory has %d ASDs, not %d: leave --asds out, and add or replace disks with `ovs alba osd`", ErrOther, len(all), n)
	}
	if len(b.opt.Dirs) > 0 {
		if err := b.move(ctx, all); err != nil {
			return err
		}
	}
	record, err := b.abm.Preset(ctx, rec.Default, userfn.Consistent)
	if err != nil {
		return err
	}
	p, err := preset.Decode(record.Data)
	if err != nil {
		return fmt.Errorf("preset %q: %w", rec.Default, err)
	}
	if len(b.opt.Policies) > 0 && !slices.Equal(b.opt.Policies, p.Policies) {
		return fmt.Errorf("%w: this data directory has the policies %s, not %s: leave --policy out, or make a preset with `ovs alba preset create`",
			ErrOther, show(p.Policies), show(b.opt.Policies))
	}
	if b.opt.Preset != nil {
		want := *b.opt.Preset
		want.Policies, want.Version = p.Policies, p.Version // compared above
		if !want.Equal(p) {
			return fmt.Errorf("%w: this data directory has the default preset %q with other settings: leave --preset out, or make one of another name with `ovs alba preset create`", ErrOther, p.Name)
		}
	}
	return nil
}

func show(list []policy.Policy) string {
	s := make([]string, len(list))
	for i, p := range list {
		s[i] = p.String()
	}
	return strings.Join(s, " ")
}

// identityIn reads who the ASD in a directory is.
func (b *Backend) identityIn(ctx context.Context, dir string) (id asd.Identity, err error) {
	var there asd.Identity
	if err = b.aside(ctx, dir, func(fsys disk.FS) (err error) {
		there, err = asd.ReadIdentity(fsys, dir)
		return err
	}); err == nil {
		id = there
	}
	return id, err
}
