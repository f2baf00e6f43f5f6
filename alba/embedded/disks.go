package embedded

import (
	"context"
	"errors"
	"fmt"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/fleet"
	"openvstorage/alba/health"
	"openvstorage/alba/maintenance"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"

	"github.com/google/uuid"
)

// OSD is what people are told of a disk. Sizes are in bytes.
type OSD struct {
	Number uint64       `json:"number"`
	ID     uuid.UUID    `json:"id"`
	Dir    string       `json:"dir"`
	Node   string       `json:"node"`
	State  health.State `json:"state"` // one of health.DiskStates
	Reason string       `json:"reason,omitempty"`
	Since  *time.Time   `json:"since,omitempty"` // when that was first seen, if it is known
	Used   uint64       `json:"used"`
	// Capacity is what it takes and what its file system has left, which others on
	// it may take too: see FileSystem.
	Capacity uint64 `json:"capacity"`
	// FileSystem names what it is on, "" if that is not known. Disks with the same
	// one have its room together.
	FileSystem string `json:"file_system,omitempty"`
	Fragments  uint64 `json:"fragments"` // of objects
	Bytes      uint64 `json:"bytes"`     // of those
	Obsolete   uint64 `json:"obsolete"`  // fragments that are to be deleted
	Replaces   uint64 `json:"replaces,omitempty"`
	Reads      uint64 `json:"reads"` // since the start
	Writes     uint64 `json:"writes"`
	Errors     uint64 `json:"errors"`
	Refused    uint64 `json:"refused"` // writes for which there was no room; they are no errors
	Corrupt    uint64 `json:"corrupt"`
	Scrub      *Scrub `json:"scrub,omitempty"`

	is     health.DiskIs
	known  health.Disk
	shared uint64
}

// OSDs returns all disks that are not forgotten, in order of number.
func (b *Backend) OSDs(ctx context.Context) ([]OSD, error) {
	all, err := maintenance.AllOSDs(ctx, b.abm)
	if err != nil {
		return nil, err
	}
	byNumber := make(map[uint64]nsm.OSD)
	for after := uint64(0); ; {
		page, err := b.nsm.OSDs(ctx, after, nsm.MaxKeys, userfn.Consistent)
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
	need := b.largestFragment(ctx)
	said := b.fleet.Refresh(ctx)
	list := make([]OSD, 0, len(all))
	for _, o := range all {
		if o.Number != 0 {
			list = append(list, b.osd(ctx, o, byNumber[o.Number], need, said))
		}
	}
	sortOSDs(list)
	return list, nil
}

// fleetOSDs are the disks as far as they are known without the managers.
func (b *Backend) fleetOSDs(ctx context.Context) []OSD {
	list := []OSD{}
	said := b.fleet.Refresh(ctx)
	for _, d := range b.fleet.All() {
		list = append(list, b.osd(ctx, abm.OSD{LongID: d.UUID, Node: d.Node, Endpoint: []byte(d.Place), Number: d.Number}, nsm.OSD{}, 0, said))
	}
	sortOSDs(list)
	return list
}

func (b *Backend) osd(ctx context.Context, o abm.OSD, held nsm.OSD, need uint64, said map[*fleet.Disk]error) OSD {
	v := OSD{
		Number: o.Number, ID: uuid.UUID(o.LongID), Dir: b.path(string(o.Endpoint)), Node: o.Node, Replaces: o.Replaces,
		Capacity: o.Capacity, Used: o.Used, Fragments: held.Live.Fragments, Bytes: held.Live.Bytes, Obsolete: held.Obsolete.Fragments,
	}
	v.known = health.Disk{Lost: o.State == abm.OSDLost, Draining: o.State == abm.OSDDraining, Fragments: held.Live.Fragments}
	if d := b.fleet.Disk(o.Number); d != nil {
		err, asked := said[d]
		if !asked { // it has come meanwhile
			err = d.Refresh(ctx)
		}
		b.observe(d, &v, need, err)
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

// observe adds what the disk itself, and those who use it, tell of it. err is what it
// said when it was asked how full it is.
func (b *Backend) observe(d *fleet.Disk, v *OSD, need uint64, err error) {
	c := d.Counts()
	v.Dir = b.path(d.Place)
	v.Reads, v.Writes, v.Errors, v.Refused, v.Corrupt = c.Reads, c.Writes, c.ReadErrors+c.WriteErrors, c.Refused, c.Corrupt
	if s, ok := b.work.ScrubOf(d.Number); ok {
		v.Scrub = b.scrubOf(s, v.Bytes)
	}
	is := d.Condition()
	switch trouble := (&health.Trouble{Reason: is.Reason, Since: is.Since}); {
	case is.State == fleet.Failing && d.Attached() == nil:
		v.known.Failing, v.known.Unread = trouble, d.Silent() != nil
	case is.State == fleet.Slow:
		v.known.Slow = trouble
	}
	switch {
	case errors.Is(err, fleet.ErrNotAnswering): // which is ErrMissing as well
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
			v.known.Missing = why.Error() // without what disk it is, which stands beside it
		}
		return
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		// Whoever asks had no time for an answer, which says nothing of the disk.
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
		v.FileSystem = fmt.Sprintf("%x", u.Shared)
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

// largestFragment is how much room a put under the default preset may want on one
// disk, 0 if nobody knows.
func (b *Backend) largestFragment(ctx context.Context) uint64 {
	p, err := b.Preset(ctx, "")
	if err != nil || len(p.Policies) == 0 {
		return 0
	}
	n := uint64(p.ChunkSize) / uint64(p.Policies[0].K)
	return n + n/512 + 16<<10 // checksums, its key and its head
}

// OSD returns one disk.
func (b *Backend) OSD(ctx context.Context, number uint64) (OSD, error) {
	all, err := b.OSDs(ctx)
	for _, o := range all {
		if o.Number == number {
			return o, nil
		}
	}
	if err == nil {
		err = b.gone(ctx, number)
	}
	return OSD{}, err
}
