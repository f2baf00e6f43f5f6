package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"openvstorage/alba/fleet"
	"openvstorage/alba/object"
	"openvstorage/alba/osd"
	"openvstorage/alba/policy"
	"openvstorage/backend"
	"openvstorage/internal/disk"
)

// If fewer than k disks can give a range now and the others may yet give it, its error is
// backend.ErrUnavailable. The client does not wait for those others: whether to wait, and
// for how long, is for its caller to decide. Whether a disk hangs, was taken away, or was
// not there at the start makes no difference.

// silentPatience is how long a read waits for disks that are known not to answer if it
// cannot do without them: maybe only their writes hang.
const silentPatience = 2 * time.Second

// notAsked reports whether a disk that does not answer is asked for nothing more: a request
// may never come back, and keeps its memory until then.
func notAsked(d *fleet.Disk) bool { return d.ReadsHang() || d.Stuck(stuckReads) }

// silentNow is the error of a disk that did not answer in time, even if it has answered since.
func silentNow(d *fleet.Disk) error {
	if err := d.Silent(); err != nil {
		return err
	}
	return fmt.Errorf("disk %d (%s): %w", d.Number, d.Place, fleet.ErrNotAnswering)
}

// lacking is the error of a range that cannot be made. failed is why each fragment that was
// tried was not good, nil for the others. If the range's own fragment or k of all
// fragments may yet be good, the error is backend.ErrUnavailable.
func (rd *reader) lacking(ctx context.Context, e *entry, r object.Range, failed []error) error {
	var why []error
	left, own := 0, false
	for i, f := range e.m.Chunks[r.Chunk].Fragments {
		d := rd.fleet.Disk(f.OSD)
		if f.OSD == policy.None || d == nil {
			continue // absent tells
		}
		err := failed[i]
		if !isBad(ctx, d, err) {
			left++
			own = own || i == r.Fragment
		}
		switch silent := d.Silent(); {
		case d.Attached() != nil: // absent tells
		case silent != nil:
			why = append(why, silent)
		case err != nil:
			why = append(why, err)
		}
	}
	err := errors.Join(append(why, rd.absent(e, r.Chunk))...)
	if !own && left < int(e.m.Policy.K) {
		return err
	}
	return lacking{err}
}

// isBad reports whether the error of a read says that the fragment is bad: it is not there,
// or damaged, or the medium does not give it. An error of the medium counts only if the
// disk can still tell how full it is; if not, the disk may have been pulled out.
func isBad(ctx context.Context, d *fleet.Disk, err error) bool {
	switch {
	case errors.Is(err, osd.ErrNotFound), errors.Is(err, osd.ErrCorrupt), errors.Is(err, osd.ErrInvalid), isCorrupt(err):
		return true
	case errors.Is(err, osd.ErrUnreadable), disk.CauseOf(err) == disk.BadDisk:
		return d.Attached() == nil && d.Refresh(ctx) == nil
	}
	return false
}

// answers reports whether the disk of a fragment is there and answers.
func (rd *reader) answers(e *entry, r object.Range) bool {
	d, err := rd.diskOf(e, r.Chunk, r.Fragment)
	return err == nil && d.Silent() == nil
}

// lacking is backend.ErrUnavailable whose text is only that of its reason: NBD clients are
// told little of a long text.
type lacking struct{ error }

func (l lacking) Unwrap() []error { return []error{backend.ErrUnavailable, l.error} }
