package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/fleet"
	"openvstorage/alba/health"
	"openvstorage/alba/maintenance"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"

	"github.com/google/uuid"
)

// OSD is the state of a disk, for people. Sizes are in bytes.
type OSD struct {
	Number uint64       `json:"number"`
	ID     uuid.UUID    `json:"id"`
	Dir    string       `json:"dir"`
	Node   string       `json:"node"`
	State  health.State `json:"state"` // one of health.DiskStates
	Reason string       `json:"reason,omitempty"`
	Since  *time.Time   `json:"since,omitempty"` // when that was first seen, if it is known
	Used   uint64       `json:"used"`
	// Capacity is what the disk holds and what its file system has left. Others on
	// the file system may use that too: see FileSystem.
	Capacity uint64 `json:"capacity"`
	// FileSystem names the file system of the disk, "" if it is not known. Disks on
	// one file system share its room.
	FileSystem string `json:"file_system,omitempty"`
	Fragments  uint64 `json:"fragments"` // of objects
	Bytes      uint64 `json:"bytes"`     // of those
	Obsolete   uint64 `json:"obsolete"`  // fragments that are to be deleted
	Replaces   uint64 `json:"replaces,omitempty"`
	Reads      uint64 `json:"reads"` // since the start
	Writes     uint64 `json:"writes"`
	Errors     uint64 `json:"errors"`
	Refused    uint64 `json:"refused"` // writes for which there was no room, which Errors leaves out
	Corrupt    uint64 `json:"corrupt"`
	Scrub      *Scrub `json:"scrub,omitempty"`

	is     health.DiskIs
	known  health.Disk
	shared uint64
}

// DiskReport tells of the disks of a backend, from what the managers have recorded of
// them and from what the fleet has seen.
type DiskReport struct {
	layout
	abm     *abm.Client
	nsm     *nsm.Client
	fleet   *fleet.Fleet
	work    *maintenance.Maintenance
	presets *PresetStore
}

// OSDs returns all disks that are not forgotten, in order of number.
func (r *DiskReport) OSDs(ctx context.Context) ([]OSD, error) {
	all, err := maintenance.AllOSDs(ctx, r.abm)
	if err != nil {
		return nil, err
	}
	byNumber := make(map[uint64]nsm.OSD)
	for after := uint64(0); ; {
		page, err := r.nsm.OSDs(ctx, after, nsm.MaxKeys, userfn.Consistent)
		if err != nil {
			return nil, err
		}
		for _, o := range page {
			byNumber[o.Number] = o
			after = o.Number
		}
		if len(page) < nsm.MaxKeys {
			break
		}
	}
	need := r.largestFragment(ctx)
	said := r.fleet.Refresh(ctx)
	list := make([]OSD, 0, len(all))
	for _, o := range all {
		if o.Number != 0 {
			list = append(list, r.osd(ctx, o, byNumber[o.Number], need, said))
		}
	}
	slices.SortFunc(list, func(a, b OSD) int { return cmp.Compare(a.Number, b.Number) })
	return list, nil
}

// fleetOSDs returns the disks as far as they are known without the managers.
func (r *DiskReport) fleetOSDs(ctx context.Context) []OSD {
	list := []OSD{}
	said := r.fleet.Refresh(ctx)
	for _, d := range r.fleet.All() {
		list = append(list, r.osd(ctx, abm.OSD{LongID: d.UUID, Node: d.Node, Endpoint: []byte(d.Place), Number: d.Number}, nsm.OSD{}, 0, said))
	}
	slices.SortFunc(list, func(a, b OSD) int { return cmp.Compare(a.Number, b.Number) })
	return list
}

// osd tells of one disk. o and held are what the ABM and the NSM host have recorded of
// it, need is the room that a put may want on it, and said is what the disks of the
// fleet answered when they were asked how full they are.
func (r *DiskReport) osd(ctx context.Context, o abm.OSD, held nsm.OSD, need uint64, said map[*fleet.Disk]error) OSD {
	v := OSD{
		Number: o.Number, ID: uuid.UUID(o.LongID), Dir: r.where(o.Node, string(o.Endpoint)), Node: o.Node, Replaces: o.Replaces,
		Capacity: o.Capacity, Used: o.Used, Fragments: held.Live.Fragments, Bytes: held.Live.Bytes, Obsolete: held.Obsolete.Fragments,
	}
	v.known = health.Disk{Lost: o.State == abm.OSDLost, Draining: o.State == abm.OSDDraining, Fragments: held.Live.Fragments}
	if d := r.fleet.Disk(o.Number); d != nil {
		err, asked := said[d]
		if !asked { // it came after they were asked
			err = d.Refresh(ctx)
		}
		r.observe(d, &v, need, err)
	} else if !v.known.Lost {
		v.known.Missing = "it is not followed yet"
	}
	v.is = v.known.Judge()
	v.State, v.Reason = v.is.State, v.is.Reason
	if !v.is.Since.IsZero() {
		v.Since = &v.is.Since
	}
	return v
}

// observe adds what the disk itself tells, and what its users have seen of it. err is
// what the disk answered when it was asked how full it is.
func (r *DiskReport) observe(d *fleet.Disk, v *OSD, need uint64, err error) {
	c := d.Counts()
	v.Dir = r.where(d.Node, d.Place)
	v.Reads, v.Writes, v.Errors, v.Refused, v.Corrupt = c.Reads, c.Writes, c.ReadErrors+c.WriteErrors, c.Refused, c.Corrupt
	if s, ok := r.work.ScrubOf(d.Number); ok {
		v.Scrub = scrubOf(s, v.Bytes, r.work.ScrubTime())
	}
	is := d.Condition()
	switch trouble := (&health.Trouble{Reason: is.Reason, Since: is.Since}); {
	case is.State == fleet.Failing && d.Attached() == nil:
		v.known.Failing, v.known.Unread = trouble, d.Silent() != nil
	case is.State == fleet.Slow:
		v.known.Slow = trouble
	}
	switch {
	case errors.Is(err, fleet.ErrNotAnswering): // before ErrMissing, which it is as well
		if v.known.Failing == nil {
			v.known.Silent = err.Error()
			if why := d.Reason(); why != nil {
				v.known.Silent = why.Error()
			}
		}
		return
	case errors.Is(err, fleet.ErrLate):
		if v.known.Slow == nil {
			v.known.Slow = &health.Trouble{Reason: err.Error()}
		}
		if d.Known().Capacity <= 1 {
			return // it has told nothing yet
		}
	case errors.Is(err, fleet.ErrMissing):
		v.known.Missing, v.known.Unopened = err.Error(), errors.Is(err, fleet.ErrUnopened)
		if why := d.Reason(); why != nil {
			v.known.Missing = why.Error() // the reason alone: the disk is named beside it
		}
		return
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		// The caller had no time for an answer, which says nothing of the disk.
		if d.Known().Capacity <= 1 {
			return
		}
	case err != nil:
		v.known.Silent = err.Error()
		return
	}
	u := d.Known()
	v.Used, v.Capacity, v.shared = u.Used, u.Capacity, u.Shared
	if u.Shared != 0 {
		v.shared = r.fileSystem(d.Node, u.Shared)
		v.FileSystem = fmt.Sprintf("%x", v.shared)
	}
	v.known.Full, v.known.Refused, v.known.Room, v.known.Need = u.Full, d.Refused(), u.Room, need
	v.known.Absent = u.Absent
	if u.ReadOnly != nil {
		v.known.ReadOnly = u.ReadOnly.Error()
	}
	if u.Trouble != nil {
		v.known.Trouble = u.Trouble.Error()
	}
}

// fileSystem tells the file systems of all hosts apart: each host numbers its own.
func (r *DiskReport) fileSystem(node string, number uint64) uint64 {
	if r.own(node) {
		return number
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %x", node, number)
	return h.Sum64()
}

// largestFragment is how much room in bytes a put under the default preset may want on
// one disk, 0 if the preset cannot be read.
func (r *DiskReport) largestFragment(ctx context.Context) uint64 {
	p, err := r.presets.Preset(ctx, "")
	if err != nil || len(p.Policies) == 0 {
		return 0
	}
	n := uint64(p.ChunkSize) / uint64(p.Policies[0].K)
	return n + n/512 + 16<<10 // checksums, its key and its head
}

// OSD returns one disk.
func (r *DiskReport) OSD(ctx context.Context, number uint64) (OSD, error) {
	all, err := r.OSDs(ctx)
	if err != nil {
		return OSD{}, err
	}
	if i := slices.IndexFunc(all, func(o OSD) bool { return o.Number == number }); i >= 0 {
		return all[i], nil
	}
	known, err := maintenance.AllOSDs(ctx, r.abm)
	if err != nil {
		return OSD{}, err
	}
	return OSD{}, whatBecame(r.layout, known, number)
}

// Space returns the room for data in bytes, without parity: what the disks hold, and
// what they can still take under the policy that an object gets now. It waits for no
// disk. The figures are those that the disks told last, a second ago if all is well.
func (r *DiskReport) Space(ctx context.Context) (used, free uint64, err error) {
	p, err := r.presets.Preset(ctx, "")
	if err != nil {
		return 0, 0, fmt.Errorf("room of the backend: %w", err)
	}
	now, free := r.fleet.Takes(p.Policies)
	for _, d := range r.fleet.All() {
		if d.Missing() == nil {
			used += d.Known().Used
		}
	}
	return used / uint64(now.Width()) * uint64(now.K), free, nil
}
