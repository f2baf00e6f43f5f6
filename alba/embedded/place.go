package embedded

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"openvstorage/alba/abm"
	"openvstorage/alba/asd"
	"openvstorage/alba/fleet"

	"github.com/google/uuid"
)

// An ASD is known by its identity, not by its place: mount points may be given to
// other disks, or change places among them. The ABM records where each was seen
// last, and a disk that is not there is looked for in the places of the others.

// move takes the directories of --asd as the places of the ASDs that are in them.
// One that holds none of ours, and is not one that is recorded, is refused.
func (b *Backend) move(ctx context.Context, all []abm.OSD) error {
	in := make([]string, len(all)) // where each is, by what the directories hold
	var left []string              // directories that hold none of ours
	for _, dir := range b.opt.Dirs {
		recorded := slices.ContainsFunc(all, func(o abm.OSD) bool { return b.path(string(o.Endpoint)) == dir })
		id, err := asd.ReadIdentity(b.opt.FS, dir)
		if err != nil && !errors.Is(err, asd.ErrNoASD) && !recorded {
			return err // it may be one of them
		}
		i := slices.IndexFunc(all, func(o abm.OSD) bool { return err == nil && uuid.UUID(o.LongID) == id.ID })
		switch {
		case i >= 0 && in[i] == dir, slices.Contains(left, dir):
			return fmt.Errorf("%w: --asd %s is given twice", ErrOther, dir)
		case i >= 0 && in[i] != "":
			return fmt.Errorf("%w: %s and %s both hold ASD %s: one of them is a copy; take it away", ErrOther, in[i], dir, id.ID)
		case i >= 0:
			in[i] = dir
		case recorded:
			left = append(left, dir)
		default:
			return fmt.Errorf("%w: %s is none of the %d ASDs of this data directory: leave --asd out, and add or replace disks with `ovs alba osd`", ErrOther, dir, len(all))
		}
	}
	if len(b.opt.Dirs) != len(all) {
		return fmt.Errorf("%w: this data directory has %d ASDs, and --asd names %d: leave it out, and add or replace disks with `ovs alba osd`", ErrOther, len(all), len(b.opt.Dirs))
	}
	return b.recordPlaces(ctx, all, b.expected(all, in, left))
}

// expected gives those ASDs that are in none of the directories a place among those
// that hold none: their own, if it is one.
func (b *Backend) expected(all []abm.OSD, in, left []string) []string {
	for i, o := range all {
		if at := slices.Index(left, b.path(string(o.Endpoint))); in[i] == "" && at >= 0 {
			in[i], left = left[at], slices.Delete(left, at, at+1)
		}
	}
	for i := range all {
		if in[i] == "" && len(left) > 0 {
			in[i], left = left[0], left[1:]
		}
	}
	return in
}

// recordPlaces records where ASDs are. A place that is still recorded of another is
// taken only when that one has its new one: a start that is cut short must leave
// each place recorded. Those that have changed places among themselves thus stay as
// they are, and are found by find.
func (b *Backend) recordPlaces(ctx context.Context, all []abm.OSD, in []string) error {
	for again := true; again; {
		again = false
		for i := range all {
			taken := slices.ContainsFunc(all, func(o abm.OSD) bool { return b.path(string(o.Endpoint)) == in[i] })
			if taken || in[i] == "" {
				continue
			}
			all[i].Endpoint = []byte(b.endpoint(in[i]))
			if err := b.abm.RegisterOSD(ctx, all[i]); err != nil {
				return err
			}
			b.opt.Logger.Info("an ASD has moved", "disk", all[i].Number, "dir", in[i])
			again = true
		}
	}
	return nil
}

// find looks for disks that are missing. Those that are in the place of another one
// get that place. b.mu is held.
func (b *Backend) find(disks []*fleet.Disk) []*fleet.Disk {
	disks = slices.Clone(disks)
	var elsewhere map[uuid.UUID]string
	for i, d := range disks {
		if id, err := asd.ReadIdentity(b.opt.FS, b.path(d.Place)); err == nil && id.ID == d.UUID || err != nil && !errors.Is(err, asd.ErrNoASD) {
			continue // it is there, or nobody knows what is
		}
		if elsewhere == nil {
			elsewhere = b.elsewhere()
		}
		if dir, ok := elsewhere[d.UUID]; ok && dir != b.path(d.Place) {
			b.opt.Logger.Warn("a disk is in the place of another one", "disk", d.Number, "dir", dir, "recorded", b.path(d.Place))
			disks[i] = b.fleet.Move(d, b.endpoint(dir))
		}
	}
	return disks
}

// elsewhere says which ASDs are in the places where no disk is open. b.mu is held.
func (b *Backend) elsewhere() map[uuid.UUID]string {
	open := make(map[string]bool)
	places := make(map[string]bool)
	for dir := range b.recorded {
		places[dir] = true
	}
	for _, dir := range b.opt.Dirs {
		places[dir] = true
	}
	for _, d := range b.fleet.All() {
		places[b.path(d.Place)] = true
		if b.asds[d.Number] != nil {
			open[b.path(d.Place)] = true
		}
	}
	found := make(map[uuid.UUID]string)
	for dir := range places {
		if open[dir] {
			continue // a disk that hangs is not asked
		}
		if id, err := asd.ReadIdentity(b.opt.FS, dir); err == nil && id.Owner == b.opt.ID {
			found[id.ID] = dir
		}
	}
	return found
}
